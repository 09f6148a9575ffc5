"""Every type of weights that a preset names is run on every path: SFT, stratify, GRPO, evaluate, serve.

A small chain of the tiny model runs by default. The exhaustive one runs on a structure of Qwen3-VL with the real tokenizer over
real photographs, from curated demonstrations to the evaluation.
"""

from __future__ import annotations

import json
from importlib import resources

import numpy as np
import pytest
import torch
import yaml
from support.photo_chain import CAPS, GRPO, PATIENT, photo_configs, play_photo_chain, run

from gog import store
from gog.completions import Job, Prompt, Sampling
from gog.images import Image
from gog.spec import EvaluateConfig, GRPOConfig, SFTConfig, StratifyConfig
from gog_recipes import world as embedded
from gog_recipes.evaluate import EvaluateRecipe
from gog_recipes.grpo import GRPORecipe
from gog_recipes.models.completion import PolicyModel
from gog_recipes.sft import SFTRecipe
from gog_recipes.stratify import StratifyRecipe

TESTED = ("float32", "bfloat16")


def test_no_preset_names_a_type_that_is_not_tested():
    presets = resources.files("gog_recipes") / "configs"
    files = [file for folder in presets.iterdir() if folder.is_dir() for file in folder.iterdir()]
    named = {yaml.safe_load(file.read_text()).get("model", {}).get("dtype", "float32") for file in files}
    assert named == set(TESTED)


def latest(root, stage):
    return store.Store(root / "store").latest(stage)


def steps(root, stage):
    opened = store.Store(root / "store")
    return [json.loads(line) for line in opened.open(opened.latest(stage), "metrics.jsonl").read_text().splitlines()]


def serve(base, adapter, dtype, text="what is shown?"):
    """A completion by the served policy."""
    served = PolicyModel(base, dtype=dtype)
    served.load_adapter("trained", adapter)
    image = Image(np.zeros((56, 56, 3), np.uint8))
    prompt = Prompt(f"<|vision_start|><|image_pad|><|vision_end|>{text}", (image,))
    (completion,) = served.complete([Job(prompt, Sampling(max_tokens=4), "trained")])
    return completion


def adapter_of(root, stage, target):
    opened = store.Store(root / "store")
    opened.fetch(opened.latest(stage), target)
    return target


@pytest.mark.parametrize(
    ("dtype", "quantization"),
    [*((dtype, "none") for dtype in TESTED), pytest.param("bfloat16", "nf4", marks=pytest.mark.exhaustive)],
)
def test_every_stage_of_the_tiny_model_runs_in_the_type(chain, make, tmp_path, dtype, quantization):
    model = {"base": "tiny", "dtype": dtype}

    def made(kind, **settings):
        return make(kind, tmp_path, model=model, base_quantization=quantization, **settings)

    source, copy = store.Store(chain / "store"), store.open_store(f"file://{tmp_path}/store")
    curated = source.latest("curate")
    copy.publish(
        "curate", 1, {name: source.open(curated, name) for name in curated.files}, meta=curated.meta, parents=()
    )
    run(
        SFTRecipe(made(SFTConfig, epochs=15 if quantization == "none" else 50))
    )  # so small a model loses much in 4 bits
    run(StratifyRecipe(made(StratifyConfig, questions=12, rollouts=2)))
    settings = {
        "levels": ["easy", "1", "2"],
        "questions_per_step": 8,
        "group_size": 4,
        "steps": 2,
        "format_weight": 0.5,
    }
    run(GRPORecipe(made(GRPOConfig, **settings)))
    run(EvaluateRecipe(made(EvaluateConfig, questions=4, policies=["prompted", "sft", "grpo"])))
    series = steps(tmp_path, "grpo")
    assert len(series) == 2 and any(line["learned"] for line in series)
    assert max(line["canary_engine"] for line in series) < (1e-5 if dtype == "float32" else 0.05)
    assert all(line["canary_adapter"] > 1e-3 and line["canary_images"] > 1e-3 for line in series)
    completion = serve(embedded.TINY, adapter_of(tmp_path, "grpo", tmp_path / "adapter"), dtype)
    assert all(np.isfinite(completion.logprobs)) and completion.tokens


@pytest.mark.exhaustive  # a CPU without instructions for bfloat16 multiplies in it ten times slower
def test_a_qwen3_vl_in_bfloat16_runs_from_demonstrations_over_photographs_to_its_evaluation(
    real_base, photo_pool, tools_over, tmp_path
):
    torch.set_num_threads(1)
    base = real_base("qwen3_vl", layers=3)
    made = photo_configs(base, photo_pool, tools_over(photo_pool), tmp_path)
    play_photo_chain(made, rank=16)
    assert latest(tmp_path, "curate").meta["accuracy"] == 1.0
    losses = [line["loss"] for line in steps(tmp_path, "sft")]
    assert losses[-1] < 0.1 * losses[0]
    run(GRPORecipe(made(GRPOConfig, **GRPO, **CAPS, **PATIENT)))
    run(EvaluateRecipe(made(EvaluateConfig, policies=["sft", "grpo"], **CAPS, **PATIENT)))
    series = steps(tmp_path, "grpo")
    assert len(series) == 2 and max(line["canary_engine"] for line in series) < 0.1
    assert all(line["canary_adapter"] > 0.1 and line["canary_images"] > 1e-3 for line in series)
    assert latest(tmp_path, "evaluate") is not None
    completion = serve(base, adapter_of(tmp_path, "grpo", tmp_path / "adapter"), "bfloat16")
    assert all(np.isfinite(completion.logprobs)) and completion.tokens

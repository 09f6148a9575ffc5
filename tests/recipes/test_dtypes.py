"""Every type of weights that a preset names is run on every path: SFT, stratify, GRPO, evaluate, serve.

A small chain of the tiny model runs by default. The slow one runs on a structure of Qwen3-VL with the real tokenizer over
real photographs, from curated demonstrations to the evaluation.
"""

from __future__ import annotations

import asyncio
import json
from importlib import resources

import numpy as np
import pytest
import torch
import yaml
from PIL import Image as Pillow

from gog import store
from gog.completions import Job, Prompt, Sampling
from gog.images import Image
from gog.spec import CurateConfig, EvaluateConfig, GRPOConfig, SFTConfig, StratifyConfig
from gog_recipes import world as embedded
from gog_recipes.curate import CurateRecipe
from gog_recipes.evaluate import EvaluateRecipe
from gog_recipes.grpo import GRPORecipe
from gog_recipes.models.completion import PolicyModel
from gog_recipes.runtime import config
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


def run(recipe):
    recipe.setup()
    if isinstance(recipe, CurateRecipe):
        recipe.save_checkpoint(asyncio.run(recipe.curate()), 1.0)
    elif isinstance(recipe, SFTRecipe):
        recipe.train()
    elif isinstance(recipe, GRPORecipe):
        asyncio.run(recipe.train())
    elif isinstance(recipe, StratifyRecipe):
        recipe.save_checkpoint(asyncio.run(recipe.train()), 1.0)
    else:
        recipe.save_checkpoint(asyncio.run(recipe.train()))


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
    [*((dtype, "none") for dtype in TESTED), pytest.param("bfloat16", "nf4", marks=pytest.mark.slow)],
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


QUESTION = "what is shown here?"


@pytest.fixture(scope="module")
def photo_pool(photographs, tmp_path_factory):
    """A dataset of real photographs whose names image search finds."""
    folder = tmp_path_factory.mktemp("photos")
    (folder / "images").mkdir()
    (folder / "index").mkdir()
    questions, index = [], []
    for path in photographs:
        name = path.stem
        Pillow.open(path).convert("RGB").save(folder / "images" / f"{name}.png")
        evidence = {"kind": "name", "expression": "it", "things": "1"}
        image = f"images/{name}.png"
        questions.append({"id": name, "image": image, "question": QUESTION, "answers": [name], "evidence": evidence})
        index.append({"image": image, "title": name, "url": f"https://example.org/{name}"})
    for split in ("train", "test"):
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in questions))
    (folder / "index" / "images.jsonl").write_text("".join(json.dumps(line) + "\n" for line in index))
    page = {"title": "page", "text": "height n1"}
    (folder / "corpus.jsonl").write_text(json.dumps(page) + "\n")
    return folder


@pytest.mark.slow
def test_a_qwen3_vl_in_bfloat16_runs_from_demonstrations_over_photographs_to_its_evaluation(
    real_base, photo_pool, tools_over, tmp_path
):
    torch.set_num_threads(1)
    base = real_base("qwen3_vl", layers=3)
    model = {"base": str(base), "family": "qwen3-vl", "dtype": "bfloat16", "min_pixels": 16384, "max_pixels": 65536}
    presets = resources.files("gog_recipes") / "configs" / "qwen3-vl"

    tools = tools_over(photo_pool)

    def made(kind, **settings):
        values = yaml.safe_load((presets / f"{kind.kind}.yaml").read_text()) | {
            "model": model,
            "data": {"path": str(photo_pool)},
            "store": {"uri": f"file://{tmp_path}/store"},
            "workdir": str(tmp_path / "work" / kind.kind),
            "endpoints": tools,
        }
        return config.typed(kind, values | settings)

    caps = {"max_turns": 3, "max_turn_tokens": 40, "max_tokens": 2048}
    patient = {"tools": {"deadline_seconds": 120, "judge": {"deadline_seconds": 120}}}
    run(CurateRecipe(made(CurateConfig, trajectories=5, max_turns=4, **patient)))
    assert latest(tmp_path, "curate").meta["accuracy"] == 1.0
    learn = {"epochs": 40, "batch_size": 4, "learning_rate": 1e-2, "warmup_steps": 5, "schedule": "constant"}
    run(SFTRecipe(made(SFTConfig, **learn, eval_share=0.2, eval_every=20, lora={"rank": 16, "alpha": 32})))
    losses = [line["loss"] for line in steps(tmp_path, "sft")]
    assert losses[-1] < 0.1 * losses[0]
    run(StratifyRecipe(made(StratifyConfig, rollouts=2, **caps, **patient)))
    settings = {
        "levels": ["easy", "1", "2"],
        "questions_per_step": 3,
        "group_size": 4,
        "steps": 2,
        "format_weight": 0.5,
    }
    run(GRPORecipe(made(GRPOConfig, **settings, **caps, **patient)))
    run(EvaluateRecipe(made(EvaluateConfig, policies=["sft", "grpo"], **caps, **patient)))
    series = steps(tmp_path, "grpo")
    assert len(series) == 2 and max(line["canary_engine"] for line in series) < 0.1
    assert all(line["canary_adapter"] > 0.1 and line["canary_images"] > 1e-3 for line in series)
    assert latest(tmp_path, "evaluate") is not None
    completion = serve(base, adapter_of(tmp_path, "grpo", tmp_path / "adapter"), "bfloat16")
    assert all(np.isfinite(completion.logprobs)) and completion.tokens

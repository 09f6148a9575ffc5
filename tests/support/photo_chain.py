"""A small chain over real photographs: a dataset, and demonstrations, SFT and levels of a base with a published structure."""

from __future__ import annotations

import asyncio
import json
from importlib import resources

import pytest
import yaml
from PIL import Image as Pillow

from gog.spec import CurateConfig, SFTConfig, StratifyConfig
from gog_recipes.curate import CurateRecipe
from gog_recipes.grpo import GRPORecipe
from gog_recipes.runtime import config
from gog_recipes.sft import SFTRecipe
from gog_recipes.stratify import StratifyRecipe

CAPS = {"max_turns": 3, "max_turn_tokens": 40, "max_tokens": 2048}
"""Of episodes over photographs of IMAGE_SIZES."""
IMAGE_SIZES = {"min_pixels": 16_384, "max_pixels": 65_536}
"""Pixels of an image, of model."""
PATIENT = {"tools": {"deadline_seconds": 120, "judge": {"deadline_seconds": 120}}}
"""For tools on a machine that is busy with other work."""
GRPO = {
    "levels": ["easy", "1", "2"],
    "questions_per_step": 3,
    "group_size": 4,
    "steps": 2,
    "format_weight": 0.5,
}
"""Settings of GRPO that let an overfitted policy learn from a few photographs."""
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


def photo_configs(base, pool, tools, root):
    """A function (kind, **settings) that gives a stage's configuration from the preset of Qwen3-VL, in bfloat16.

    Args:
        base: folder of a Qwen3-VL
        pool: the dataset
        tools: URLs of the tools over it
        root: folder of the run
    """
    presets = resources.files("gog_recipes") / "configs" / "qwen3-vl"

    def made(kind, **settings):
        values = yaml.safe_load((presets / f"{kind.kind}.yaml").read_text()) | {
            "model": {"base": str(base), "family": "qwen3-vl", "dtype": "bfloat16"} | IMAGE_SIZES,
            "data": {"path": str(pool)},
            "store": {"uri": f"file://{root}/store"},
            "workdir": str(root / "work" / kind.kind),
            "endpoints": tools,
        }
        return config.typed(kind, values | settings)

    return made


def play_photo_chain(made, *, rank):
    """Plays curate, sft and stratify. rank: of the adapter of sft."""
    run(CurateRecipe(made(CurateConfig, trajectories=5, max_turns=4, **PATIENT)))
    learn = {"epochs": 40, "batch_size": 4, "learning_rate": 1e-2, "warmup_steps": 5, "schedule": "constant"}
    lora = {"rank": rank, "alpha": 2 * rank}
    run(SFTRecipe(made(SFTConfig, **learn, eval_share=0.2, eval_every=20, lora=lora)))
    run(StratifyRecipe(made(StratifyConfig, rollouts=2, **CAPS, **PATIENT)))

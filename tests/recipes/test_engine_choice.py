"""Engines by name: gog's own, and one from outside that a stage's configuration names."""

from __future__ import annotations

import asyncio
import json

import pytest

from gog import store
from gog.errors import UserError
from gog.spec import GRPOConfig, StratifyConfig
from gog_recipes.rollout import engine
from gog_recipes.stratify import StratifyRecipe

OUTSIDE = "support.scripted_engine:build"


@pytest.mark.parametrize("name", ["vllmm", "no_such_module:build", "support.scripted_engine:no_such_factory"])
def test_an_engine_that_cannot_be_found_is_refused_with_the_choices(name: str) -> None:
    with pytest.raises(UserError, match=r"engine: no engine .* \(transformers, vllm, or module:factory\)"):
        engine.create(name, None)


def test_an_engine_is_a_setting_that_is_checked_when_it_is_read(make, tmp_path) -> None:
    assert make(GRPOConfig, tmp_path).engine == "transformers"
    assert make(GRPOConfig, tmp_path, engine=OUTSIDE).engine == OUTSIDE
    with pytest.raises(UserError, match="engine"):
        make(GRPOConfig, tmp_path, engine="os.system('x')")


def test_an_engine_from_outside_plays_a_stage(chain, make, tmp_path) -> None:
    opened, copy = store.Store(chain / "store"), store.open_store(f"file://{tmp_path}/store")
    sft = opened.latest("sft")
    copy.publish("sft", sft.step, {name: opened.open(sft, name) for name in sft.files}, meta=sft.meta, parents=())
    recipe = StratifyRecipe(make(StratifyConfig, tmp_path, engine=OUTSIDE, questions=4, rollouts=2))
    recipe.setup()
    recipe.save_checkpoint(asyncio.run(recipe.train()), 1.0)
    manifest = copy.latest("stratify")
    graded = [json.loads(line) for line in copy.open(manifest, "levels.jsonl").read_text().splitlines()]
    assert [(line["solved"], line["valid"], line["level"]) for line in graded] == [(0, 2, "2")] * 4

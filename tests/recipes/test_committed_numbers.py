"""Evaluate and stratify commit no file that holds NaN: other programs could not read it."""

from __future__ import annotations

import math
from collections import defaultdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from support.builders import make_question, make_trajectory

from gog.rewards import Reward
from gog.trajectory import Trajectory
from gog_recipes import evaluate, stratify
from gog_recipes.runtime.ranks import SINGLE


def recipe_of(kind: type, folder: Path, **settings: Any) -> Any:
    """A recipe in the state in which it commits, without a model and a store."""
    made = kind.__new__(kind)
    made.stage = SimpleNamespace(workdir=folder, publish=lambda *_, **__: pytest.fail("it was committed"))
    made.pool = SimpleNamespace(questions=[make_question()])
    made.images, made.skipped, made.ranks, made.kept_of = {}, {}, SINGLE, set()
    made.engine = SimpleNamespace(take_counters=lambda: SimpleNamespace(generated=1))
    made.rollouts, made.parent, made.left_out = SimpleNamespace(skipped={}), None, {}
    made.benchmark_of = defaultdict(lambda: "test")
    made.cfg = SimpleNamespace(
        **{"split": "test", "bootstrap": 100, "seed": 0, "keep_trajectories": 0, "level1": (0.5, 0.6), **settings}
    )
    return made


def diverged() -> Trajectory:
    """A trajectory whose reward is NaN."""
    return make_trajectory().model_copy(
        update={"reward": Reward.model_construct(accuracy=math.nan, format=1.0, total=math.nan)}
    )


def test_an_evaluation_with_a_non_finite_accuracy_is_refused_by_name(tmp_path):
    recipe = recipe_of(evaluate.EvaluateRecipe, tmp_path, policies=["sft"])
    with pytest.raises(ValueError, match=r"accuracy is not a finite number"):
        recipe.save_checkpoint({"sft": [diverged()]})


def test_a_stratification_with_a_non_finite_measure_is_refused_by_name(tmp_path):
    recipe = recipe_of(stratify.StratifyRecipe, tmp_path)
    with pytest.raises(ValueError, match=r"pass_rate_mean is not a finite number"):
        recipe.save_checkpoint([[diverged()]], seconds=1.0)

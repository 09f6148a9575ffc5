"""How long ranks wait for each other: one of them may wait for a tool that is down."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
import torch

from gog import catalog
from gog_recipes.runtime import ranks


@pytest.fixture
def joined(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The settings of the group that `init` joins as one of two processes."""
    given: dict[str, Any] = {}
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr(torch.distributed, "init_process_group", lambda backend, **more: given.update(more))
    monkeypatch.setattr(torch.distributed, "get_rank", lambda: 1)
    return given


@pytest.mark.parametrize("patience", [0.0, 600.0, 7200.0])
def test_a_rank_may_wait_for_every_tool_in_turn_before_the_others_take_it_for_dead(joined, patience: float) -> None:
    assert ranks.init(torch.device("cpu"), patience_seconds=patience).rank == 1
    assert joined["timeout"] >= len(catalog.TOOLS) * timedelta(seconds=patience) + timedelta(minutes=30)


def test_a_recipe_that_calls_tools_hands_its_patience_on(joined, monkeypatch: pytest.MonkeyPatch) -> None:
    from gog.spec import EvaluateConfig, GRPOConfig, StratifyConfig
    from gog_recipes import evaluate, grpo, stratify

    class Reached(Exception):
        """The recipe has joined the group."""

    def reached(*_: Any) -> None:
        raise Reached

    common = {"model": {"base": "tiny"}, "data": {"world": {}}, "store": {"uri": "file:///unused"}}
    patient = {"outage": {"patience_seconds": 5000.0}}
    for module, recipe, kind in (
        (grpo, grpo.GRPORecipe, GRPOConfig),
        (stratify, stratify.StratifyRecipe, StratifyConfig),
        (evaluate, evaluate.EvaluateRecipe, EvaluateConfig),
    ):
        joined.clear()
        monkeypatch.setattr(module, "Stage", reached)
        with pytest.raises(Reached):
            recipe(kind.model_validate({**common, "tools": patient}))
        assert joined["timeout"] > timedelta(seconds=5000), module.__name__

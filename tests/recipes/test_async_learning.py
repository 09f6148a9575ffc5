"""Asynchronous rollouts learn what rollouts in turns learn."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import torch
from support.chain_folders import copy_of, lines

from gog import stats
from gog.spec import GRPOConfig
from gog.tool_client import Toolbox
from gog.tool_types import Reply
from gog_recipes import grpo

STEPS = 24


class Lenient(Toolbox):
    """Tools with a judge that accepts every answer, so that a policy of little skill has something to learn: to answer."""

    async def judge(self, *_: Any) -> Reply[bool]:
        return Reply(True, attempts=1)


@pytest.mark.slow
def test_the_policy_learns_to_answer_as_it_does_with_rollouts_in_turns(chain, make, tmp_path, monkeypatch):
    monkeypatch.setattr(grpo, "Toolbox", Lenient)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    rewards = {}
    for name, settings in (("turns", {}), ("ahead", {"async": {"max_staleness": 2}})):
        root = copy_of(chain, tmp_path / name)
        given = {
            "levels": ["easy", "1", "2"],
            "questions_per_step": 6,
            "group_size": 4,
            "steps": STEPS,
            "save_every": STEPS,
        }
        recipe = grpo.GRPORecipe(make(GRPOConfig, root, **given | settings))
        recipe.setup()
        asyncio.run(recipe.train())
        rewards[name] = [line["reward_mean"] for line in lines(root, "grpo")]
    torch.set_num_threads(before)
    gains = {name: stats.mean(each[-6:]) - stats.mean(each[:6]) for name, each in rewards.items()}
    assert min(gains.values()) > 0.2, rewards
    assert stats.mean(rewards["ahead"][-6:]) == pytest.approx(stats.mean(rewards["turns"][-6:]), abs=0.15), rewards

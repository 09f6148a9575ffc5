"""Rows of the evaluation's table."""

from __future__ import annotations

import pytest
from support.builders import make_trajectory, make_turn

from gog.trajectory import Observation, Reward, Trajectory
from gog_recipes.evaluate import table_row


def make_answered(accuracy: float | None, usd: float) -> Trajectory:
    """A trajectory that searched for so much money, and whose verdict cost 0.002 USD."""
    seen = Observation(text="a page", tool="textSearch", usd=usd)
    reward = Reward(accuracy=accuracy, format=1.0, total=accuracy)
    return make_trajectory(make_turn("text", observation=seen), make_turn("answer"), reward=reward, judge_usd=0.002)


def test_a_row_has_the_cost_of_a_question_and_of_a_correct_answer() -> None:
    row = table_row("grpo", "test", [make_answered(1.0, 0.01), make_answered(0.0, 0.03), make_answered(None, 0.02)])
    assert row["usd_per_question"] == pytest.approx(0.022)
    assert row["usd_per_correct"] == pytest.approx(0.066)


def test_a_policy_without_a_correct_answer_has_no_cost_of_one() -> None:
    assert table_row("direct", "test", [make_answered(0.0, 0.0)])["usd_per_correct"] is None

"""Rewards, exclusion from training, and advantages within a group."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.builders import make_trajectory

from gog import rewards
from gog.trajectory import Failure, Reward

BROKEN = Failure(tool="textSearch", kind="timeout")
totals = st.lists(st.sampled_from([0.0, 0.1, 0.9, 1.0, None]), max_size=8)


def test_a_format_weight_of_a_tenth_yields_exactly_four_rewards() -> None:
    found = {rewards.reward(accuracy, fmt).total for accuracy in (0.0, 1.0) for fmt in (False, True)}
    assert found == {0, 0.1, 0.9, 1.0}


def test_a_search_penalty_of_a_tenth_lowers_a_correct_answer_to_0_91() -> None:
    assert rewards.reward(1.0, True, searched=True, search_penalty=0.1).total == 0.91
    assert rewards.reward(1.0, True, searched=False, search_penalty=0.1).total == 1.0
    assert rewards.reward(0.0, True, searched=True, search_penalty=0.1).total == 0.1


@pytest.mark.parametrize(("weight", "total"), [(0.0, 1.0), (0.3, 0.7), (1.0, 0.0)])
def test_the_format_weight_is_a_setting(weight: float, total: float) -> None:
    assert rewards.reward(1.0, False, format_weight=weight).total == total


def test_the_parts_of_a_reward_are_recorded_separately() -> None:
    reward = rewards.reward(1.0, False, searched=True, search_penalty=0.1)
    assert (reward.accuracy, reward.format, reward.total) == (1.0, 0.0, 0.81)


@pytest.mark.parametrize("well_formed", [True, False])
def test_without_a_verdict_there_is_no_reward_rather_than_a_low_one(well_formed: bool) -> None:
    reward = rewards.reward(None, well_formed)
    assert (reward.accuracy, reward.total) == (None, None)
    assert reward.format == float(well_formed)


@pytest.mark.parametrize("failures", ["mask", "drop", "keep"])
def test_an_unjudged_trajectory_is_excluded_whatever_the_setting(failures: str) -> None:
    assert rewards.exclusion(make_trajectory(reward=rewards.reward(None, True)), failures) == "judge"
    assert rewards.exclusion(make_trajectory(), failures) == "judge"


def test_a_trajectory_with_a_tool_failure_is_excluded_unless_kept() -> None:
    touched = make_trajectory(failures=(BROKEN,), reward=rewards.reward(1.0, True))
    assert rewards.exclusion(touched, "mask") == "tool failure: textSearch timeout"
    assert rewards.exclusion(touched, "drop") == "tool failure: textSearch timeout"
    assert rewards.exclusion(touched, "keep") == ""
    assert rewards.exclusion(make_trajectory(reward=rewards.reward(0.0, False)), "mask") == ""


def test_a_wrong_answer_is_not_excluded() -> None:
    assert rewards.exclusion(make_trajectory(reward=Reward(accuracy=0.0, format=1.0, total=0.1)), "mask") == ""


@pytest.mark.parametrize(
    "group", [[1, 0, 0, 0, 1], [1, 0, 0, 0], [0.1, 0.9, 1.0, 0.0], [0.1, 1.0, 0.1, 0.1, 0.1], [0.0, 0.1]]
)
def test_advantages_have_zero_mean_and_unit_deviation(group: list[float]) -> None:
    advantages = np.array(rewards.group_advantages(group))
    assert advantages.mean() == pytest.approx(0, abs=1e-12)
    assert advantages.std() == pytest.approx(1)
    assert list(np.argsort(advantages, kind="stable")) == list(np.argsort(group, kind="stable"))


@pytest.mark.parametrize("size", [2, 4, 5])
@pytest.mark.parametrize("reward", [0.0, 0.1, 0.9, 1.0])
def test_equal_rewards_give_zeros(size: int, reward: float) -> None:
    assert rewards.group_advantages([reward] * size) == [0.0] * size


@given(totals)
def test_every_advantage_is_finite_whatever_the_group(group: list[float | None]) -> None:
    advantages = rewards.group_advantages(group)
    assert [value is None for value in advantages] == [total is None for total in group]
    assert all(math.isfinite(value) for value in advantages if value is not None)
    assert sum(value for value in advantages if value is not None) == pytest.approx(0, abs=1e-9)


def test_an_excluded_member_changes_nothing_for_the_others() -> None:
    first, second, third = rewards.group_advantages([1.0, 0.0, 0.1])
    assert rewards.group_advantages([1.0, None, 0.0, 0.1, None]) == [first, None, second, third, None]


def test_a_group_with_one_valid_member_has_no_advantage() -> None:
    assert rewards.group_advantages([None, 1.0, None]) == [None, 0.0, None]
    assert rewards.group_advantages([]) == []


@pytest.mark.parametrize(
    ("failures", "expected"),
    [("mask", [1.0, None, 0.1]), ("drop", [None, None, None]), ("keep", [1.0, 0.0, 0.1])],
)
def test_a_tool_failure_excludes_its_member_or_its_group_or_nothing(
    failures: str, expected: list[float | None]
) -> None:
    right = make_trajectory(reward=Reward(accuracy=1, format=1, total=1.0))
    spoiled = make_trajectory(reward=Reward(accuracy=0, format=0, total=0.0), failures=(BROKEN,))
    wrong = make_trajectory(reward=Reward(accuracy=0, format=1, total=0.1))
    assert rewards.group_totals([right, spoiled, wrong], failures) == expected


def test_a_judge_error_is_excluded_whatever_the_setting_for_tool_failures() -> None:
    undecided = make_trajectory(reward=Reward(accuracy=None, format=1, total=None))
    assert rewards.group_totals([undecided], "keep") == [None]


def test_an_excluded_member_does_not_change_the_advantages_of_the_others() -> None:
    right = make_trajectory(reward=Reward(accuracy=1, format=1, total=1.0))
    wrong = make_trajectory(reward=Reward(accuracy=0, format=1, total=0.1))
    spoiled = make_trajectory(reward=Reward(accuracy=0, format=0, total=0.0), failures=(BROKEN,))
    alone = rewards.group_advantages(rewards.group_totals([right, wrong], "mask"))
    beside = rewards.group_advantages(rewards.group_totals([right, spoiled, wrong], "mask"))
    assert beside == [alone[0], None, alone[1]]

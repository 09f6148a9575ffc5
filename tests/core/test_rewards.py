"""Rewards, and advantages within a group and over a step."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.builders import make_trajectory, make_turn

from gog import failure_rules, rewards
from gog.spec.base import Advantages
from gog.trajectory import Failure, Segment, Trajectory

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


# ---- costs and length


def played(*, tokens: int = 0, calls: int = 0, stop: str = "answer") -> Trajectory:
    """A trajectory of so many tokens, half of them the model's, and tool calls."""
    turns = tuple(make_turn("glance") for _ in range(calls))
    half = tuple(range(tokens // 2))
    segments = (
        Segment(source="prompt", tokens=half),
        Segment(source="model", tokens=half, logprobs=(0.0,) * len(half)),
    )
    return make_trajectory(*turns, make_turn()).model_copy(update={"segments": segments, "stop": stop})


def test_each_call_and_each_thousand_generated_tokens_cost_a_share_of_the_accuracy() -> None:
    costs = [
        rewards.cost_of(item, call_penalty=0.05, token_penalty=0.2)
        for item in (played(), played(calls=3), played(tokens=1000))
    ]
    assert costs == pytest.approx([0.0, 0.15, 0.1])
    assert rewards.reward(1.0, True, cost=0.15).total == pytest.approx(0.9 * 0.85 + 0.1)


def test_costs_take_nothing_from_a_wrong_answer_and_never_more_than_the_accuracy() -> None:
    assert rewards.reward(0.0, True, cost=0.5).total == rewards.reward(0.0, True).total
    assert rewards.reward(1.0, True, cost=7.0).total == 0.1


def test_a_reward_without_costs_is_the_same_to_the_last_bit() -> None:
    assert rewards.reward(1.0, False, cost=0.0, overlong=0.0) == rewards.reward(1.0, False)


@pytest.mark.parametrize(("tokens", "lost"), [(100, 0.0), (800, 0.0), (900, 0.25), (1000, 0.5), (1200, 0.5)])
def test_the_penalty_of_length_grows_over_the_last_share_of_the_cap(tokens: int, lost: float) -> None:
    found = rewards.overlong_penalty(played(tokens=tokens), max_tokens=1000, share=0.2, penalty=0.5)
    assert found == pytest.approx(lost)


def test_an_episode_that_the_cap_ended_loses_the_whole_penalty() -> None:
    short = played(tokens=10, stop="max_tokens")
    assert rewards.overlong_penalty(short, max_tokens=1000, share=0.2, penalty=0.5) == 0.5
    assert rewards.overlong_penalty(short, max_tokens=1000, share=0.0, penalty=0.5) == 0.0
    reward = rewards.reward(0.0, True, overlong=0.5)
    assert (reward.total, reward.overlong) == (-0.4, 0.5)


# ---- estimators of advantages


GROUPS = [[1.0, 0.1, None, 0.0], [0.9, 0.9, 0.9], [0.0, 1.0], [None, 1.0]]


def plain(name: str) -> list[list[float | None]]:
    """The estimators as their papers write them, member by member."""
    everything = np.array([r for group in GROUPS for r in group if r is not None])
    centred = [
        r - np.mean([each for each in group if each is not None]) for group in GROUPS for r in group if r is not None
    ]
    found: list[list[float | None]] = []
    for group in GROUPS:
        valid = [r for r in group if r is not None]
        mean, deviation, n = np.mean(valid), np.std(valid), len(valid)
        others = [(sum(valid) - r) / (n - 1) if n > 1 else r for r in valid]
        values = {
            "group": [(r - mean) / deviation if deviation > 1e-6 else 0.0 for r in valid],
            "centred": [r - mean for r in valid],
            "leave_one_out": [r - other for r, other in zip(valid, others, strict=True)],
            "batch": [(r - everything.mean()) / everything.std() for r in valid],
            "group_batch": [(r - mean) / np.std(centred) for r in valid],
        }[name]
        rest = iter(values)
        found.append([None if r is None else next(rest) for r in group])
    return found


@pytest.mark.parametrize("name", get_args(Advantages))
def test_an_estimator_gives_what_its_paper_writes(name: Advantages) -> None:
    for ours, theirs in zip(rewards.ESTIMATORS[name](GROUPS), plain(name), strict=True):
        assert [each is None for each in ours] == [each is None for each in theirs]
        assert [each for each in ours if each is not None] == pytest.approx(
            [each for each in theirs if each is not None]
        )


@pytest.mark.parametrize("name", get_args(Advantages))
def test_equal_rewards_in_the_whole_step_give_advantages_of_exactly_zero(name: Advantages) -> None:
    # The mean of three times 0.1 is not 0.1 in binary.
    assert rewards.ESTIMATORS[name]([[0.1] * 3, [0.1, None]]) == [[0.0] * 3, [0.0, None]]


def test_only_a_comparison_over_the_step_gives_a_group_of_equal_rewards_a_signal() -> None:
    signal = {name: any(estimate(GROUPS)[1]) for name, estimate in rewards.ESTIMATORS.items()}
    assert signal == {"group": False, "centred": False, "leave_one_out": False, "batch": True, "group_batch": False}


def test_rewards_vary_if_two_valid_ones_differ() -> None:
    assert [rewards.varies(group) for group in GROUPS] == [True, False, True, False]
    assert not rewards.varies([]) and rewards.varies([0.31, 0.3])  # continuous rewards count as well


# ---- penalties and advantages


def group(*members: tuple[float, dict[str, float]], well_formed: tuple[bool, ...] = ()) -> list[Trajectory]:
    """Judged samples of a question: the verdict of each, and what its reward loses."""
    forms = well_formed or (True,) * len(members)
    return [
        make_trajectory().model_copy(update={"reward": rewards.reward(accuracy, form, searched=True, **lost)})
        for (accuracy, lost), form in zip(members, forms, strict=True)
    ]


def advantages_of(*groups: list[Trajectory], estimator: Advantages = "group", **settings: Any) -> list[list[float]]:
    found = rewards.with_advantages(groups, failures=failure_rules.Settings(**settings), estimator=estimator)
    return [[item.advantage or 0.0 for item in members] for members in found]


def deviation(values: Iterable[float]) -> float:
    return float(np.std(list(values)))


NOISE = [(1.0, {"cost": cost}) for cost in (0.0300, 0.0302, 0.0301, 0.0299)]
"""Right answers of nearly the same length."""
SCALE = 1 / rewards.LEAST_DEVIATION


@pytest.mark.parametrize("lost", [{"cost": 0.2}, {"search_penalty": 0.1}, {"overlong": 0.3}, {}])
@pytest.mark.parametrize("accuracy", [0.0, 1.0])
def test_a_reward_knows_what_it_was_before_costs_and_length(accuracy: float, lost: dict[str, float]) -> None:
    found = rewards.reward(accuracy, True, searched=True, **lost)
    assert found.earned == pytest.approx(rewards.reward(accuracy, True).total, abs=1e-9)
    assert rewards.reward(None, True).earned is None


@pytest.mark.parametrize("estimator", ["group", "batch", "group_batch"])
def test_penalties_that_differ_a_little_give_small_advantages(estimator: Advantages) -> None:
    found = advantages_of(group(*NOISE), group(*NOISE), estimator=estimator)
    totals = [item.reward.total for item in group(*NOISE) if item.reward]
    assert found[0] == pytest.approx([(total - np.mean(totals)) * SCALE for total in totals])
    assert 0 < deviation(found[0]) < 0.01


def test_penalties_that_differ_much_have_unit_advantages_at_most() -> None:
    (found,) = advantages_of(group((1.0, {"cost": 0.0}), (1.0, {"cost": 0.5}), (1.0, {"cost": 1.0})))
    assert deviation(found) == pytest.approx(1)


@pytest.mark.parametrize("estimator", ["group", "batch", "group_batch"])
def test_beside_other_verdicts_penalties_do_not_change_by_what_a_group_is_divided(estimator: Advantages) -> None:
    (found,) = advantages_of(group(*NOISE, (0.0, {})), estimator=estimator)
    assert deviation(found) == pytest.approx(1)


def test_a_group_that_differs_in_its_format_is_divided_by_its_deviation() -> None:
    (found,) = advantages_of(group(*NOISE[:2], well_formed=(True, False)))
    assert deviation(found) == pytest.approx(1)


@pytest.mark.parametrize("estimator", get_args(Advantages))
@given(groups=st.lists(totals, min_size=1, max_size=4))
def test_without_penalties_the_advantages_are_the_same_to_the_last_bit(
    estimator: Advantages, groups: list[list[float | None]]
) -> None:
    estimate = rewards.ESTIMATORS[estimator]
    assert estimate(groups, None, groups) == estimate(groups)


def test_a_failure_that_a_rule_gives_reward_0_differs_although_every_answer_earned_the_same() -> None:
    """Not a penalty: the least deviation would make a format reward of 0.1 count less."""
    first, second = group((0.0, {}), (0.0, {}))
    failed = second.model_copy(update={"failures": (Failure(tool="textSearch", kind="timeout"),)})
    (found,) = advantages_of([first, failed], rule="zero")
    assert found == pytest.approx([1.0, -1.0])


def test_a_group_whose_rewards_differ_only_by_penalties_has_no_signal_for_a_refill() -> None:
    plain = failure_rules.Settings()
    assert not rewards.has_signal(group((1.0, {"cost": 0.0}), (1.0, {"cost": 0.9})), plain)
    assert not rewards.has_signal(group((0.0, {"overlong": 0.0}), (0.0, {"overlong": 0.5})), plain)
    assert rewards.has_signal(group((1.0, {"cost": 0.1}), (0.0, {})), plain)
    assert rewards.has_signal(group((1.0, {}), (1.0, {}), well_formed=(True, False)), plain)
    assert not rewards.has_signal(group((1.0, {"overlong": 0.9}), (0.0, {})), plain), "both totals are 0.1"

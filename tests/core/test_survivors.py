"""What exclusion does to long episodes, and the weights that make up for it, in a simulation with a known answer."""

from __future__ import annotations

import functools

import numpy as np
import pytest
from pydantic import ValidationError
from support.builders import make_trajectory, make_turn

from gog import rewards, survivors
from gog.failure_rules import Settings
from gog.spec import GRPOConfig
from gog.tool_types import Decision
from gog.trajectory import Failure, Observation, Reward, Trajectory

NEEDED = {"model": {"base": "tiny"}, "data": {"world": {}}, "store": {"uri": "file:///unused"}}
BROKEN = Failure(tool="textSearch", kind="timeout")


@functools.cache
def episode(calls: int, failed: int, right: bool) -> Trajectory:
    """An episode of so many text searches, of which the first ones failed."""
    turns = [
        make_turn("text", observation=Observation(text="", tool="textSearch", failures=(BROKEN,) * (call < failed)))
        for call in range(calls)
    ]
    reward = Reward(accuracy=float(right), format=1.0, total=float(right))
    return make_trajectory(*turns, make_turn(), failures=(BROKEN,) * failed, reward=reward)


def searched(**fields: object) -> Trajectory:
    return make_trajectory(
        make_turn("text", observation=Observation(text="", tool="textSearch", **fields)), make_turn()
    )


def test_a_survivor_stands_for_those_that_its_calls_cost() -> None:
    group = [episode(0, 0, True), episode(2, 0, True), episode(2, 1, True), episode(4, 1, False)]
    ratios = survivors.failure_ratios(group)
    assert ratios == {"textSearch": 2 / 8}
    assert [survivors.survival(item, ratios) for item in group[:2]] == [1.0, 0.75**2]
    first, second, *rest = survivors.weights([group], [[True, True, False, False]])[0]
    assert rest == [0.0, 0.0] and second / first == pytest.approx(1 / 0.75**2) and first + second == pytest.approx(2)


def test_a_call_that_the_cache_answered_cannot_fail_and_one_that_joined_another_can() -> None:
    cached, joined = searched(cached=True, decisions=(Decision.CACHED,)), searched(
        cached=True, decisions=(Decision.JOINED,)
    )  # fmt: skip
    assert survivors.survival(cached, {"textSearch": 0.5}) == 1.0
    assert survivors.survival(joined, {"textSearch": 0.5}) == 0.5
    assert survivors.failure_ratios([cached, joined, episode(1, 1, True)]) == {"textSearch": 0.5}


def test_weights_are_1_on_average_over_those_that_count_and_the_same_for_the_same_calls_in_any_group() -> None:
    groups = [[episode(0, 0, True)] * 4, [episode(3, 0, True)] * 2 + [episode(3, 1, True)] * 2, [episode(3, 0, True)]]
    found = survivors.weights(groups, [[not item.failures for item in group] for group in groups])
    assert sum(map(sum, found)) == pytest.approx(7) and found[1][:2] == found[2] * 2
    assert survivors.weights([[episode(1, 1, True)]], [[False]]) == [[0.0]]


def test_the_weight_of_a_lone_survivor_of_an_outage_is_bounded() -> None:
    groups = [[episode(0, 0, True), episode(4, 0, True), *[episode(4, 4, True)] * 30]]
    first, second, *_ = survivors.weights(groups, [[True, True, *[False] * 30]])[0]
    assert second / first == pytest.approx(survivors.MAX_WEIGHT)


def test_without_failures_the_correction_changes_nothing() -> None:
    groups = [[episode(3, 0, True), episode(0, 0, False), episode(1, 0, False)]]
    plain, corrected = (
        rewards.with_advantages(groups, failures=Settings(corrects_survivors=corrects), estimator="group")
        for corrects in (False, True)
    )
    assert [item.advantage for item in corrected[0]] == pytest.approx([item.advantage for item in plain[0]])


def test_a_weighted_trajectory_is_compared_with_the_weighted_mean_of_the_others() -> None:
    group, own = [1.0, 0.0, None, 0.3], [2.0, 1.0, 0.0, 3.0]
    above = [1 - 0.9 / 4, 0 - 2.9 / 5, None, 0.3 - 2.0 / 3]
    valid, weights = np.array([1.0, 0.0, 0.3]), np.array([2.0, 1.0, 3.0])
    mean = np.average(valid, weights=weights)
    deviation = np.average((valid - mean) ** 2, weights=weights) ** 0.5
    for name, factor in {"leave_one_out": 1.0, "centred": 2 / 3, "group": 2 / 3 / deviation}.items():
        (found,) = rewards.ESTIMATORS[name]([group], [own])
        assert [x for x in found if x is not None] == pytest.approx([x * factor for x in above if x is not None])
        assert found[2] is None


@pytest.mark.parametrize("name", sorted(rewards.ESTIMATORS))
def test_equal_weights_change_no_bit_of_an_advantage(name: str) -> None:
    groups = [[1.0, 0.1, None, 0.0], [0.9, 0.9], [0.0, 0.3, 1.0]]
    assert rewards.ESTIMATORS[name](groups, [[1.0] * len(group) for group in groups]) == rewards.ESTIMATORS[name](
        groups
    )


# ---- a policy that either answers at once, right half of the time, or searches. A search is right in 60 % of the episodes,
# and those take five calls; the others give up after one. So searching is better, and its successes are long.

FAILS = 0.15
"""Of each call."""


def play(random: np.random.Generator, search: float, fails: float = FAILS) -> tuple[list[Trajectory], np.ndarray]:
    """Eight episodes of a question, and which of them searched."""
    searches = random.random(8) < search
    long = random.random(8) < 0.6
    calls = np.where(searches, np.where(long, 5, 1), 0)
    failed = random.binomial(calls, fails)
    right = np.where(searches, long, random.random(8) < 0.5)
    return [episode(*map(int, each)) for each in zip(calls, failed, right, strict=True)], searches


def gradient(
    random: np.random.Generator, search: float, questions: int, *, corrects: bool, fails: float = FAILS
) -> float:
    """The policy gradient of one step with respect to the logit of searching."""
    played = [play(random, search, fails) for _ in range(questions)]
    settings = Settings("exclude", corrects_survivors=corrects)
    groups = rewards.with_advantages([group for group, _ in played], failures=settings, estimator="centred")
    terms = [
        item.advantage * (float(searched) - search)
        for group, (_, searches) in zip(groups, played, strict=True)
        for item, searched in zip(group, searches, strict=True)
        if item.advantage is not None
    ]
    return float(np.mean(terms))


def test_exclusion_prefers_short_episodes_and_the_correction_does_not() -> None:
    free, excluded, corrected = (
        np.array([gradient(np.random.default_rng(seed), 0.5, 64, **how) for seed in range(30)])
        for how in ({"corrects": False, "fails": 0.0}, {"corrects": False}, {"corrects": True})
    )
    error = {"free": free.std() / 30**0.5, "corrected": corrected.std() / 30**0.5}
    assert free.mean() == pytest.approx(
        0.25 * 0.1 * 7 / 8, abs=3 * error["free"]
    )  # p·(1-p)·difference, own mean as baseline
    assert excluded.mean() < -0.005 < 0 < corrected.mean()  # of the other sign
    assert corrected.mean() == pytest.approx(free.mean(), abs=3 * (error["free"] + error["corrected"]))


@pytest.mark.parametrize(("corrects", "ends"), [(False, "answers at once"), (True, "searches")])
def test_a_policy_learns_to_search_through_failures_only_with_the_correction(corrects: bool, ends: str) -> None:
    random, logit = np.random.default_rng(1), 0.0
    for _ in range(80):
        logit += 8 * gradient(random, 1 / (1 + np.exp(-logit)), 32, corrects=corrects)
    search = 1 / (1 + np.exp(-logit))
    assert search > 0.8 if ends == "searches" else search < 0.2


def test_a_correction_without_exclusion_is_refused() -> None:
    given = {"survivorCorrection": "inverse-probability"}
    assert Settings.of(GRPOConfig.model_validate(NEEDED | given)).corrects_survivors
    with pytest.raises(ValidationError, match="survivorCorrection weights what toolFailures exclude leaves"):
        GRPOConfig.model_validate(NEEDED | given | {"toolFailures": "mask"})

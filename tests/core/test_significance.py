"""Tests, corrections, power and seeds, against values that are known or can be counted."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from gog import significance


def test_the_p_value_is_that_of_all_assignments_of_signs() -> None:
    differences = [1.0, 1.0, 1.0, -1.0, 1.0, 1.0, 0.0, 1.0]
    found = [value for value in differences if value]
    sums = [
        abs(sum(s * v for s, v in zip(signs, found, strict=True))) for signs in itertools.product((1, -1), repeat=7)
    ]
    exact = sum(each >= abs(sum(found)) for each in sums) / len(sums)
    assert significance.permutation(differences, resamples=20_000) == pytest.approx(exact, abs=0.01)


def test_a_p_value_is_never_zero_and_is_one_where_nothing_differs() -> None:
    assert significance.permutation([1.0] * 200, resamples=999) == 1 / 1000
    assert significance.permutation([0.0] * 50) == significance.permutation([]) == 1.0


def test_where_nothing_differs_in_truth_few_tests_are_below_the_level() -> None:
    rng = np.random.default_rng(3)
    below = sum(
        significance.permutation(rng.choice([-1.0, 0.0, 1.0], 60), resamples=400, seed=trial) < significance.LEVEL
        for trial in range(300)
    )
    assert 3 <= below <= 30


def test_holm_corrects_the_smallest_value_most_and_keeps_the_order() -> None:
    values = [0.001, 0.2, 0.012, 0.02]
    corrected = significance.holm(values)
    assert corrected == pytest.approx([0.004, 0.2, 0.036, 0.04])
    assert significance.holm([0.9, 0.8]) == [1.0, 1.0] and significance.holm([]) == []


def test_a_detectable_difference_is_shown_four_times_of_five() -> None:
    rng = np.random.default_rng(0)
    noise = rng.normal(0, 1, 400)
    size = significance.detectable(list(noise))
    shown = 0
    for trial in range(200):
        sample = np.random.default_rng(1000 + trial).normal(size, noise.std(ddof=1), 400)
        shown += abs(sample.mean()) > 1.96 * sample.std(ddof=1) / math.sqrt(400)
    assert shown / 200 == pytest.approx(significance.POWER, abs=0.09)
    assert significance.detectable([1.0]) == math.inf


def test_pass_at_k_is_the_share_of_draws_with_a_right_sample() -> None:
    samples = [True, True, False, False, False]
    draws = list(itertools.combinations(samples, 3))
    assert significance.pass_at(3, 2, 5) == pytest.approx(sum(map(any, draws)) / len(draws))
    assert significance.pass_at(4, 2, 5) == 1.0 and significance.pass_at(1, 0, 5) == 0.0
    with pytest.raises(ValueError, match="pass@6 needs at least 6 samples"):
        significance.pass_at(6, 1, 5)


def test_the_interval_over_three_seeds_is_students() -> None:
    found = significance.spread([0.90, 0.93, 0.96])
    assert (found.mean, found.n) == (pytest.approx(0.93), 3)
    assert found.high - found.mean == pytest.approx(4.3027 * 0.03 / math.sqrt(3), rel=1e-4)
    assert math.isnan(significance.spread([0.5]).deviation)


def test_seeds_that_disagree_widen_the_interval() -> None:
    rng = np.random.default_rng(5)
    alike = [list(rng.choice([-1.0, 0.0, 1.0], 500, p=[0.1, 0.6, 0.3])) for _ in range(4)]
    apart = [[value + shift for value in each] for each, shift in zip(alike, (-0.3, -0.1, 0.1, 0.3), strict=True)]
    close, wide = significance.compare(alike), significance.compare(apart)
    assert wide.mean == pytest.approx(close.mean) and wide.high - wide.low > 2 * (close.high - close.low)
    assert close.low < close.mean < close.high and close.p < 0.01 < wide.p
    assert (close.n, close.seeds) == (2000, 4)
    with pytest.raises(ValueError, match="at least one question"):
        significance.compare([[1.0], []])


@pytest.mark.parametrize(("seeds", "deviation", "by_question"), [(3, 0.055, 0.0), (3, 0.055, 0.3), (5, 0.0, 0.3)])
def test_over_seeds_few_tests_are_below_the_level_where_nothing_differs_in_truth(
    seeds: int, deviation: float, by_question: float
) -> None:
    rng, trials = np.random.default_rng(1), 400
    below = 0
    for _ in range(trials):
        shifts, hard = rng.normal(0, deviation, (seeds, 1)), rng.normal(0, by_question, (1, 500))
        found = significance.compare(list(shifts + hard + rng.normal(0, 0.5, (seeds, 500))))
        assert (found.p < significance.LEVEL) == (not found.low < 0 < found.high)
        below += found.p < significance.LEVEL
    assert below / trials < 0.1, "resampling three seeds finds a difference in 13 to 18 % of such samples"


def test_without_common_questions_the_interval_is_that_of_the_means_of_seeds() -> None:
    means = [0.094, 0.017, 0.142]
    found = significance.compare([[mean] * count for mean, count in zip(means, (10, 11, 12), strict=True)])
    spread = significance.spread(means)
    assert (found.low, found.high) == (pytest.approx(spread.low), pytest.approx(spread.high))
    assert found.p == pytest.approx(0.146, abs=0.001), "t = 2.31 with 2 degrees of freedom"
    assert found.detectable > found.mean


def test_a_question_without_a_verdict_in_one_seed_counts_in_the_others() -> None:
    rng = np.random.default_rng(2)
    table = rng.normal(0.3, 1, (3, 50))
    table[0, :5] = math.nan
    found = significance.compare(list(table))
    assert found.n == 145 and found.mean == pytest.approx(np.mean([np.nanmean(row) for row in table]))
    with pytest.raises(ValueError, match="at least one question"):
        significance.compare([[1.0, 0.0], [math.nan, math.nan]])


def test_seeds_that_agree_on_every_question_are_tested_over_the_questions() -> None:
    assert significance.compare([[0.0] * 20] * 3).p == 1.0
    agreed = significance.compare([[1.0] * 20] * 3)
    assert (agreed.low, agreed.high) == (1.0, 1.0) and agreed.p < 0.001


def test_one_seed_is_compared_over_its_questions() -> None:
    values = [1.0] * 30 + [-1.0] * 10 + [0.0] * 60
    found = significance.compare([values])
    assert found.mean == pytest.approx(0.2) and found.low > 0 and found.p < 0.01
    assert found.detectable == significance.detectable(values)

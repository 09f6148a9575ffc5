"""Intervals, comparisons, and the published table, recomputed."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gog import stats

SIZES = {"FVQA": 1800, "InfoSeek": 2000, "SimpleVQA": 1013, "MMSearch": 171, "LiveVQA": 2000, "DynVQA": 706}
"""Questions of each benchmark, as the granularity of the published scores implies."""
PUBLISHED = {
    "Qwen2.5-VL-7B": (20.31, 25.33, 13.90, 41.26, 14.62, 10.30, 16.43),
    "Qwen2.5-VL-32B": (22.79, 26.89, 16.95, 42.84, 16.37, 12.70, 20.96),
    "Qwen3-VL-8B-Instruct": (21.13, 23.94, 13.80, 40.18, 15.20, 11.40, 22.24),
    "Qwen3-VL-8B-Thinking": (23.84, 24.56, 16.05, 41.76, 15.20, 15.15, 30.31),
    "Qwen3-VL-30B-A3B-Instruct": (23.80, 26.11, 16.70, 42.35, 18.13, 12.60, 26.91),
    "Qwen3-VL-30B-A3B-Thinking": (27.26, 31.11, 22.80, 43.73, 17.54, 15.40, 33.00),
    "GPT-4o": (30.68, 42.00, 30.60, 43.44, 21.64, 14.80, 31.59),
    "prompted, Qwen2.5": (22.31, 24.50, 17.40, 41.66, 20.47, 10.40, 19.41),
    "prompted, Qwen3": (41.70, 51.33, 32.00, 62.69, 36.84, 25.95, 41.36),
    "full search, Qwen2.5": (44.36, 61.06, 38.15, 59.13, 36.26, 31.05, 40.51),
    "full search, Qwen3": (46.99, 57.33, 32.25, 61.90, 63.84, 23.55, 39.09),
    "MMSearch-R1": (36.91, 42.39, 24.65, 54.79, 40.94, 23.85, 34.84),
    "GoG-2.5 SFT without gaze": (41.76, 53.39, 40.10, 59.53, 40.94, 22.30, 34.28),
    "GoG-2.5 SFT": (43.28, 53.72, 41.90, 60.61, 40.35, 24.55, 38.53),
    "GoG-3 SFT without gaze": (48.34, 60.17, 40.55, 64.86, 46.20, 32.80, 45.47),
    "GoG-3 SFT": (50.17, 62.17, 40.55, 65.65, 53.80, 32.40, 46.46),
    "GoG-2.5 RL, level 1": (47.28, 64.00, 50.35, 64.66, 50.88, 32.95, 39.94),
    "GoG-2.5 RL, level 2": (53.22, 66.78, 51.05, 64.86, 56.73, 37.70, 42.21),
    "GoG-3 RL, level 1": (48.89, 66.39, 44.95, 64.86, 61.99, 39.55, 45.61),
    "GoG-3 RL, level 2": (56.88, 68.44, 49.05, 66.44, 65.50, 43.85, 48.02),
}
"""Accuracies in percent as published: the average, then each benchmark."""


def test_the_published_averages_are_macro_means_except_in_three_rows() -> None:
    wrong = {row for row, (average, *scores) in PUBLISHED.items() if abs(stats.mean(scores) - average) > 0.0051}
    assert wrong == {"full search, Qwen3", "GoG-2.5 RL, level 1", "GoG-3 RL, level 1"}


def test_one_published_score_is_impossible_with_that_many_questions() -> None:
    impossible = [
        (row, name, score)
        for row, (_, *scores) in PUBLISHED.items()
        for (name, size), score in zip(SIZES.items(), scores)
        if abs(100 * round(score * size / 100) / size - score) > 0.0051
    ]
    assert impossible == [("full search, Qwen3", "MMSearch", 63.84)]


def test_level_2_gains_less_over_level_1_than_the_published_averages_suggest() -> None:
    def gain(model: str) -> float:
        return stats.mean(PUBLISHED[f"{model} RL, level 2"][1:]) - stats.mean(PUBLISHED[f"{model} RL, level 1"][1:])

    assert round(gain("GoG-2.5"), 2) == pytest.approx(2.76)
    assert round(gain("GoG-3"), 2) == pytest.approx(2.99)


@pytest.mark.parametrize(
    ("successes", "n", "interval"),
    [(5, 10, (0.2366, 0.7634)), (0, 10, (0.0, 0.2775)), (10, 10, (0.7225, 1.0)), (81, 263, (0.2553, 0.3662))],
)
def test_wilson_agrees_with_published_values(successes: int, n: int, interval: tuple[float, float]) -> None:
    assert stats.wilson(successes, n) == pytest.approx(interval, abs=5e-5)


def test_without_observations_the_interval_is_everything() -> None:
    assert stats.wilson(0, 0) == (0.0, 1.0)


@given(st.integers(1, 5000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_the_wilson_interval_contains_the_share_and_narrows_with_n(count: tuple[int, int]) -> None:
    low, high = stats.wilson(*count)
    assert 0 <= low <= count[0] / count[1] + 1e-12 and count[0] / count[1] - 1e-12 <= high <= 1
    tenfold = stats.wilson(10 * count[0], 10 * count[1])
    assert tenfold[1] - tenfold[0] < high - low


def test_a_paired_comparison_finds_a_real_difference_and_is_reproducible() -> None:
    rng = np.random.default_rng(1)
    worse = rng.random(400) < 0.5
    better = worse | (rng.random(400) < 0.2)
    difference, low, high = stats.paired_bootstrap(better, worse, resamples=2000)
    assert difference == pytest.approx(float(better.mean() - worse.mean()))
    assert 0 < low < difference < high < 0.2
    assert stats.paired_bootstrap(better, worse, resamples=2000) == (difference, low, high)
    assert stats.paired_bootstrap(worse, better, resamples=2000)[0] == -difference


def test_the_interval_of_a_paired_comparison_is_the_95_percent_one() -> None:
    a = np.random.default_rng(2).normal(1.0, 1.0, 400)
    difference, low, high = stats.paired_bootstrap(a, np.zeros(400), resamples=5000)
    half = 1.96 * a.std() / 400**0.5
    assert (low, high) == pytest.approx((difference - half, difference + half), abs=0.1 * half)


def test_a_comparison_with_itself_is_exactly_zero() -> None:
    assert stats.paired_bootstrap([1, 0, 1], [1, 0, 1], resamples=100) == (0.0, 0.0, 0.0)


def test_a_paired_interval_is_narrower_than_an_unpaired_one() -> None:
    easy_and_hard = [1.0] * 100 + [0.0] * 100
    improved = [1.0] * 100 + [1.0] * 5 + [0.0] * 95
    _, low, high = stats.paired_bootstrap(improved, easy_and_hard, resamples=1000)
    assert high - low < 0.05  # two unpaired means of 200 would differ by 0.1 by chance alone


@pytest.mark.parametrize(("a", "b"), [([1, 0], [1]), ([], [])])
def test_values_of_different_questions_cannot_be_compared(a: list[float], b: list[float]) -> None:
    with pytest.raises(ValueError, match="needs the same questions"):
        stats.paired_bootstrap(a, b)


def test_mean_and_percentile_without_values_are_zero() -> None:
    assert (stats.mean([]), stats.percentile([], 0.5)) == (0.0, 0.0)
    assert (stats.mean([1, 2, 6]), stats.percentile([1, 2, 6], 0.5)) == (3.0, 2.0)

"""Intervals and comparisons. Pure, seeded."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np


def wilson(successes: int, n: int, z: float = 1.959964) -> tuple[float, float]:
    """Confidence interval of a share; (0, 1) for n = 0.

    Args:
        successes: how many of n.
        n: observations.
        z: quantile of the normal distribution; the default gives a 95 % interval.

    Source:
        E. B. Wilson, Probable inference, the law of succession, and statistical inference, JASA 22 (1927).

    >>> tuple(round(end, 3) for end in wilson(5, 10))
    (0.237, 0.763)
    """
    if n == 0:
        return 0.0, 1.0
    share, square = successes / n, z * z
    middle = (share + square / (2 * n)) / (1 + square / n)
    half = z / (1 + square / n) * math.sqrt(share * (1 - share) / n + square / (4 * n * n))
    return max(0.0, middle - half), min(1.0, middle + half)


def paired_bootstrap(
    a: Sequence[float] | np.ndarray, b: Sequence[float] | np.ndarray, *, resamples: int = 10_000, seed: int = 0
) -> tuple[float, float, float]:
    """Mean of a - b over the same questions, with its 95 % percentile interval.

    Args:
        a, b: a value for each question, in the same order.
        resamples: bootstrap samples.
        seed: of the resampling; equal seeds give equal intervals.

    Returns:
        The mean difference and the ends of its interval.

    Raises:
        ValueError: a and b differ in length, or are empty.

    Source:
        B. Efron and R. J. Tibshirani, An Introduction to the Bootstrap (1993), chapter 13.
    """
    if len(a) != len(b) or not len(a):
        raise ValueError(f"a paired comparison needs the same questions: {len(a)} and {len(b)} values")
    difference = np.asarray(a, dtype=np.float64) - np.asarray(b, dtype=np.float64)
    rng = np.random.default_rng(seed)
    means = np.concatenate(
        [
            difference[rng.integers(0, len(difference), (min(500, resamples - start), len(difference)))].mean(1)
            for start in range(0, resamples, 500)
        ]
    )
    low, high = np.quantile(means, (0.025, 0.975))
    return float(difference.mean()), float(low), float(high)


def mean(values: Sequence[float]) -> float:
    """Arithmetic mean; 0 without values."""
    return float(np.mean(values)) if len(values) else 0.0


def weighted_mean(values: Sequence[float], weights: Sequence[float]) -> float:
    """Mean of values of these weights, which are not negative; 0 where they sum to 0."""
    return float(np.average(values, weights=weights)) if sum(weights) else 0.0


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which a share (0 to 1) of the values lies, interpolated; 0 without values."""
    return float(np.quantile(values, share)) if len(values) else 0.0

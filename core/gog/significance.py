"""Whether a difference between policies is more than chance: tests, correction for many of them, power, seeds. Pure, seeded.

An interval alone invites the question how many comparisons were looked at, and an interval that contains 0 the question
what it could have shown. So each comparison has a p-value, which is corrected for the number of comparisons, and the
smallest difference that so many questions show.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from gog import stats

LEVEL, POWER = 0.05, 0.8
"""Chance of a difference where there is none; chance to show one of the size that `detectable` returns."""
_Z = {0.975: 1.959964, 0.8: 0.841621}
_T = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131)
"""97.5 % quantiles of Student's t for 1 to 15 degrees of freedom; the normal quantile is used beyond."""


@dataclass(frozen=True)
class Spread:
    """A figure over several seeds."""

    mean: float
    """Arithmetic mean."""
    deviation: float
    """Standard deviation over seeds, with n - 1; nan for one seed."""
    low: float
    """Lower end of the 95 % interval of the mean (Student's t); nan for one seed."""
    high: float
    """Upper end."""
    n: int
    """Seeds."""


@dataclass(frozen=True)
class Difference:
    """The difference of two policies on the same questions."""

    mean: float
    """Mean of a - b: over the questions of each seed, then over seeds."""
    low: float
    """Lower end of its 95 % interval."""
    high: float
    """Upper end."""
    p: float
    """Two-sided p-value, not corrected for the number of comparisons."""
    detectable: float
    """Smallest true difference that as many questions of one seed show with a chance of 80 %."""
    n: int
    """Questions, of all seeds."""
    seeds: int
    """Seeds."""


def compare(by_seed: Sequence[Sequence[float]], *, resamples: int = 10_000, seed: int = 0) -> Difference:
    """Tests paired differences of one or several seeds.

    One seed: paired bootstrap over questions, and signs permuted. Several: seeds are drawn with replacement, then questions
    within each, and the p-value is twice the share of draws beyond 0. With few seeds such an interval is somewhat too
    narrow.

    Args:
        by_seed: a - b for each question of each seed.
        resamples: of the bootstrap and of the permutation.
        seed: of both.

    Raises:
        ValueError: there is no seed, or one without questions.
    """
    every = [value for values in by_seed for value in values]
    if len(by_seed) == 1 and every:
        mean, low, high = stats.paired_bootstrap(every, [0.0] * len(every), resamples=resamples, seed=seed)
        p = permutation(every, resamples=resamples, seed=seed)
    else:
        means = _nested_means(by_seed, resamples, seed)
        mean = stats.mean([stats.mean(values) for values in by_seed])
        low, high = (float(end) for end in np.quantile(means, (0.025, 0.975)))
        beyond = min(np.count_nonzero(means <= 0), np.count_nonzero(means >= 0))
        p = min(1.0, 2 * (float(beyond) + 1) / (resamples + 1))
    return Difference(mean, low, high, p, detectable(every[: len(by_seed[0])]), len(every), len(by_seed))


def permutation(differences: Sequence[float], *, resamples: int = 10_000, seed: int = 0) -> float:
    """Two-sided p-value of paired differences under the hypothesis that each is as likely with the other sign.

    Args:
        differences: a - b for each question.
        resamples: random assignments of signs, among which the one that was observed counts as one.
        seed: of the assignments; equal seeds give equal values.

    Returns:
        At least 1 / (resamples + 1); 1 without differences.

    Source:
        B. Phipson and G. K. Smyth, Permutation p-values should never be zero (2010).
    """
    values = np.asarray([each for each in differences if each], dtype=np.float64)
    if not len(values):
        return 1.0
    rng = np.random.default_rng(seed)
    observed, extreme = abs(float(values.sum())), 0
    for start in range(0, resamples, 500):
        signs = rng.integers(0, 2, (min(500, resamples - start), len(values)), dtype=np.int8) * 2 - 1
        extreme += int(np.count_nonzero(np.abs(signs @ values) >= observed - 1e-9))
    return (extreme + 1) / (resamples + 1)


def holm(values: Sequence[float]) -> list[float]:
    """P-values corrected for their number, so that all of them together are wrong at the level that each is compared with.

    Source:
        S. Holm, A simple sequentially rejective multiple test procedure (1979).

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    corrected, highest = [0.0] * len(values), 0.0
    for rank, index in enumerate(sorted(range(len(values)), key=values.__getitem__)):
        highest = max(highest, min(1.0, (len(values) - rank) * values[index]))
        corrected[index] = highest
    return corrected


def detectable(differences: Sequence[float]) -> float:
    """The smallest true mean difference that this many paired questions show with a chance of 80 %, at the 5 % level.

    Args:
        differences: a - b for each question; their deviation stands for that of further samples.

    Returns:
        In the unit of the differences; infinite for fewer than two.
    """
    if len(differences) < 2:
        return math.inf
    deviation = float(np.std(np.asarray(differences, dtype=np.float64), ddof=1))
    return (_Z[1 - LEVEL / 2] + _Z[POWER]) * deviation / math.sqrt(len(differences))


def pass_at(k: int, right: int, n: int) -> float:
    """Chance that one of k samples is right, estimated without bias from `right` of n samples.

    Raises:
        ValueError: there are fewer samples than k.

    Source:
        M. Chen et al., Evaluating Large Language Models Trained on Code (2021).

    >>> pass_at(1, 2, 4)
    0.5
    """
    if not 1 <= k <= n or not 0 <= right <= n:
        raise ValueError(f"pass@{k} needs at least {k} samples and no more right ones than samples, not {right} of {n}")
    return 1.0 - math.comb(n - right, k) / math.comb(n, k)


def spread(values: Sequence[float]) -> Spread:
    """Mean, deviation and interval of a figure over seeds.

    Raises:
        ValueError: there is no value.
    """
    if not values:
        raise ValueError("a spread needs at least one seed")
    middle = stats.mean(values)
    if len(values) == 1:
        return Spread(middle, math.nan, math.nan, math.nan, 1)
    deviation = float(np.std(np.asarray(values, dtype=np.float64), ddof=1))
    quantile = _T[len(values) - 2] if len(values) - 1 <= len(_T) else _Z[1 - LEVEL / 2]
    half = quantile * deviation / math.sqrt(len(values))
    return Spread(middle, deviation, middle - half, middle + half, len(values))


def _nested_means(by_seed: Sequence[Sequence[float]], resamples: int, seed: int) -> np.ndarray:
    """Means over seeds that are drawn with replacement, of questions that are drawn within each: [resamples].

    Trainings with other seeds differ by more than their questions do, so both are drawn.
    """
    if not by_seed or not all(len(each) for each in by_seed):
        raise ValueError("a comparison over seeds needs at least one question for each of at least one seed")
    rng = np.random.default_rng(seed)
    values = [np.asarray(each, dtype=np.float64) for each in by_seed]
    drawn = np.stack([_bootstrap_means(each, rng, resamples) for each in values])  # [seeds, resamples]
    chosen = rng.integers(0, len(values), (len(values), resamples))
    means: np.ndarray = np.take_along_axis(drawn, chosen, axis=0).mean(0)
    return means


def _bootstrap_means(values: np.ndarray, rng: np.random.Generator, resamples: int) -> np.ndarray:
    """Means of samples with replacement: [resamples]."""
    parts = [
        values[rng.integers(0, len(values), (min(500, resamples - start), len(values)))].mean(1)
        for start in range(0, resamples, 500)
    ]
    return np.concatenate(parts)

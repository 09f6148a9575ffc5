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

from gog import stats, student

LEVEL, POWER = 0.05, 0.8
"""Chance of a difference where there is none; chance to show one of the size that `detectable` returns."""
_Z = {0.975: 1.959964, 0.8: 0.841621}


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
    """Smallest true difference that as many seeds and questions show with a chance of 80 %; infinite where that is unknown."""
    n: int
    """Questions with a difference, of all seeds."""
    seeds: int
    """Seeds."""


def compare(by_seed: Sequence[Sequence[float]], *, resamples: int = 10_000, seed: int = 0) -> Difference:
    """Tests paired differences of one or several seeds.

    One seed: paired bootstrap over questions, and signs permuted; what is found holds of these two policies. Several: the
    seeds are a sample of all trainings, and where they answer the same questions, those are a sample of all questions.
    Both add to the variance of the mean, whose interval and p-value are Student's. Resampling three seeds would give
    intervals of half the width and four times as many false findings.

    Args:
        by_seed: a - b for each question of each seed; nan for a question without a verdict. Rows of one length have the
            same questions in one order.
        resamples: of the bootstrap and of the permutation.
        seed: of both.

    Raises:
        ValueError: there is no seed, or one without a difference.

    Source:
        F. E. Satterthwaite, An approximate distribution of estimates of variance components (1946).
    """
    rows = [np.asarray(each, dtype=np.float64) for each in by_seed]
    known = [row[~np.isnan(row)] for row in rows]
    if not known or not all(len(each) for each in known):
        raise ValueError("a comparison over seeds needs at least one question for each of at least one seed")
    n = sum(len(each) for each in known)
    if len(rows) == 1:
        (values,) = known
        mean, low, high = stats.paired_bootstrap(values, np.zeros(n), resamples=resamples, seed=seed)
        p = permutation(values, resamples=resamples, seed=seed)
        return Difference(mean, low, high, p, detectable(values), n, 1)
    means = np.array([each.mean() for each in known])
    mean, (variance, freedom) = float(means.mean()), _variance(rows, means)
    if not variance:  # all seeds agree on all questions
        p = permutation(np.concatenate(known), resamples=resamples, seed=seed)
        return Difference(mean, mean, mean, p, math.inf, n, len(rows))
    error, quantile = math.sqrt(variance), student.quantile(1 - LEVEL / 2, freedom)
    return Difference(
        mean,
        mean - quantile * error,
        mean + quantile * error,
        student.two_sided(mean / error, freedom),
        (quantile + student.quantile(POWER, freedom)) * error,
        n,
        len(rows),
    )


def _variance(rows: Sequence[np.ndarray], means: np.ndarray) -> tuple[float, float]:
    """Variance of the mean over seeds, and its degrees of freedom.

    Args:
        rows: differences by seed, with nan.
        means: mean of each.
    """
    seeds = len(means)
    between = float(means.var(ddof=1)) / seeds
    same = np.stack(rows) if len({len(row) for row in rows}) == 1 else np.empty((seeds, 0))
    same = same[:, ~np.isnan(same).any(0)]  # questions that every seed has
    count = same.shape[1]
    if count < 2:
        return between, seeds - 1.0
    questions = float(same.mean(0).var(ddof=1)) / count  # with a little of what seeds add to single questions
    variance = between + questions
    if not variance:
        return 0.0, seeds - 1.0
    return variance, variance**2 / (between**2 / (seeds - 1) + questions**2 / (count - 1))


def permutation(differences: Sequence[float] | np.ndarray, *, resamples: int = 10_000, seed: int = 0) -> float:
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


def detectable(differences: Sequence[float] | np.ndarray) -> float:
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
    half = student.quantile(1 - LEVEL / 2, len(values) - 1) * deviation / math.sqrt(len(values))
    return Spread(middle, deviation, middle - half, middle + half, len(values))

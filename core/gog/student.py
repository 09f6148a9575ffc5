"""Student's t distribution, which says how far a mean of few values may be from the truth. Pure."""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np

_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(128)
_NORMAL = NormalDist()
LARGE = 1000.0
"""Degrees of freedom from which on the normal distribution is used: its quantiles differ by less than 0.2 %."""


def two_sided(t: float, freedom: float) -> float:
    """Chance of a value at least as far from 0 as t.

    With x = sqrt(freedom) tan(angle) the density is proportional to cos(angle) ** (freedom - 1), which is smooth up to the end.

    Args:
        t: the value.
        freedom: degrees of freedom, at least 1, whole or not.
    """
    if math.isinf(t):
        return 0.0
    if freedom >= LARGE:
        return 2 * _NORMAL.cdf(-abs(t))
    begin, end = math.atan(abs(t) / math.sqrt(freedom)), math.pi / 2
    angles = (end - begin) / 2 * _NODES + (end + begin) / 2
    area = (end - begin) / 2 * float(_WEIGHTS @ np.cos(angles) ** (freedom - 1))
    whole = math.sqrt(math.pi) / 2 * math.exp(math.lgamma(freedom / 2) - math.lgamma((freedom + 1) / 2))
    return min(1.0, area / whole)


def quantile(chance: float, freedom: float) -> float:
    """The value below which a share of all values lies.

    Args:
        chance: that share, above 0.5 and below 1.
        freedom: degrees of freedom, at least 1.

    >>> round(quantile(0.975, 2), 3)
    4.303
    """
    low, high = 0.0, 1.0
    while two_sided(high, freedom) > 2 * (1 - chance):
        high *= 2
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if two_sided(middle, freedom) > 2 * (1 - chance) else (low, middle)
    return (low + high) / 2

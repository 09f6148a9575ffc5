"""Amounts as Kubernetes writes them: `500m`, `4Gi`, `1e3`."""

from __future__ import annotations

import re

_SUFFIXES = (
    {"n": 1e-9, "u": 1e-6, "m": 1e-3, "": 1.0}
    | {letter: 1e3**power for power, letter in enumerate("kMGTPE", 1)}
    | {f"{letter}i": 2.0 ** (10 * power) for power, letter in enumerate("KMGTPE", 1)}
)
_QUANTITY = re.compile(r"(?P<number>\+?[0-9.]+(?:[eE][-+]?[0-9]+)?)(?P<suffix>[a-zA-Z]*)")


def amount(quantity: str) -> float:
    """A quantity in cores or bytes. quantity: as `gog.spec.Quantity` accepts it.

    >>> [amount(each) for each in ("500m", "2", "1.5Gi", "1e3", "2E")]
    [0.5, 2.0, 1610612736.0, 1000.0, 2e+18]
    """
    match = _QUANTITY.fullmatch(quantity)
    if match is None:
        raise ValueError(f"{quantity!r} is not a Kubernetes quantity")
    return float(match["number"]) * _SUFFIXES[match["suffix"]]


def larger(one: str, other: str) -> str:
    """The larger of two quantities."""
    return one if amount(one) >= amount(other) else other

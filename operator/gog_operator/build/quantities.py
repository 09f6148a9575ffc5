"""Amounts as Kubernetes writes them: `500m`, `4Gi`."""

from __future__ import annotations

SUFFIXES = {"m": 1e-3, "": 1.0, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12} | {
    f"{letter}i": 2.0 ** (10 * power) for power, letter in enumerate("KMGT", 1)
}


def amount(quantity: str) -> float:
    """In cores or bytes. quantity: as `gog.spec.Quantity` lets it pass.

    >>> [amount(each) for each in ("500m", "2", "1.5Gi")]
    [0.5, 2.0, 1610612736.0]
    """
    number = quantity.rstrip("mkMGTKi")
    return float(number) * SUFFIXES[quantity[len(number) :]]


def larger(one: str, other: str) -> str:
    return one if amount(one) >= amount(other) else other

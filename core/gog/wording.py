"""Counts in messages."""

from __future__ import annotations


def plural(count: int, singular: str, several: str = "") -> str:
    """A count with its words.

    Args:
        count: how many.
        singular: for one, without the count.
        several: for any other number; empty adds an s.

    >>> [plural(n, "run") for n in (1, 2, 1200)]
    ['1 run', '2 runs', '1,200 runs']
    >>> plural(1, "weight does not fit", "weights do not fit")
    '1 weight does not fit'
    """
    return f"{count:,} {singular if count == 1 else several or f'{singular}s'}"

"""Words of messages: counts, and texts of others."""

from __future__ import annotations

MAX_WORDS = 300
"""Maximum characters that are kept of a server's error message."""


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


def one_line(text: str, limit: int = MAX_WORDS) -> str:
    """Untrusted text made safe for a log: one printable line of bounded length."""
    plain = "".join(each if each.isprintable() else " " for each in text[: 4 * limit])
    words = " ".join(plain.split())
    return words if len(words) <= limit else f"{words[: limit - 1]}…"

"""Words of messages: counts, texts of others, and the name that was probably meant."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

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


def guess(name: str, known: Sequence[str]) -> str:
    """The remedy for an unknown name: `did you mean learningRate?` for lerningRate, learning_rate and lr.

    Args:
        name: The unknown name.
        known: The names that exist.
    """
    by_initials = {each[0] + "".join(filter(str.isupper, each)).lower(): each for each in known if each}
    if len(name) > 1 and name.lower() in by_initials:
        return f"did you mean {by_initials[name.lower()]}?"
    meant = close(name, known)
    if meant:
        return f"did you mean {meant}?"
    return f"known: {', '.join(known)}" if known else ""


def close(name: str, known: Sequence[str]) -> str:
    """The known name that resembles a name most, whatever their case and underscores; empty if none does.

    >>> close("raeder", ["reader", "summariser"]), close("reader", ["price"])
    ('reader', '')
    """
    lowered = {each.lower().replace("_", ""): each for each in known}
    found = difflib.get_close_matches(name.lower().replace("_", ""), lowered, n=1, cutoff=0.6)
    return lowered[found[0]] if found else ""

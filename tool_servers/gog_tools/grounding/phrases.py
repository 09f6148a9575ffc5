"""Phrases of an expression, and which of them a box is about.

A policy may ask for several things at once: "the left lion. the sign". Each phrase is matched by itself, so that a box has
the label of one phrase as the policy wrote it. The processors' own labels are decoded from token masks instead: they may
join the words of several phrases, be empty, or hold a separator.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

_SEPARATOR = re.compile(r"[.;?!]+(?:\s+|$)|\n+")
"""The end of a phrase. A point inside a word or number ends none: "the no.5 car"."""


def split(expression: str) -> tuple[str, ...]:
    """The phrases of an expression in lower case, each once; empty if none has a letter or digit.

    >>> split("The left lion. A sign; the left lion.")
    ('the left lion', 'a sign')
    """
    phrases = (" ".join(part.lower().split()) for part in _SEPARATOR.split(expression))
    return tuple(dict.fromkeys(phrase for phrase in phrases if any(map(str.isalnum, phrase))))


def join(phrases: Sequence[str]) -> str:
    """The caption of phrases, as Grounding DINO was trained on them.

    >>> join(("a lion", "a sign"))
    'a lion. a sign.'
    """
    return ". ".join(phrases) + "."


def owner(phrases: Sequence[str], begin: int, end: int) -> int:
    """Index of the phrase to which characters of the caption belong.

    Args:
        phrases: as they were joined
        begin: first character
        end: last character, exclusive

    Returns:
        -1 for a separator and for no character at all (a token that the tokenizer adds).
    """
    start = 0
    for index, phrase in enumerate(phrases):
        if start <= begin < end <= start + len(phrase):
            return index
        start += len(phrase) + 2
    return -1

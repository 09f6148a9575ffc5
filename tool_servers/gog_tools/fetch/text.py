"""Text of strangers, made fit for a model to read: nothing invisible, no tags of the agent, bounded.

A page can hide orders from people and show them to a model: in characters without width, in Unicode's tag characters, in
direction marks. It can also write the agent's own tags, so that a result looks like an answer. Labels around such text
are no boundary; what cannot be seen is removed, and tags are broken (`gog.prompts.inert`).
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator

from gog import prompts

_JOINERS = "\u200c\u200d"
"""Characters without width that belong to words of Persian, Hindi and others."""
_SCAN = 4
"""Characters that are looked at for each one that may be kept."""
_UNSEEN = ("Cc", "Cf", "Co", "Cs", "Cn")
"""Categories of characters that show nothing."""
_MAX_MARKS = 4
"""Combining marks on one letter; more of them only cover neighbouring lines."""


def clean(text: str, limit: int) -> str:
    """One line of visible text.

    >>> clean("a <ans\\u200bwer>4</answer>", 100)
    'a ‹answer›4‹/answer›'

    Args:
        text: as it was found.
        limit: most characters; a longer text ends with an ellipsis.
    """
    seen = "".join(_visible(text[: _SCAN * limit + 100]))
    line = " ".join(prompts.inert(seen).split())
    return line if len(line) <= limit else f"{line[: limit - 1].rstrip()}…"


def clean_url(url: str, limit: int = 2_000) -> str:
    """A web address as a result may show it; empty for anything else."""
    plain = url.strip()
    if len(plain) > limit or not plain.lower().startswith(("http://", "https://")):
        return ""
    return "" if any(not "!" <= each <= "~" or each in '<>"\\^`{|}' for each in plain) else plain


def _visible(text: str) -> Iterator[str]:
    marks = 0
    for each in text:
        if each.isascii():
            if each.isprintable() or each.isspace():
                yield each if each.isprintable() else " "
            marks = 0
            continue
        category = unicodedata.category(each)
        marks = marks + 1 if category in ("Mn", "Me") else 0
        if each in _JOINERS or (category not in _UNSEEN and marks <= _MAX_MARKS and each not in _BLANK):
            yield each


_BLANK = "\u115f\u1160\u3164\uffa0\u2800"
"""Letters and symbols that show nothing."""

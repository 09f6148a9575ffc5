"""Answers of several items, in any order unless the order is what the question asks for."""

from __future__ import annotations

import re
from collections.abc import Callable

from gog.answers import tokens

MAX_ITEMS = 20
_SEPARATOR = re.compile(r"\s*(?:,\s*(?:and|&)\s+|;|、|，|,(?!\d{3}\b)|\n|\s+and\s+|\s+&\s+)\s*", re.IGNORECASE)
_ORDERED = re.compile(
    r"\b(order|ordered|rank\w*|sequence|respectively|steps?|ascending|descending|chronological\w*|coordinates?|"
    r"first|second|left|right|top|bottom|largest|oldest|youngest|winner|runner-up|before|after|then|"
    r"followed|score|ratio|latitude|from .+ to|successive\w*|consecutive\w*)\b",
    re.IGNORECASE,
)
_PLURAL = re.compile(
    r"\b(are|were|two|three|four|five|six|seven|both|names?|list|which [a-z]+s|what [a-z]+s|who are|all)\b",
    re.IGNORECASE,
)


def items(text: str) -> tuple[str, ...]:
    """The items of a list; none for a text that is no list.

    >>> items("red, white and blue"), items("1,000"), items("1. Mars 2. Venus")
    (('red', 'white', 'blue'), (), ())
    """
    text = re.sub(r"(?m)^\s*(?:[-*•]|\d{1,2}[.)])\s+", "", text.strip())
    found = tuple(part.strip().rstrip(".") for part in _SEPARATOR.split(text))
    return found if 2 <= len(found) <= MAX_ITEMS and all(found) else ()


def equal(question: str, accepted: str, given: str, same: Callable[[str, str], bool]) -> bool:
    """Whether two lists hold the same items, each once.

    Args:
        question: decides whether the order matters.
        accepted: an accepted answer.
        given: the answer.
        same: whether two items are the same.
    """
    left, right = items(accepted), items(given)
    if not left or len(left) != len(right):
        return False
    if all(same(a, b) for a, b in zip(left, right, strict=True)):
        return True
    numeric = any(re.search(r"\d", item) for item in (*left, *right))
    if numeric or _ORDERED.search(question) or not (len(left) > 2 or _PLURAL.search(question)):
        return False
    rest = list(right)
    for item in left:
        found = next((each for each in rest if same(item, each)), None)
        if found is None:
            return False
        rest.remove(found)
    return True


def is_alternatives(text: str) -> bool:
    """Whether a text names several alternatives: `Paris or Lyon`, `either`, `possibly`."""
    return bool({"or", "either", "possibly", "perhaps", "maybe", "alternatively"} & set(tokens.fold(text)))

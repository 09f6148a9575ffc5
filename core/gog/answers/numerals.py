"""Numbers written as words and as Roman numerals."""

from __future__ import annotations

import re
from collections.abc import Sequence

_ONES = (  # noqa: SIM905
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen"
).split()
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety".split()  # noqa: SIM905
UNITS = {word: value for value, word in enumerate(_ONES)} | {word: 10 * n for n, word in enumerate(_TENS, 2)}
"""Values of the words below a hundred."""
SCALES = {"hundred": 100, "thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12}
"""Values of the words that multiply what is before them."""
_IRREGULAR = {"first": 1, "second": 2, "third": 3, "fifth": 5, "eighth": 8, "ninth": 9, "twelfth": 12}
ORDINALS = (
    {word + "th": value for word, value in UNITS.items() if value not in _IRREGULAR.values() and value < 20}
    | {word[:-1] + "ieth": value for word, value in UNITS.items() if value >= 20}
    | _IRREGULAR
)
"""Values of ordinal words below twenty, and of the tens."""
_ROMAN = re.compile(r"X{0,3}(IX|IV|V?I{0,3})")
_ROMAN_WORD = re.compile(r"(?<=[^\W\d_] )(?:[IVX]+|[ivx]{2,})(?!\w|\.\s?\w)")
_DIGITS = {"I": 1, "V": 5, "X": 10}


def romans_to_digits(text: str) -> str:
    """Replaces Roman numerals up to 39 that follow a word: `Henry VIII`, `World War II`.

    >>> romans_to_digits("Louis XIV of France, Mix, XI")
    'Louis 14 of France, Mix, XI'
    """
    return _ROMAN_WORD.sub(
        lambda found: str(_roman(found[0].upper())) if _ROMAN.fullmatch(found[0].upper()) else found[0], text
    )


def _roman(letters: str) -> int:
    values = [_DIGITS[each] for each in letters]
    return sum(-value if value < following else value for value, following in zip(values, values[1:] + [0]))


def words_to_digits(words: Sequence[str]) -> list[str]:
    """Replaces runs of number words by digits: cardinal `21`, ordinal `21th` (one ending for all).

    >>> words_to_digits("three hundred and five days of the twenty first century in nineteen eighty four".split())
    ['305', 'days', 'of', 'the', '21th', 'century', 'in', '1984']
    """
    made: list[str] = []
    place = 0
    while place < len(words):
        length, text = _number(words, place)
        made.append(text if length else words[place])
        place += max(length, 1)
    return made


def _number(words: Sequence[str], start: int) -> tuple[int, str]:
    """Number of words from `start` that make one number, and the number; (0, "") where none does."""
    total, current, place, last = 0, 0, start, ""
    while place < len(words):
        word = words[place]
        if word == "and" and last in SCALES and _is_number(words[place + 1 : place + 2]):
            place += 1
            continue
        if word in UNITS and _follows(UNITS[word], last):
            current += UNITS[word]
        elif word in ORDINALS and _follows(ORDINALS[word], last):
            return place + 1 - start, f"{total + current + ORDINALS[word]}th"
        elif word in SCALES and last:
            if SCALES[word] > 100:
                total, current = total + current * SCALES[word], 0
            else:
                current *= 100
        else:
            break
        place, last = place + 1, word
    if place == start:
        return 0, ""
    if 10 <= total + current <= 20 and place < len(words) and UNITS.get(words[place], 0) >= 10:  # nineteen eighty-four
        length, rest = _number(words, place)
        if rest.isdigit() and len(rest) == 2:
            return place - start + length, f"{total + current}{rest}"
    return place - start, str(total + current)


def _follows(value: int, last: str) -> bool:
    """Whether a number below a hundred continues one whose last word is given: `twenty` `one`, not `two` `three`."""
    return not last or last in SCALES or (UNITS.get(last, 0) >= 20 and 0 < value < 10)


def _is_number(words: Sequence[str]) -> bool:
    return bool(words) and (words[0] in UNITS or words[0] in ORDINALS)

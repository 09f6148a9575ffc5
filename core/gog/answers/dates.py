"""Dates, years, decades, centuries and ranges, compared to the precision of the accepted one."""

from __future__ import annotations

import datetime
import re
import unicodedata
from dataclasses import dataclass

from gog.answers import numerals, tokens

_MONTHS = (
    "january jan enero janvier januar gennaio janeiro", "february feb febrero fevrier februar febbraio fevereiro",
    "march mar marzo mars marz marco", "april apr abril avril aprile", "may mayo mai maggio maio",
    "june jun junio juin juni giugno junho", "july jul julio juillet juli luglio julho",
    "august aug agosto aout", "september sep sept septiembre septembre settembre setembro",
    "october oct octubre octobre oktober ottobre outubro", "november nov noviembre novembre novembro",
    "december dec diciembre decembre dezember dicembre dezembro",
)  # fmt: skip
MONTHS = {name: number for number, names in enumerate(_MONTHS, 1) for name in names.split()}
_DAYS = "monday tuesday wednesday thursday friday saturday sunday".split()  # noqa: SIM905
_WEEKDAYS = {name: number for number, day in enumerate(_DAYS) for name in (day, day[:3])} | {"tues": 1, "thurs": 3}
_ERA = re.compile(r"\b(b\.?\s?c\.?(?:\s?e\.?)?|a\.?\s?d\.?|c\.?\s?e\.?)(?!\w)", re.IGNORECASE)


@dataclass(frozen=True)
class Date:
    """A span of time of some precision. Years before Christ are negative."""

    first: tuple[int, ...]
    """Year, month and day, as far as they are given; year 0 stands for a day of any year."""
    last: tuple[int, ...] = ()
    """The end of a decade, century or range; empty for a date."""
    kind: str = "date"
    """date, decade, century or range."""


def read(text: str) -> tuple[Date, ...]:
    """The readings of a text that is one date; none for any other text, several for `03/04/1998`.

    >>> [each.first for each in read("the 12th of March, 1998")], [each.first for each in read("44 BC")]
    ([(1998, 3, 12)], [(-44,)])
    """
    text = tokens.clean(text).casefold().strip(". ")
    if len(text) > 60:
        return ()
    return _range(text) or _century(text) or _decade(text) or _date(text)


def _range(text: str) -> tuple[Date, ...]:
    match = re.fullmatch(r"(?:from )?(\d{3,4})\s*(?:-|to|until|till)\s*(\d{2,4})", text)
    match = match or re.fullmatch(r"between (\d{3,4}) and (\d{3,4})", text)
    if not match or len(match[2]) not in (2, len(match[1])) or (len(match[2]) == 2 and len(match[1]) != 4):
        return ()
    end = match[1][: len(match[1]) - len(match[2])] + match[2]
    if int(end) <= int(match[1]) or (len(match[2]) == 2 and int(match[2]) <= 12 and "to" not in text):
        return ()  # 2001-05 may be a month
    return (Date((int(match[1]),), (int(end),), "range"),)


def _century(text: str) -> tuple[Date, ...]:
    era, text = _era(text)
    words = numerals.words_to_digits(re.sub(r"[^\w\s]", " ", text).split())
    words = [word for word in words if word not in ("the", "in")]
    if len(words) != 2 or words[1] not in ("century", "c"):
        return ()
    match = re.fullmatch(r"(\d{1,2})(?:st|nd|rd|th)", words[0])
    if not match or int(match[1]) == 0:
        return ()
    number = int(match[1])
    if era < 0:
        return (Date((-100 * number,), (-100 * number + 99,), "century"),)
    return (Date((100 * number - 99,), (100 * number,), "century"),)


def _decade(text: str) -> tuple[Date, ...]:
    match = re.fullmatch(r"(?:in )?(?:the )?(\d{3}0)'?s", text)
    if not match or match[1].endswith("00"):  # the 1800s are a decade or a century
        return ()
    return (Date((int(match[1]),), (int(match[1]) + 9,), "decade"),)


def _era(text: str) -> tuple[int, str]:
    """-1 for a year before Christ, 1 for one after, 0 where nothing says so; and the text without it."""
    match = _ERA.search(text)
    if match is None:
        return 0, text
    rest = f"{text[: match.start()]} {text[match.end() :]}".strip()
    return (-1 if match[1].startswith("b") else 1), rest


def _date(text: str) -> tuple[Date, ...]:
    era, text = _era(text)
    if numeric := _numeric(text):
        return numeric if era == 0 else ()
    words = re.findall(r"[^\W\d_]+|\d+(?:st|nd|rd|th)?\b|\S", _without_accents(text))
    words = [word for word in words if word not in (",", ".", "the", "of", "de", "del", "on", "in", "year", "le", "el")]
    weekday = next((_WEEKDAYS[word] for word in words if word in _WEEKDAYS), None)
    words = [word for word in words if word not in _WEEKDAYS]
    months = [MONTHS[word] for word in words if word in MONTHS]
    numbers = [word for word in words if word not in MONTHS]
    if len(months) > 1 or len(months) + len(numbers) != len(words) or not numbers:
        return ()
    found = _with_month(words, months[0], numbers) if months else _year(numbers, era)
    if found is None:
        return ()
    year, *rest = found
    date = Date((-year if era < 0 else year, *rest))
    if not _exists(date.first) or (weekday is not None and _weekday(date.first) != weekday):
        return ()
    return (date,)


def _without_accents(text: str) -> str:
    """`März` and `août` as MONTHS spells them."""
    return re.sub("[\u0300-\u036f]", "", unicodedata.normalize("NFD", text))


def _year(numbers: list[str], era: int) -> list[int] | None:
    if len(numbers) == 1 and numbers[0].isdigit() and len(numbers[0]) <= 4 and (era or len(numbers[0]) == 4):
        return [int(numbers[0])]
    return None


def _with_month(words: list[str], month: int, numbers: list[str]) -> list[int] | None:
    """Year, month, day of words that name a month; year 0 where none is given."""
    days = [int(re.sub(r"\D", "", each)) for each in numbers if re.fullmatch(r"\d{1,2}(st|nd|rd|th)?", each)]
    years = [int(each) for each in numbers if re.fullmatch(r"\d{4}", each)]
    if len(days) + len(years) != len(numbers) or len(days) > 1 or len(years) > 1:
        return None
    if years and not days:
        return [years[0], month]
    return [years[0] if years else 0, month, days[0]]


def _numeric(text: str) -> tuple[Date, ...]:
    """1998-03-12, 12.03.1998, 03/12/1998 (two readings where both are months), 1998年3月12日."""
    match = re.fullmatch(r"(\d{4})年(?:(\d{1,2})月(?:(\d{1,2})日)?)?", text)
    match = match or re.fullmatch(r"(\d{4})[-/.](\d{1,2})[-/.](\d{1,2})", text)
    if match:
        parts = tuple(int(each) for each in match.groups() if each)
        return (Date(parts),) if _exists(parts) else ()
    match = re.fullmatch(r"(\d{1,2})([-/.])(\d{1,2})\2(\d{4})", text)
    if not match:
        return ()
    first, second, year = int(match[1]), int(match[3]), int(match[4])
    orders = [(year, second, first)] if match[2] == "." else [(year, second, first), (year, first, second)]
    return tuple(Date(each) for each in dict.fromkeys(orders) if _exists(each))


def _exists(parts: tuple[int, ...]) -> bool:
    year = parts[0] if parts[0] > 0 else 2000  # a leap year
    try:
        datetime.date(year, *(parts[1:] + (1, 1)[len(parts) - 1 :]))
    except ValueError:
        return False
    return True


def _weekday(parts: tuple[int, ...]) -> int | None:
    return datetime.date(parts[0], parts[1], parts[2]).weekday() if len(parts) == 3 and parts[0] > 1752 else None


def matches(accepted: str, given: str) -> bool | None:
    """Whether a given date lies in the accepted one, which may be less precise.

    Returns:
        None where one of the two is no date. A date with several readings equals only a text with the same ones.
    """
    left, right = read(accepted), read(given)
    if not left or not right:
        return None
    if len(left) > 1 or len(right) > 1:
        return set(left) == set(right)
    return _within(left[0], right[0])


def _within(accepted: Date, given: Date) -> bool:
    if accepted == given:
        return True
    if accepted.kind == "date":
        return given.kind == "date" and given.first[: len(accepted.first)] == accepted.first
    if accepted.kind == "range" or given.kind == "range" or given.first[0] == 0:
        return False
    end = given.last or given.first
    # The last year of a century belongs to the next one in common usage.
    last = accepted.last[0] - (accepted.kind == "century")
    return accepted.first[0] <= given.first[0] and end[0] <= last and given.kind != "century"

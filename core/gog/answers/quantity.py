"""Numbers with units, scales, percent signs and currencies: read whole or not at all, and compared with rounding.

Rounding is accepted where it leaves three significant digits, or two where a unit is converted (`5 km`, `3.1 miles`).
Whole numbers without a unit or a scale word are exact: 1,230 is not 1,234, nor is 1,234.4. A bound (`more than 5`)
equals the same bound only.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from fractions import Fraction

from gog.answers import numerals, tokens, units

MAX_CHARACTERS = 120
"""A longer text is no quantity."""
_SCALES = {
    "k": 3, "thousand": 3, "m": 6, "mn": 6, "mio": 6, "million": 6, "millions": 6, "bn": 9, "b": 9, "billion": 9,
    "billions": 9, "trillion": 12, "tn": 12, "trillions": 12, "hundred": 2, "lakh": 5, "crore": 7,
    "千": 3, "万": 4, "萬": 4, "億": 8, "亿": 8, "兆": 12,
}  # fmt: skip
"""Powers of ten. One letter counts after a currency only, because `5 m` is a length."""
_BOUNDS = {
    ">": ">", "more than": ">", "over": ">", "above": ">", "exceeding": ">", "<": "<", "less than": "<", "under": "<",
    "below": "<", "fewer than": "<", "at least": ">=", "≥": ">=", "no less than": ">=", "minimum of": ">=",
    "at most": "<=", "≤": "<=", "up to": "<=", "no more than": "<=", "maximum of": "<=", "almost": "<~", "nearly": "<~",
    "just over": ">~", "just under": "<~",
}  # fmt: skip
_HEDGE = re.compile(
    r"(?:about|approximately|approx\.?|around|roughly|circa|ca\.?|c\.|~|≈|an estimated|exactly)\s*", re.I
)
_BOUND = re.compile("|".join(rf"{re.escape(word)}(?!\w)" if word[-1].isalpha() else re.escape(word)
                             for word in sorted(_BOUNDS, key=len, reverse=True)), re.I)  # fmt: skip
_PREFIX = re.compile("|".join(
    re.escape(each) + (r"(?=[\s\d])" if each[-1].isalpha() else "")
    for each in sorted(units.PREFIXES, key=len, reverse=True)
))  # fmt: skip
_NUMBER = re.compile(r"""
    (?P<grouped>\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d{1,2}(?:,\d{2})+,\d{3}(?:\.\d+)?)(?![\d,])  # 1,234.5; 12,34,567
    |(?P<spaced>\d{1,3}(?:[ '’]\d{3})+(?:[.,]\d{1,2})?)(?![\d,.])                           # 1 234 567
    |(?P<dotted>\d{1,3}(?:\.\d{3}){2,}(?:,\d+)?)(?![\d.])                                   # 1.234.567,8
    |(?P<comma>\d+,(?:\d{4,}|\d{1,2})|0,\d+)(?![\d,.])                                                # 3,14
    |(?P<fraction>(?:\d+\s+)?\d+/[1-9]\d*)(?![\d/])                                         # 1/2, 1 1/2
    |(?P<plain>\d*\.\d+|\d+)(?![\d.,]*\d)
""", re.X)  # fmt: skip
_AMBIGUOUS = re.compile(r"0\d|[1-9]\d{0,2}\.\d\d0$")
"""A code such as 007, and 1.500, which is 1500 in much of Europe."""
_POWER = re.compile(r"\s*(?:[x*]\s*10\s*\^\s*(-?\d+)|[x*]\s*10\s*\*\*\s*(-?\d+)|[eE]([+-]?\d+))(?![\d.])")
_EXPONENT = re.compile(r"\s*\^\s*(\d{1,2})(?![\d.])")
_SIGN = re.compile(r"([-+]|minus\s|negative\s)\s*", re.I)


@dataclass(frozen=True)
class Quantity:
    """A number as an answer gives it."""

    value: Fraction
    """In base units of `dimension`."""
    step: Fraction
    """Value of its last digit, in base units; 0 for an exact number."""
    digits: int
    """Significant digits; 0 for a fraction, which is no rounded number."""
    dimension: str = ""
    """What it measures; empty for a bare number."""
    unit: str = ""
    """The unit as it was written."""
    bound: str = ""
    """`>` for `more than`, and the like; empty for a value."""
    rest: tuple[str, ...] = ()
    """Words after it that are no unit: `legs` in `8 legs`."""


def read(text: str) -> tuple[Quantity, ...]:
    """The readings of a text that is one quantity; none for any other text.

    >>> [(str(each.value), each.dimension) for each in read("about 1.5 million km")]
    [('1500000000', 'length')]
    >>> read("5 or 6"), read("Apollo 11"), read("1998-03-12")
    ((), (), ())
    """
    text = tokens.clean(text).rstrip(". ")
    if not text or len(text) > MAX_CHARACTERS:
        return ()
    bound = ""
    text = _HEDGE.sub("", text, count=1) if _HEDGE.match(text) else text
    if match := _BOUND.match(text):
        bound, text = _BOUNDS[match[0].lower()], text[match.end() :].strip()
    text = _digits(text)
    found = _one(text, bound)
    return found or _compound(text, bound)


def _digits(text: str) -> str:
    """Number words at the beginning as digits; `half`, `a dozen`."""
    text = re.sub(r"^(?:a |one )?half\b", "1/2", text, flags=re.I)
    text = re.sub(r"^(?:a |one )quarter\b", "1/4", text, flags=re.I)
    text = re.sub(r"^(?:(?:a|one) )?dozen\b", "12", text, flags=re.I)
    if re.match(r"a (hundred|thousand|million|billion|trillion)\b", text, re.I):
        text = "one" + text[1:]
    match = re.match(r"((minus|negative) )?[a-z]+(?:[- ][a-z]+)*", text, re.I)
    if match and not re.match(r"\d", text):
        words = match[0].replace("-", " ").split()
        sign = words[:1] if words[0].lower() in ("minus", "negative") else []
        made = numerals.words_to_digits([word.lower() for word in words[len(sign) :]])
        if made and made[0].isdigit():  # the words after the number keep their case, which units need
            kept = words[len(words) - len(made) + 1 :] if len(made) > 1 else []
            return " ".join(sign + made[:1] + kept) + text[match.end() :]
    return text


def _one(text: str, bound: str) -> tuple[Quantity, ...]:
    """A text of one number with what belongs to it."""
    negative, text, prefix = False, text, ""
    for _ in range(2):  # -$5 and $-5
        if match := _SIGN.match(text):
            if negative:
                return ()
            negative, text = match[1] not in "+", text[match.end() :]
        if not prefix and (match := _PREFIX.match(text)):
            prefix, text = match[0], text[match.end() :].strip()
    parsed = _number(text)
    if parsed is None:
        return ()
    value, step, digits, text = parsed
    scale, text = _scale(text, bool(prefix))
    if scale > 1 and step == 0:
        step = Fraction(1)
    value, step = value * scale, step * scale
    if negative:
        value = -value
    name, rest = (prefix, text) if prefix else _unit(text)
    if prefix and rest and units.find(rest):  # $5 USD
        if units.find(rest)[0].dimension != units.find(prefix)[0].dimension:
            return ()
        rest = ""
    if re.search(r"[^\w\s]|[\d_]", rest):
        return ()
    words = tuple(rest.split())
    found = units.find(name) if name else ()
    if name and not found:
        return ()
    if not found:
        return (Quantity(value, step, digits, bound=bound, rest=words),)
    return tuple(
        Quantity(
            value * unit.factor + unit.offset, step * unit.factor, digits, unit.dimension, name, bound, words
        )
        for unit in found
    )  # fmt: skip


def _number(text: str) -> tuple[Fraction, Fraction, int, str] | None:
    """Value, value of the last digit (0: exact), significant digits, and the text after the number."""
    match = _NUMBER.match(text)
    if match is None or _AMBIGUOUS.match(match[0]):
        return None
    kind, written = str(match.lastgroup), match[0]
    if kind == "fraction":
        whole, _, part = written.rpartition(" ")
        top, _, bottom = part.partition("/")
        if math.gcd(int(top), int(bottom)) > 1 or int(top) >= int(bottom):  # a metre such as 6/8, or 50/50
            return None
        return Fraction(whole or 0) + Fraction(part), Fraction(0), 0, text[match.end() :]
    if kind == "comma" or (kind == "spaced" and "," in written):
        written = written.replace(",", ".")
    if kind == "dotted":
        written = written.replace(".", "").replace(",", ".")
    written = re.sub(r"[,'’ ]", "", written)
    decimals = len(written.partition(".")[2])
    value, step = Fraction(written), Fraction(1, 10**decimals) if decimals else Fraction(0)
    digits = len(written.replace(".", "").lstrip("0")) or 1
    rest = text[match.end() :]
    if decimals == 0 and len(written) <= 4 and (power := _EXPONENT.match(rest)):
        return value ** int(power[1]), Fraction(0), 0, rest[power.end() :]
    if power := _POWER.match(rest):
        exponent = int(next(group for group in power.groups() if group))
        if abs(exponent) > 60:
            return None
        factor = Fraction(10) ** exponent
        value, step, rest = value * factor, (step or 1) * factor, rest[power.end() :]
    return value, step, digits, rest


def _scale(text: str, money: bool) -> tuple[int, str]:
    """The factor of a scale word, and the text after it."""
    scale = 1
    while match := re.match(r"\s*([A-Za-z]+|[千万萬億亿兆])", text):
        power = _SCALES.get(match[1].lower())
        if power is None or (len(match[1]) == 1 and match[1].isascii() and not money and match[1] not in "kK"):
            break
        if match[1] in "kK" and match[1].isascii() and not (money or text[0] in "kK"):
            break  # `5 K` is a temperature
        if match[1] == "K" and not money:
            break
        scale, text = scale * 10**power, text[match.end() :]
    return scale, text


def _unit(text: str) -> tuple[str, str]:
    """The longest unit at the beginning of a text, and what follows it."""
    text = text.strip().lstrip("-").strip()
    pieces = re.findall(r"\S+\s*", text)
    for length in range(min(len(pieces), 3), 0, -1):
        name = "".join(pieces[:length]).strip().rstrip(",.")
        if units.find(name):
            return name, "".join(pieces[length:]).strip()
    return "", text


def _compound(text: str, bound: str) -> tuple[Quantity, ...]:
    """Sums such as `5 ft 11 in`, `2 hours and 30 minutes`, `1 year, 2 months`."""
    parts = re.findall(r"\d[\d.,]*\s*[^\d\s][^\d]*?(?=\s*\d|$)", text)
    if not 2 <= len(parts) <= 4 or re.sub(r"\s", "", "".join(parts)) != re.sub(r"\s", "", text):
        return ()
    cleaned = [re.sub(r"(?:,|\band)\s*$", "", part.strip()).strip(" ,") for part in parts]
    found = [_one(part, bound) for part in cleaned]
    if any(len(each) != 1 or each[0].rest or not each[0].dimension for each in found):
        return ()
    flat = [each[0] for each in found]
    dimensions = {each.dimension for each in flat}
    sizes = [units.find(each.unit)[0].factor for each in flat]
    if (
        len(dimensions) > 1
        or any(units.find(each.unit)[0].offset for each in flat)
        or sizes != sorted(sizes, reverse=True)
    ):
        return ()
    if len(set(sizes)) < len(sizes):
        return ()
    digits = sum(each.digits for each in flat)
    total = sum((each.value for each in flat), Fraction(0))
    return (Quantity(total, flat[-1].step, digits, flat[0].dimension, flat[-1].unit, bound),)


def equal(accepted: Quantity, given: Quantity) -> bool:
    """Whether a given quantity is the accepted one, rounded at most. Units and bounds must agree; `rest` is not looked at."""
    if (accepted.dimension, accepted.bound) != (given.dimension, given.bound):
        return False
    if accepted.value == given.value:
        return True
    if accepted.dimension == "percent" and given.value in (0, 100):
        return False
    if (accepted.value > 0) != (given.value > 0):
        return False
    converted = bool(accepted.dimension) and not _divides(accepted, given)
    return _rounds_to(accepted, given, converted, 2 if converted else 3) or _rounds_to(
        given, accepted, converted, 3 if accepted.step else 4
    )


def _rounds_to(precise: Quantity, rounded: Quantity, converted: bool, digits: int) -> bool:
    """Whether `rounded` is `precise` at fewer digits, but at least `digits`."""
    step = rounded.step
    if step == 0:
        is_finer = bool(rounded.dimension) and 0 < precise.step < _unit_size(rounded)
        if not (converted or is_finer):  # a bare whole number is a count
            return False
        step = _unit_size(rounded)
    elif not converted and precise.step > step:
        return False
    if rounded.digits < digits:
        return False
    return abs(precise.value - rounded.value) * 2 <= step


def _unit_size(quantity: Quantity) -> Fraction:
    """Base units in one of the quantity's unit."""
    found = units.find(quantity.unit) if quantity.unit else ()
    return next((each.factor for each in found if each.dimension == quantity.dimension), Fraction(1))


def _divides(first: Quantity, second: Quantity) -> bool:
    """Whether one unit is a whole number of the other, so that a conversion needs no rounding."""
    if not (first.unit and second.unit):
        return False
    ratio = _unit_size(first) / _unit_size(second)
    return 1 in (ratio.numerator, ratio.denominator)


_LABELLED = re.compile(
    r"\b(version|release|chapter|section|verse|edition|episode|model|firmware|python|android|ios|windows|paragraph|"
    r"article|page|code|number plate|licen[cs]e|phone|isbn|channel)\b",
    re.IGNORECASE,
)
"""Questions whose answer may be a label: version 3.10 is not version 3.1."""
_COUNTED = re.compile(
    r"\b(?:how many|what number of|the number of)\s+(.+?)"
    r"(?=\s+(?:do|does|did|are|is|was|were|have|has|had|can|could|will|would|in|on|of|per|made|make|makes|to|there|"
    r"by|for|at|from|you|it|between|must|long|tall|high|wide|deep|old)\b|[?,.;]|$)",
    re.IGNORECASE,
)
_UNIT_ASKED = re.compile(r"\bin\s+(?:\w+\s+)?(\S+?)\s*\?*\s*$|\bwhat (percentage|percent)\b", re.IGNORECASE)


def asked(question: str) -> str:
    """What a question counts: `legs` in "How many legs does a spider have?"; empty where it counts nothing."""
    question = tokens.clean(question)
    match = _COUNTED.search(question) or _UNIT_ASKED.search(question)
    return str(match[match.lastindex or 1]) if match else ""


def matches(question: str, accepted: str, given: str) -> bool | None:
    """Whether a given quantity equals the accepted one in the light of what the question counts.

    Returns:
        None where one of the two is no quantity, or both may be labels.
    """
    left, right = read(accepted), read(given)
    if not left or not right:
        return None
    if (
        _LABELLED.search(question)
        and not left[0].dimension
        and not right[0].dimension
        and not _COUNTED.search(question)
    ):
        return None
    counted = asked(question)
    return any(_fits(counted, a, b) and equal(*_united(counted, a, b)) for a in left for b in right)


def _fits(counted: str, first: Quantity, second: Quantity) -> bool:
    """Whether the words after both numbers are equal, or only those of the question."""
    a, b = (tokens.fold(" ".join(each.rest)) for each in (first, second))
    words = set(tokens.fold(counted))
    return a == b or (set(a) <= words and set(b) <= words)


def _united(counted: str, first: Quantity, second: Quantity) -> tuple[Quantity, Quantity]:
    """Both quantities; where one is a bare number and the question names the other's unit, without that unit."""
    if bool(first.dimension) == bool(second.dimension):
        return first, second
    bare, measured = (second, first) if first.dimension else (first, second)
    if not measured.unit or not _names_unit(counted, measured.unit):
        return first, second
    found = next(each for each in units.find(measured.unit) if each.dimension == measured.dimension)
    value = (measured.value - found.offset) / found.factor
    plain = Quantity(value, measured.step / found.factor, measured.digits, "", "", measured.bound, measured.rest)
    return (plain, bare) if first.dimension else (bare, plain)


def _names_unit(counted: str, unit: str) -> bool:
    names = {"percent"} if counted.lower().startswith("percentage") else {counted, *counted.split()}
    return not {each for name in names for each in units.find(name)}.isdisjoint(units.find(unit))

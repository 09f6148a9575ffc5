"""Text as tokens that are equal where a difference has no meaning: case, accents, punctuation, articles, spelling.

A character that may carry meaning stays a token: `C`, `C#` and `C++` differ, so do `5` and `-5`, `3-2` and `32`. Accents
are removed from Latin letters only, because in other scripts marks are letters (が and か, й and и).
"""

from __future__ import annotations

import re
import unicodedata

from gog.answers import numerals

_SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻", "0123456789+-")
_LETTERS = str.maketrans({
    "ø": "o", "æ": "ae", "œ": "oe", "ł": "l", "đ": "d", "ð": "d", "þ": "th", "ı": "i", "ħ": "h", "ŋ": "n",
})  # fmt: skip
_UMLAUTS = str.maketrans({"ä": "ae", "ö": "oe", "ü": "ue", "å": "aa"})
_SIGNS = str.maketrans({
    "−": "-", "–": "-", "—": "-", "‐": "-", "‑": "-", "‒": "-", "’": "'", "‘": "'", "`": "'", "´": "'", "ʼ": "'",
    "′": "'", "″": '"', "“": '"', "”": '"', "⁄": "/", "∕": "/", "×": "*", "·": "*",
})  # fmt: skip
_KEPT = frozenset("%‰‱#@*/\\§")
"""Punctuation that is a token; letters, marks, digits and symbols always are."""
_CJK = re.compile(r"[\u3005-\u3007\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff]+")
_NAME_DOT = re.compile(r"(?<=[\u3040-\u30ff\u3400-\u9fff])[·•・‧](?=[\u3040-\u30ff\u3400-\u9fff])")
"""Between the parts of a foreign name, which may as well be written without it."""
_ARTICLE = re.compile(
    r"^an?\s+(?=[^\W\d_]{2})(?!(?:major|minor|flat|sharp|natural|level|team|side|list|bomb|frame|grade|class|type|league|"
    r"road|train|line|series)\b)"
)
"""A leading article; not the letter of `A minor`, `A level` or `A-Team`."""
_SPELLING = {
    "jr": "junior", "sr": "senior", "mt": "mount", "ave": "avenue", "univ": "university",
    "colour": "color", "metre": "meter", "metres": "meters", "theatre": "theater", "centre": "center", "grey": "gray",
    "aluminium": "aluminum", "sulphur": "sulfur", "kilometre": "kilometer", "kilometres": "kilometers",
    "litre": "liter", "litres": "liters", "harbour": "harbor", "jewellery": "jewelry", "versus": "vs",
}  # fmt: skip
"""Abbreviations and British spellings of words whose other form means the same."""


def clean(text: str) -> str:
    """Text with one form of each sign: compatibility characters, dashes, quotation marks, fractions, exponents."""
    text = re.sub("[⁰¹²³⁴-⁹⁺⁻]+", lambda found: "^" + found[0].translate(_SUPERSCRIPTS), text)
    text = re.sub(r"(?<=\d)(?=[₀-₉])", "_", text)  # 10₂ is not 102
    text = _NAME_DOT.sub("", text)
    text = re.sub("([¼-¾⅐-⅞])", r" \1 ", text)  # before NFKC, which makes 11⁄2 of 1½
    text = text.translate(_SIGNS)
    return " ".join(unicodedata.normalize("NFKC", text).translate(_SIGNS).split())


def fold(text: str, *, umlauts: bool = False) -> tuple[str, ...]:
    """The tokens of a text.

    Args:
        text: any text.
        umlauts: whether ä, ö, ü and å are written ae, oe, ue and aa, rather than without their marks.

    >>> fold("The Café de l'Étoile, No. 5"), fold("World War II") == fold("World War Two")
    (('cafe', 'de', 'letoile', 'no', '5'), True)
    """
    text = numerals.romans_to_digits(clean(text)).replace("&", " and ")
    text = _ARTICLE.sub("", unicodedata.normalize("NFC", text.casefold()))
    if umlauts:
        text = text.translate(_UMLAUTS)
    text = _without_accents(text.translate(_LETTERS))
    text = re.sub(r"\b(?:[a-z]\.\s?)+[a-z]\.", lambda found: re.sub(r"[.\s]", "", found[0]) + " ", text)
    words = _words(text)
    words = [_SPELLING.get(word, word) for word in numerals.words_to_digits(words)]
    return tuple(_without_articles(_merged(words)))


def variants(text: str) -> frozenset[tuple[str, ...]]:
    """The readings of a text under which it may equal another: umlauts, and hyphens that join or separate words."""
    joined = re.sub(r"(?<=[^\W\d_]{2})-(?=[^\W\d_]{2})", "", clean(text))
    texts = [text, joined] if "-" in text and not re.match(r"\W*re-", text, re.IGNORECASE) else [text]
    return frozenset(fold(each, umlauts=umlauts) for each in texts for umlauts in (False, True)) - {()}


def equal(first: str, second: str) -> bool:
    """Whether two texts have a reading in common."""
    return not variants(first).isdisjoint(variants(second))


def _without_accents(text: str) -> str:
    parts: list[str] = []
    for each in unicodedata.normalize("NFD", text):
        if "\u0300" <= each <= "\u036f" and parts and (parts[-1][0].isascii() or "α" <= parts[-1][0] <= "ω"):
            continue
        parts.append(each)
    return unicodedata.normalize("NFC", "".join(parts))


def _kind(char: str) -> str:
    category = unicodedata.category(char)
    if category[0] in "LM":
        return "letter"
    return "digit" if category == "Nd" else category[0]


def _words(text: str) -> list[str]:
    """Letters, numbers and meaningful signs in order. An apostrophe joins; other punctuation separates."""
    words: list[str] = []
    previous = ""
    text = re.sub(r"(?<=\w)'(?=[^\W\d])", "", text)
    for place, char in enumerate(text):
        kind = _kind(char)
        following = text[place + 1] if place + 1 < len(text) else " "
        before = text[place - 1] if place else " "
        if kind in ("letter", "digit"):
            if kind == previous:
                words[-1] += char
            else:
                words.append(char)
        elif kind in "SN" or char in _KEPT or _carries_meaning(char, before, following):
            words.append(char)
        previous = kind
    return _ordinals(words)


def _carries_meaning(char: str, before: str, following: str) -> bool:
    """Whether punctuation is more than a separator: `3.5`, `10:30`, `3-2`, `-5`, `5!`, blood type `O-`."""
    if char == "!" and before.isdigit():
        return True
    if char in ".,:-'\"" and before.isdigit() and (following.isdigit() or char in "'\""):
        return True
    if char == "." and following.isdigit() and not before.isalnum():
        return True
    return char == "-" and ((before in " (" and following.isdigit()) or (before.isalnum() and following in " )"))


def _ordinals(words: list[str]) -> list[str]:
    """Joins `19`, `th` into `19th`."""
    made: list[str] = []
    for word in words:
        if made and made[-1].isdigit() and word in ("st", "nd", "rd", "th"):
            made[-1] = f"{int(made[-1])}th" if len(made[-1]) < 10 else made[-1]
        else:
            made.append(word)
    return made


def _merged(words: list[str]) -> list[str]:
    """Joins words of scripts that are written without spaces."""
    made: list[str] = []
    for word in words:
        if made and _CJK.fullmatch(made[-1]) and _CJK.fullmatch(word):
            made[-1] += word
        else:
            made.append(word)
    return made


def _without_articles(words: list[str]) -> list[str]:
    """Drops `the` except at the end, where it may be a name; spells out `St.` before a name."""
    kept = [word for place, word in enumerate(words) if word != "the" or place == len(words) - 1]
    return ["saint" if word == "st" and place + 1 < len(kept) else word for place, word in enumerate(kept)]

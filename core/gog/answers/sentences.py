"""The short answer inside a sentence that repeats its question, and nothing else.

Words may be taken off an answer only where they are certainly the question's own, in its order: otherwise
"Caesar killed Brutus" would answer "Who was killed by Brutus?".
"""

from __future__ import annotations

import re

from gog import languages
from gog.answers import tokens

MAX_CHARACTERS = 400
_LEAD = re.compile(
    r"""^(?:(?:so|thus|therefore|hence),?\s+)?(?:
        (?:i\ (?:think|believe)\ )?(?:that\ )?(?:the\ |my\ )?(?:correct\ |final\ |short\ )?answer
        (?:\ to\ (?:the|this)\ question)?(?:\ is|:|\ =|：)(?:\ that)?:?
        | 答えは | 正解は
    )\s*""",
    re.IGNORECASE | re.VERBOSE,
)
_PRONOUN = re.compile(
    r"^(?:[Ii]t is|[Ii]t's|[Ii]t was|[Tt]his is|[Tt]hat is|[Tt]hat's|[Tt]hey are|[Tt]hese are|[Hh]e is|[Ss]he is|[Hh]e was"
    r"|[Ss]he was|[Tt]hey were|[Tt]hat would be|I (?:think|believe) it is|I (?:think|believe) it's)\s+(?!(?:in|on|at)\s)"
)
_PRONOUNS = frozenset(("it", "this", "that", "he", "she", "they", "these", "those", "there"))
_TITLE = re.compile(
    r"\b(films?|movies?|songs?|title|called|show|series|books?|novel|album|band|game|poem|play|sitcom|track|single|musical"
    r"|opera|painting|slogan|motto)\b",
    re.IGNORECASE,
)
"""Questions whose answer may begin with such words: the film `This Is Us` is not the film `Us`."""
_TAIL = re.compile(r"(?:です|でした|である|だ)[。.]?$")
_BOXED = re.compile(r"\\boxed\{([^{}]*)\}")
_VERB = re.compile(r"\b(is|was|are|were)\b", re.IGNORECASE)
_WH = re.compile(r"^(?:in|on|at|to|from|by|of)?\s*(what|which|who|when|where|how (?:tall|high|long|deep|wide|old|heavy|far|large|big))\b",
                 re.IGNORECASE)  # fmt: skip


def cores(question: str, answer: str) -> tuple[str, ...]:
    """The texts that an answer may be reduced to, the whole answer first.

    >>> cores("What is the capital of France?", "The capital of France is Paris.")
    ('The capital of France is Paris', 'Paris')
    >>> cores("What is the capital of France?", "Paris, France"), cores("Who is he?", "Paris, Texas")
    (('Paris, France', 'Paris'), ('Paris, Texas',))
    """
    lines = (" ".join(line.split()) for line in _BOXED.sub(r"\1", answer).splitlines())
    plain = re.sub(r"\*\*|__|`", "", "\n".join(line for line in lines if line)).strip()
    plain = re.sub(r"^([\"'])(.+)\1$|^“(.+)”$", lambda found: found[2] or found[3], plain)
    plain = re.sub(r"(?<=[^.\s]{2})\.$", "", plain)
    found = [plain]
    if len(plain) > MAX_CHARACTERS:
        return (plain,)
    for reduce in (_without_lead, _without_tail, _in_its_language, _after_echo, _before_echo, _without_place):
        found += [short for text in list(found) if (short := reduce(question, text))]
    return tuple(dict.fromkeys(found))


def _without_lead(question: str, text: str) -> str:
    match = _LEAD.match(text)
    if match is None and not _TITLE.search(question):
        match = _PRONOUN.match(text)
    return text[match.end() :].strip(" \"“”'") if match else ""


def _without_tail(_: str, text: str) -> str:
    return _TAIL.sub("", text) if _TAIL.search(text) else ""


def _in_its_language(question: str, text: str) -> str:
    answers = languages.of(text).answers
    return answers.plain(answers.core(question, text))


def _clause(question: str) -> tuple[str, tuple[str, ...]]:
    """Verb of a question `WH … is REST`, and the tokens of REST; empty for other questions."""
    question = tokens.clean(question).rstrip("?？. ")
    if not _WH.match(question):
        return "", ()
    verb = _VERB.search(question)
    rest = tokens.fold(question[verb.end() :]) if verb else ()
    return (verb[0].lower(), rest) if verb and set(rest) - _PRONOUNS else ("", ())


def _after_echo(question: str, text: str) -> str:
    """X in "REST is X", or "NP was DONE in X" where REST is NP DONE."""
    verb, rest = _clause(question)
    if not rest:
        return ""
    for match in _VERB.finditer(text):
        if match[0].lower() != verb:
            continue
        before, after = tokens.fold(text[: match.start()]), text[match.end() :].strip()
        if before == rest:
            return re.sub(r"^(?:in|on|at)\s+", "", after) if _asks_when_or_where(question) else after
        for place in re.finditer(r"\b(?:in|on|at)\s+", after):
            if before + tokens.fold(after[: place.start()]) == rest:
                return after[place.end() :]
    return ""


def _asks_when_or_where(question: str) -> bool:
    return bool(re.match(r"(?:in|on|at)\b|when\b|where\b", question.strip(), re.IGNORECASE))


def _before_echo(question: str, text: str) -> str:
    """X in "X is REST", and in "X VERB REST" for a question "Who VERB REST"."""
    verb, rest = _clause(question)
    for match in _VERB.finditer(text):
        if rest and match[0].lower() == verb and tokens.fold(text[match.end() :]) == rest:
            return text[: match.start()].strip()
    who = re.match(r"who\s+(.+?)\s*\??\s*$", question.strip(), re.IGNORECASE)
    if who and (tail := tokens.fold(who[1])) and len(tail) > 1:
        for space in re.finditer(r"\s+", text):
            if tokens.fold(text[space.end() :]) == tail:
                return text[: space.start()]
    return ""


def _without_place(question: str, text: str) -> str:
    """X in "X, PLACE" where the question ends with "of PLACE" or "in PLACE"."""
    short, comma, place = text.rpartition(",")
    match = re.search(r"\b(?:of|in)\s+((?:the\s+)?[^\s,]+(?:\s[^\s,]+){0,2})\s*\?*\s*$", tokens.clean(question))
    if comma and match and tokens.fold(place) and tokens.fold(place) == tokens.fold(match[1]):
        return short.strip()
    return ""

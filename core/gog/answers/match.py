"""Whether an answer is correct, decided without a model: Yes only where it is certain.

An answer that is not certainly equal to an accepted one is wrong here; a judge model accepts more of them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from gog import languages
from gog.answers import aliases, dates, lists, names, quantity, refusals, sentences, tokens

MAX_CHARACTERS = 4_000
"""An answer or an accepted answer that is longer is never correct."""
_CLOSED = re.compile(r"^\W*(yes|no)\b[\s,.:;!-]*(.*)$", re.IGNORECASE | re.DOTALL)
_ECHO = frozenset(
    "it is was he she they are were does did do has have had there this that can indeed correct true".split()  # noqa: SIM905
)
_NEGATIONS = frozenset(("not", "isnt", "wasnt", "arent", "doesnt", "didnt", "cannot", "cant"))


def decide(question: str, accepted: Sequence[str], answer: str) -> bool:
    """Whether an answer certainly means the same as one of the accepted answers.

    Args:
        question: the question, which decides what may be left out: `8` and `8 legs`.
        accepted: the accepted answers.
        answer: the answer.

    >>> decide("How tall is it?", ["8,849 m"], "8.849 km"), decide("Who was it?", ["Ada"], "Ada or Bob")
    (True, False)
    """
    plain = _plain(answer)
    return any(_matches(question[:MAX_CHARACTERS], _plain(each), plain) for each in accepted)


def _plain(text: str) -> str:
    """An answer in a form that the rules read, whatever its language. A longer one is never correct."""
    return languages.of(text).answers.plain(text) if len(text) <= MAX_CHARACTERS else text


def _matches(question: str, accepted: str, answer: str) -> bool:
    if max(len(accepted), len(answer)) > MAX_CHARACTERS or not accepted.strip() or not answer.strip():
        return False
    if tokens.equal(accepted, answer) and not _differs_in_case(accepted, answer):
        return True
    if refusals.is_refusal(answer) or _closed(accepted, answer) is False:
        return False
    if lists.is_alternatives(answer):
        return False
    if _closed(accepted, answer):
        return True
    given = sentences.cores(question, answer)
    return any(_equal(question, left, right) for left in _accepted(question, accepted) for right in given)


def _accepted(question: str, accepted: str) -> tuple[str, ...]:
    """An accepted answer, also without a place that the question names."""
    return sentences.cores(question, accepted) if accepted.count(",") == 1 else (accepted,)


def _equal(question: str, accepted: str, given: str) -> bool:
    if not given or not accepted:
        return False
    if _same(question, accepted, given):
        return True
    if lists.equal(question, accepted, given, lambda a, b: _same(question, a, b)):
        return True
    return _with_brackets(question, accepted, given)


def _same(question: str, accepted: str, given: str) -> bool:
    """Whether two single answers are equal, as what they are: dates, quantities, names or words."""
    for found in (dates.matches(accepted, given), quantity.matches(question, accepted, given)):
        if found is not None:
            if found:
                return True
            break
    else:
        found = None
    if found is None and aliases.equal(accepted, given):
        return True
    if tokens.equal(accepted, given):
        return not _differs_in_case(accepted, given)
    return found is None and names.equal(question, accepted, given)


def _with_brackets(question: str, accepted: str, given: str) -> bool:
    """`8,849 m (29,032 ft)`: what is outside and what is inside the brackets are both correct."""
    match = re.fullmatch(r"([^()]+)\(([^()]+)\)", given.strip())
    return match is not None and all(_same(question, accepted, part.strip()) for part in match.groups())


def _closed(accepted: str, answer: str) -> bool | None:
    """For an accepted yes or no, whether the answer begins with the same word and adds nothing to it; else None."""
    left, right = _CLOSED.match(accepted), _CLOSED.match(answer)
    if not left or left[2]:
        return None
    if not right or left[1].lower() != right[1].lower():
        return False
    rest = set(tokens.fold(right[2]))
    negated = not rest.isdisjoint(_NEGATIONS)
    return rest <= (_ECHO | _NEGATIONS) and (not rest or negated == (left[1].lower() == "no"))


def _differs_in_case(first: str, second: str) -> bool:
    """Whether two texts of equal tokens differ by their case: `5 MW` and `5 mW`, `U.S.` and `Us`."""
    if aliases.is_word_and_abbreviation(first, second):
        return True
    left, right = quantity.read(first), quantity.read(second)
    return bool(left and right) and not any(quantity.equal(a, b) for a in left for b in right)

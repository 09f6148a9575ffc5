"""Values of a row as gog needs them: text, accepted answers, identifiers. Pure.

Exporters write the same answer as a string, an integer, a list, or a JSON list inside a string, and a missing one as
null, NaN or an empty string. `answers` reads all of these; what holds no answer at all is a fault of the row's field.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

from gog.errors import UserError

_IMAGE_TAG = re.compile(r"<image>|<\|vision_start\|>.*?<\|vision_end\|>|<img>\s*</img>", re.DOTALL)
_ANSWER = re.compile(r"<answer>(.*?)</answer>", re.DOTALL | re.IGNORECASE)
_BOXED = re.compile(r"\\boxed\{([^{}]+)\}")
LONGEST = 300
"""Characters of a reply without an answer tag that is taken as the answer; a longer one is an explanation."""


class Fault(UserError):
    """A field of a row that cannot be used; the reader adds file and row."""

    def __init__(self, field: str, cause: str, remedy: str = "correct or remove the row") -> None:
        super().__init__(f"{field}: {cause}", remedy=remedy)

    def at(self, where: str) -> Fault:
        """The same with file and row."""
        self.where = where
        self.args = (self.sentence(),)
        return self


def get(record: Mapping[str, Any], *names: str) -> Any:
    """The first of these fields that a row has with a value; None if it has none.

    >>> get({"golden_query": "who?"}, "gloden_query", "golden_query")
    'who?'
    """
    return next((record[name] for name in names if not is_missing(record.get(name))), None)


def is_missing(value: Any) -> bool:
    """Whether a value means that there is none: null, NaN, blank text, an empty list."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return True
    if isinstance(value, str):
        return not value.strip()
    return isinstance(value, list | tuple) and not value


def text(record: Mapping[str, Any], *names: str) -> str:
    """A text field by its first name, or by a misspelt one. Raises Fault if it is missing or no text."""
    found = get(record, *names)
    if found is None:
        raise Fault(names[0], "is missing or blank")
    if isinstance(found, bool | int | float):
        return scalar(found)
    if not isinstance(found, str):
        raise Fault(names[0], f"is {kind(found)}, not text")
    return found.strip()


def question(text: str, field: str = "question") -> str:
    """A question without the placeholders of images that other trainers put into it. Raises Fault if nothing is left."""
    bare = _IMAGE_TAG.sub("", text).strip()
    if not bare:
        raise Fault(field, "holds no words")
    return bare


def scalar(value: bool | int | float) -> str:
    """A number or truth value as an answer.

    >>> scalar(1889), scalar(2.0), scalar(2.5), scalar(True)
    ('1889', '2', '2.5', 'yes')
    """
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def answers(value: Any, *more: Any, field: str = "answer") -> tuple[str, ...]:
    """Accepted answers, the gold one first, each once.

    Args:
        value: the gold answer, or a list that begins with it.
        more: alternatives in the same forms; missing ones are left out.
        field: of the row, for messages.

    Raises:
        Fault: there is no gold answer, or a value is neither text nor a number.
    """
    gold = _flat(value, field)
    if not gold:
        raise Fault(field, "holds no answer")
    return tuple(dict.fromkeys([*gold, *(each for other in more for each in _flat(other, field))]))


def _flat(value: Any, field: str) -> list[str]:
    if is_missing(value):
        return []
    if isinstance(value, str):
        return _of_text(value, field)
    if isinstance(value, bool | int | float):
        if isinstance(value, float) and math.isinf(value):
            raise Fault(field, "is infinite")
        return [scalar(value)]
    if isinstance(value, Mapping):
        return _of_range(value, field)
    if isinstance(value, Iterable) and not isinstance(value, bytes):
        return [each for item in value for each in _flat(item, field)]
    raise Fault(field, f"is {kind(value)}, not text, a number or a list of them")


def _of_text(value: str, field: str) -> list[str]:
    """Text as it is, or the list that it holds as JSON."""
    bare = value.strip()
    if bare.startswith("[") and bare.endswith("]"):
        try:
            held = json.loads(bare)
        except (ValueError, RecursionError):
            return [bare]
        if isinstance(held, list) and not any(isinstance(each, list) for each in held):
            return _flat(held, field)
    return [bare]


def _of_range(value: Mapping[str, Any], field: str) -> list[str]:
    """A numerical answer of InfoSeek, which carries an accepted range: its value, else the middle of the range."""
    wanted, bounds = value.get("wikidata"), value.get("range")
    if not is_missing(wanted):
        return _flat(wanted, field)
    if isinstance(bounds, list | tuple) and len(bounds) == 2 and all(isinstance(end, int | float) for end in bounds):
        return [scalar(sum(bounds) / 2)]
    raise Fault(field, f"is an object with {', '.join(sorted(map(str, value))) or 'nothing'}, which holds no answer")


def is_tagged(reply: str) -> bool:
    """Whether a reply marks its answer with <answer>…</answer>."""
    return _ANSWER.search(reply) is not None


def final_answer(reply: str, field: str) -> str:
    """The answer that a reply of an assistant ends with: its last answer tag or box, else the whole of a short reply.

    Raises:
        Fault: the reply is a long text without either.
    """
    tagged = _ANSWER.findall(reply) or _BOXED.findall(reply)
    found = (tagged[-1] if tagged else reply).strip()
    if not found:
        raise Fault(field, "the last reply is blank")
    if not tagged and len(found) > LONGEST:
        raise Fault(field, f"the last reply has {len(found)} characters and no <answer>…</answer>")
    return found


def kind(value: Any) -> str:
    """The JSON type of a value, with its article, for messages."""
    names = {dict: "an object", list: "a list", tuple: "a list", bytes: "binary", str: "text", type(None): "null"}
    return names.get(type(value), f"a {type(value).__name__}")

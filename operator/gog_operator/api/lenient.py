"""Lenient reading of custom resources: what is valid of an object, and one sentence for each part that is not.

Problem: an object may come from a newer version, from a process that was killed, or from an editor, and a reader that
refuses all of it hides its state. Decision: the typed models validate, and exactly the parts that they refuse are
dropped. Unknown fields are ignored; a reason and a condition type of a newer version are kept as they are. An object of
another version of our API is read as one of this version, and a sentence says so.

An object read here is for showing. It is never written back, because what was dropped would be lost.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError, create_model

from gog_operator.api import problems, yaml_reader
from gog_operator.api.meta import API_VERSION, GROUP, LENIENT, UNKNOWN_REASON, Metadata
from gog_operator.api.objects import KINDS, Object

Path = tuple[str | int, ...]
Thing = TypeVar("Thing", bound=Object)

MOST_ROUNDS = 16
"""Validations of one object; each drops what the one before refused. An error can hide one of its parent, seldom more."""
MOST_DEPTH = 32
"""Levels of nesting that are read; the models have fewer than ten."""
MOST_BITS = 64
"""Bits of an integer; the API server uses 64, and Python refuses to print very long ones."""
MOST_PROBLEMS = 20
"""Messages about one object."""
_CONDITION_DEFAULTS = {"reason": UNKNOWN_REASON, "lastTransitionTime": "1970-01-01T00:00:00Z"}
"""Values for fields that a condition may lack and still describe a state."""


def read(document: object) -> tuple[Object | None, tuple[str, ...]]:
    """The object of a document, as far as it can be read.

    Args:
        document: plain data, as YAML or JSON gives it. It is not changed.

    Returns:
        The object, None when the document is no custom resource of gog or has too many values, and one sentence for
        each dropped part. A required field of metadata or spec that is missing is None there and not in
        `model_fields_set`; `metadata.name` is "" then.
    """
    name = document.get("kind") if isinstance(document, Mapping) else None
    kind = KINDS.get(name) if isinstance(name, str) else None
    if kind is None:
        return None, (f"kind is {problems.shown(name)}, should be one of {', '.join(KINDS)}",)
    copied = _Copy()
    try:
        body = copied.of(document, ())
    except OverflowError:
        return None, (f"has more than {yaml_reader.MOST_VALUES:,} values",)
    partial = _partial_object(kind)
    dropped = []
    if is_newer(body):
        dropped.append(f"apiVersion {body['apiVersion']}: written by a newer gog; this one shows what it knows of it")
        body["apiVersion"] = API_VERSION
    for _ in range(MOST_ROUNDS):
        try:
            return _validated(kind, partial, body), _bounded([*copied.dropped, *dropped])
        except ValidationError as error:
            dropped += _drop(error, partial, body)
    rest = {key: body[key] for key in ("kind",) if key in body}
    return partial.model_validate(rest, context=LENIENT), (f"has more than {MOST_ROUNDS} layers of errors",)


def is_newer(document: Mapping[str, Any]) -> bool:
    """Whether an object is of another version of our API than this one; there was none before it."""
    version = document.get("apiVersion")
    return isinstance(version, str) and version != API_VERSION and version.startswith(f"{GROUP}/")


def understood(kind: type[Thing], body: Mapping[str, Any]) -> Thing | None:
    """The object of a newer version, without the fields and the values of enumerations that this version does not know.

    An operator that was rolled back still has to watch the jobs of newer objects. What it ignores of a spec is in the
    object's `ignored`, and from there in a condition; what it ignores of a status, only a newer operator has written.

    Args:
        kind: Class of the object.
        body: Its document. It is not changed.

    Returns:
        The object; None when something else is wrong with it, or when what is left lacks a required field.
    """
    copied = copy.deepcopy(dict(body))
    ignored: list[str] = []
    for _ in range(MOST_ROUNDS):
        try:
            return kind.model_validate(copied, context=LENIENT).without(_bounded(sorted(ignored)))
        except ValidationError as error:
            found = error.errors(include_url=False, include_context=False)
        if not all(_is_of_newer(copied, each) for each in found):
            return None
        for each in sorted(found, key=lambda each: _order(each["loc"]), reverse=True):
            if each["loc"][0] == "spec":
                ignored.append(_ignored(copied, each))
            _delete(copied, each["loc"])
    return None


def _is_of_newer(body: dict[str, Any], error: Any) -> bool:
    """Whether the error is one that a later version would not report: an unknown field, or an unknown word."""
    place, known = error["loc"], error["loc"][0]
    unknown = error["type"] == "extra_forbidden" and known in ("spec", "status")
    newer = error["type"] in ("literal_error", "enum") and known == "spec"
    return (unknown or newer) and _resolved(body, place) == place


def _ignored(body: dict[str, Any], error: Any) -> str:
    path = problems.dotted(error["loc"])
    return path if error["type"] == "extra_forbidden" else f"{path}={problems.shown(_at(body, error['loc']))}"


def _validated(kind: type[Object], partial: type[Object], body: dict[str, Any]) -> Object:
    """The object of its own class where it is complete, else of the class that allows missing fields."""
    try:
        return kind.model_validate(body, context=LENIENT)
    except ValidationError:
        return partial.model_validate(body, context=LENIENT)


class _Copy:
    """Copies plain data within bounds, because depth and size of a foreign document are unknown."""

    def __init__(self) -> None:
        self.values = 0
        self.dropped: list[str] = []

    def of(self, value: Any, path: Path) -> Any:
        """Raises OverflowError when there are too many values, those of repeated YAML aliases included."""
        self.values += 1
        if self.values > yaml_reader.MOST_VALUES:
            raise OverflowError
        if isinstance(value, str):
            return _encodable(value)
        if isinstance(value, int) and value.bit_length() > MOST_BITS:
            return self._without(path, f"has a number of more than {MOST_BITS} bits")
        if not isinstance(value, Mapping | list | tuple):
            return value
        if len(path) >= MOST_DEPTH:
            return self._without(path, "is nested too deeply")
        if isinstance(value, Mapping):
            found = {_encodable(key): each for key, each in value.items() if isinstance(key, str)}
            return {key: self.of(each, (*path, key)) for key, each in found.items()}
        return [self.of(each, (*path, place)) for place, each in enumerate(value)]

    def _without(self, path: Path, why: str) -> None:
        self.dropped.append(f"{problems.dotted(path[:3])}: {why}, a part of it is ignored")


def _encodable(text: str) -> str:
    """The text without lone surrogates, which YAML can escape and no file can hold."""
    return text.encode("utf-8", "replace").decode("utf-8")


def _drop(error: ValidationError, model: type[Object], body: dict[str, Any]) -> list[str]:
    """Removes from the document what the model refuses, deepest first. Returns a sentence for each known part."""
    found: dict[Path, str] = {}
    for each in error.errors(include_url=False):
        place, token = _resolved(body, each["loc"]), each["loc"][-1]
        missing = each["type"] == "missing"
        if missing and token in _CONDITION_DEFAULTS and _is_condition(place):
            _at(body, place)[token] = _CONDITION_DEFAULTS[str(token)]
        elif place:
            found.setdefault(place, f"{problems.dotted(place)}: has no {token}" if missing else _sentence(each, model))
    for place in sorted(found, key=_order, reverse=True):
        _delete(body, place)
    return [f"{sentence}; ignored" for sentence in found.values() if sentence]


def _sentence(error: Any, model: type[Object]) -> str:
    """What is wrong with a part; empty for an unknown field, which a newer version may write."""
    if error["type"] == "extra_forbidden":
        return ""
    path, what, _ = problems.sentence(error, model)
    return f"{path}: {what}"


def _resolved(body: Any, location: Path) -> Path:
    """The part of a location that the document has: what is missing is blamed on the mapping that lacks it."""
    here = body
    for place, token in enumerate(location):
        if not _has(here, token):
            return location[:place]
        here = here[token]
    return location


def _has(here: Any, token: str | int) -> bool:
    if isinstance(here, list):
        return isinstance(token, int) and token < len(here)
    return isinstance(here, dict) and token in here


def _at(body: Any, place: Path) -> Any:
    for token in place:
        body = body[token]
    return body


def _delete(body: Any, place: Path) -> None:
    del _at(body, place[:-1])[place[-1]]


def _order(place: Path) -> tuple[int, tuple[int, ...]]:
    """By depth, then by position in lists, so that a deletion moves nothing that is still to be deleted."""
    return len(place), tuple(token if isinstance(token, int) else -1 for token in place)


def _is_condition(place: Path) -> bool:
    return len(place) == 3 and place[:2] == ("status", "conditions")


def _bounded(sentences: list[str]) -> tuple[str, ...]:
    more = len(sentences) - MOST_PROBLEMS
    return (*sentences[:MOST_PROBLEMS], *([f"{more} more parts are ignored"] if more > 0 else []))


@functools.cache
def _partial_object(kind: type[Object]) -> type[Object]:
    """The kind with the required fields of metadata and spec optional."""
    spec = kind.model_fields["spec"].annotation
    assert isinstance(spec, type)
    metadata = create_model("Metadata", __base__=Metadata, name=(str, ""))
    partial = _partial(spec)
    fields: dict[str, Any] = {
        "metadata": (metadata, metadata()),
        "spec": (partial, partial.model_construct()),
    }
    made: type[Object] = create_model(kind.__name__, __base__=kind, **fields)
    return made


def _partial(model: type[BaseModel]) -> type[BaseModel]:
    missing: dict[str, Any] = {
        name: (info.annotation | None, None)  # type: ignore[operator]
        for name, info in model.model_fields.items()
        if info.is_required()
    }
    made: type[BaseModel] = create_model(model.__name__, __base__=model, **missing)
    return made

"""pydantic's errors as sentences that a user can act on: where, what, and what was probably meant.

Every kind of error that gog's models raise has its own wording; any other keeps pydantic's, with the value beside it.
Paths are dotted as in `--set`, with list positions in brackets.
"""

from __future__ import annotations

import json
import types
import typing
from collections.abc import Iterable, Sequence
from typing import Any

from pydantic import BaseModel, ValidationError

from gog import wording
from gog.errors import UserError
from gog.spec.base import KUBE_NAME, LABEL_KEY, LABEL_VALUE, PLAIN_URL, QUANTITY, SERVER
from gog.spec.pods import GPU_RESOURCE
from gog_operator.api import yaml_reader

TYPE_WORDS = {
    "int_parsing": "a whole number",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_parsing": "a number",
    "float_type": "a number",
    "bool_parsing": "true or false",
    "bool_type": "true or false",
    "string_type": "text",
    "model_type": "a mapping of fields",
    "model_attributes_type": "a mapping of fields",
    "dict_type": "a mapping",
    "tuple_type": "a list",
    "list_type": "a list",
}
QUOTED_KINDS = ("int_type", "int_parsing", "float_type", "float_parsing", "bool_type", "bool_parsing")
"""Kinds of error for which text was given where another type is needed."""
"""Expected type by kind of error."""
BOUND_WORDS = {
    "greater_than_equal": ("ge", "at least"),
    "greater_than": ("gt", "more than"),
    "less_than_equal": ("le", "at most"),
    "less_than": ("lt", "less than"),
}
"""Key of the bound in pydantic's context, and its words, by kind of error."""
PATTERN_WORDS = {
    "^[a-z]([-a-z0-9]*[a-z0-9])?$": "lower-case letters, digits and hyphens, the first a letter, the last no hyphen",
    "^(file|s3)://": "an address that starts with file:// or s3://",
    PLAIN_URL: "an address that starts with http:// or https://, without user, password and query",
    "^[A-Za-z_][-A-Za-z0-9_.]*(:[A-Za-z_][A-Za-z0-9_]*)?$": "the name of a back end, or module:factory",
    SERVER: "an address that starts with http:// or https://, without user, password and query, or the name of a ToolServer",
    KUBE_NAME: "the name of an object: lower-case letters, digits, hyphens and dots, letters or digits at the ends",
    LABEL_KEY: "the key of a label, such as example.org/pool",
    LABEL_VALUE: "the value of a label: letters, digits, hyphens, underscores and dots, letters or digits at the ends",
    GPU_RESOURCE: "a resource of GPUs, such as nvidia.com/gpu, nvidia.com/mig-3g.40gb or amd.com/gpu",
    r"^[A-Za-z_][A-Za-z0-9_]*$": "letters, digits and underscores, the first no digit",
    "^/[^:]*$": "an absolute path without a colon",
    QUANTITY: "a quantity as Kubernetes writes it, such as 2, 500m or 4Gi",
}


def explain(error: ValidationError, model: type[BaseModel], *, where: str) -> UserError:
    """One UserError for all of pydantic's errors, in the order of the file."""
    return joined([sentence(each, model) for each in _causes(error.errors(include_url=False))], where=where)


def joined(problems: Sequence[tuple[str, str, str]], *, where: str) -> UserError:
    """One UserError for several problems. problems: path, what is wrong, and remedy of each."""
    if len(problems) == 1:
        path, what, remedy = problems[0]
        return UserError(what, where=f"{where}: {path}" if path else where, remedy=remedy)
    lines = [f"  {UserError(what, where=path, remedy=remedy).sentence()}" for path, what, remedy in problems]
    return UserError(f"{len(problems)} problems\n" + "\n".join(lines), where=where)


def _causes(errors: list[Any]) -> list[Any]:
    """The errors without those that follow from another: a list is "too short" because its one item is wrong."""
    paths = [each["loc"] for each in errors]
    return [
        each
        for each in errors
        if not any(len(path) > len(each["loc"]) and path[: len(each["loc"])] == each["loc"] for path in paths)
    ]


def sentence(error: Any, model: type[BaseModel]) -> tuple[str, str, str]:
    """Path, problem and remedy of one of pydantic's errors. model: the model that raised it."""
    kind, given, context = error["type"], error.get("input"), error.get("ctx", {})
    location = tuple(error["loc"])
    path = dotted(location)
    if kind == "extra_forbidden":
        return path, "unknown field", wording.guess(str(location[-1]), fields_at(model, location[:-1]))
    if kind == "missing":
        return path, "missing", meaning(model, location)
    if kind == "value_error":
        return path, str(context.get("error", error["msg"])), ""
    if kind == "string_pattern_mismatch" and context["pattern"] in (PLAIN_URL, SERVER) and set("@?#") & set(str(given)):
        return path, "an address with a user, a password or a query", SECRET  # which the value is not shown for
    remedy = quoting(kind, given) or as_mapping(model, location, given)
    return path, f"is {shown(given)}, should be {expected(kind, context, error['msg'])}", remedy


SECRET = "write the address alone; a key comes from secretName, on one machine from the environment"
TEXT_FIELDS = (("url", "backend"), ("uri", "path"), ("base", "base"))
"""Fields that may have been meant where text was given instead of a mapping: one for an address, one for other text."""


def as_mapping(model: type[BaseModel], location: tuple[Any, ...], given: Any) -> str:
    """The remedy where text was given instead of a mapping: `write judge: {url: "https://judge"}`."""
    if not isinstance(given, str):
        return ""
    known = fields_at(model, location)
    for address, other in TEXT_FIELDS:
        field = address if "://" in given else other
        if field in known:
            return f"write {location[-1]}: {{{field}: {json.dumps(given, ensure_ascii=False)}}}"
    return ""


def quoting(kind: str, given: Any) -> str:
    """The remedy where quotes decide the type of a value, which the API server does not convert either."""
    if isinstance(given, str) and kind in QUOTED_KINDS:
        read = yaml_reader.scalar(given) if given else given
        return "remove the quotes" if not isinstance(read, str) else ""
    if kind == "string_type" and isinstance(given, bool | int | float):
        return "write it in quotes"
    if kind == "literal_error" and isinstance(given, bool):
        return (
            f"YAML reads words such as {'on and yes' if given else 'off and no'} as {shown(given)}: write it in quotes"
        )
    return ""


def expected(kind: str, context: dict[str, Any], message: str) -> str:
    """What a value should be: the end of "is X, should be …".

    Args:
        kind: Kind of pydantic's error.
        context: Its context.
        message: Its message.
    """
    if kind in TYPE_WORDS:
        return TYPE_WORDS[kind]
    if kind in BOUND_WORDS:
        key, words = BOUND_WORDS[kind]
        return f"{words} {context[key]}"
    if kind == "literal_error":
        return f"one of {context['expected'].replace(' or ', ', ')}".replace("'", "")
    if kind == "string_pattern_mismatch":
        return PATTERN_WORDS.get(context["pattern"], f"text of the form {context['pattern']}")
    if kind == "string_too_long":
        return f"at most {context['max_length']} characters"
    if kind == "string_too_short":
        return "not empty" if context["min_length"] == 1 else f"at least {context['min_length']} characters"
    if kind == "too_short":
        return f"at least {context['min_length']} long"
    if kind == "too_long":
        return f"at most {context['max_length']} long"
    return f"otherwise: {message[0].lower()}{message[1:]}"


EXAMPLES = {
    ("spec",): "e.g. spec: {model: {base: tiny}, data: {world: {}}}",
    ("spec", "model"): "e.g. model: {base: tiny}",
    ("spec", "data"): "e.g. data: {world: {}}, or data: {path: FOLDER}",
    ("spec", "store"): "e.g. store: {uri: file:///absolute/folder}",
}


def meaning(model: type[BaseModel], location: tuple[Any, ...]) -> str:
    """The remedy for a missing field: an example, or its description."""
    if location in EXAMPLES:
        return EXAMPLES[location]
    parent = model_at(model, location[:-1])
    for name, info in parent.model_fields.items() if parent else ():
        if location[-1] in (name, info.alias) and info.description:
            return info.description.rstrip(".").split(". ")[0]
    return ""


def fields_at(model: type[BaseModel], location: tuple[Any, ...]) -> list[str]:
    """Names of the fields at a location, camelCase."""
    parent = model_at(model, location)
    return [info.alias or name for name, info in parent.model_fields.items()] if parent else []


def model_at(model: type[BaseModel], location: Iterable[Any]) -> type[BaseModel] | None:
    """The model class at a location, None where there is none."""
    here: Any = model
    for token in location:
        if isinstance(here, type) and issubclass(here, BaseModel):
            info = next((i for n, i in here.model_fields.items() if token in (n, i.alias)), None)
            here = _unwrapped(info.annotation) if info else None
        elif here is not None:
            here = _unwrapped(here)
    return here if isinstance(here, type) and issubclass(here, BaseModel) else None


def _unwrapped(annotation: Any) -> Any:
    """The model inside Optional[…], Annotated[…], tuple[…] or dict[…]; otherwise the annotation."""
    if typing.get_origin(annotation) in (typing.Union, types.UnionType, tuple, list, dict, typing.Annotated):
        inner = [_unwrapped(each) for each in typing.get_args(annotation)]
        return next((each for each in inner if isinstance(each, type) and issubclass(each, BaseModel)), None)
    return annotation


def dotted(location: Iterable[Any]) -> str:
    """A location as a path: `spec.arms[0].name`."""
    path = ""
    for token in location:
        path += f"[{token}]" if isinstance(token, int) else f".{token}" if path else str(token)
    return path


def shown(value: Any) -> str:
    """A value as it appears in a message, shortened."""
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, (list, tuple)):
        return "a list"
    if value is None:
        return "empty"
    if isinstance(value, bool):
        return str(value).lower()
    text = str(value)
    text = f"{text[:57]}…" if len(text) > 60 else text
    return f"'{text}'" if isinstance(value, str) else text

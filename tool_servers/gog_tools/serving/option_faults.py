"""What is wrong with the options of a back end, in the words of a user: the option by its dotted name, and the one meant."""

from __future__ import annotations

import typing
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ValidationError

from gog import validation, wording


def explain(error: ValidationError, fields: Mapping[str, Any], name: str) -> list[tuple[str, str, str]]:
    """Dotted name, fault and remedy of each error. Unknown options come first: one that is missing may be misspelt.

    Args:
        error: of the validation of a back end's options.
        fields: annotations of the options.
        name: of the back end.
    """
    found = []
    errors = error.errors(include_url=False, include_input=False)
    for each in sorted(errors, key=lambda each: each["type"] != "extra_forbidden"):
        place = each["loc"]
        known = _names_at(fields, place[:-1])
        owner = ".".join(map(str, place[:-1])) or name
        remedy = f"options of {owner}: {', '.join(known) or 'none'}"
        what = validation.cause(each)
        if each["type"] == "extra_forbidden":
            what, meant = "unknown option", wording.close(str(place[-1]), known)
            remedy = f"did you mean {meant}? {remedy}" if meant else remedy
        found.append((".".join(map(str, place)), what, remedy))
    return found


def parts(annotation: Any) -> tuple[Any, ...]:
    """What an annotation is made of, its metadata included; nothing for a plain type."""
    return (*typing.get_args(annotation),)


def _names_at(fields: Mapping[str, Any], place: tuple[int | str, ...]) -> list[str]:
    """Names of the options at a place."""
    here = fields
    for token in place:
        model = _model(here.get(str(token)))
        here = {name: info.annotation for name, info in model.model_fields.items()} if model is not None else {}
    return list(here)


def _model(annotation: Any) -> type[BaseModel] | None:
    """The model inside an annotation; None if it holds none."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for each in parts(annotation) if (found := _model(each)) is not None), None)

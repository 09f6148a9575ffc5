"""Reading a document as strictly as the API server does: no conversion between types, and camelCase only.

pydantic's models also accept "5" for 5 and snake_case keys, which recipes' YAML needs and the API server refuses.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel

Model = TypeVar("Model", bound=BaseModel)
_FREE_FORM = ("set", "options")
"""Fields that hold any JSON, in which the API server keeps nulls."""


def validate(model: type[Model], document: Mapping[str, Any]) -> Model:
    """The model of a document of plain JSON values.

    By way of JSON, because pydantic's strict mode accepts a list for a tuple only there.

    Raises:
        pydantic.ValidationError: the document is not valid.
    """
    return model.model_validate_json(json.dumps(document), strict=True, by_alias=True, by_name=False)


def without_nulls(value: Any, path: tuple[str, ...] = ()) -> Any:
    """The value without the keys of mappings that are null, as the API server prunes them; items of lists remain.

    path: of the value in its object. Labels and annotations become empty text instead, as in the API server.
    """
    if isinstance(value, dict) and not (path and path[-1] in _FREE_FORM):
        if path in (("metadata", "labels"), ("metadata", "annotations")):
            return {key: "" if each is None else each for key, each in value.items()}
        return {key: without_nulls(each, (*path, key)) for key, each in value.items() if each is not None}
    if isinstance(value, list):
        return [without_nulls(each, path) for each in value]
    return value

"""JSON without NaN, infinities and repeated keys.

JSON has no non-finite numbers, so pydantic writes them as `null` and Python's json as `NaN`: the first loses the value,
the second is unreadable elsewhere. Of a key that occurs twice every parser silently keeps the last. What a run writes
and later trusts (checkpoint manifests, datasets, trajectories) goes through these functions, which refuse both. Figures
for people (progress, the metric log) go through `with_nulls` first: a figure without a value must not end a stage.
"""

from __future__ import annotations

import json
import math
from typing import Any

import pydantic_core
from pydantic import BaseModel


def dumps(value: Any, **options: Any) -> str:
    """JSON text of plain values and pydantic models.

    Args:
        value: dicts, lists, tuples, strings, numbers, None, and pydantic models or dates among them.
        options: those of `json.dumps`.

    Raises:
        ValueError: a number is NaN or infinite; the message gives its path, as in `meta.reward.0`.
    """
    try:
        return json.dumps(value, allow_nan=False, default=_plain, **options)
    except ValueError:
        path = non_finite(json.loads(json.dumps(value, default=_plain)))
        if path is None:
            raise
        raise ValueError(f"{path or 'value'} is not a finite number") from None


def dumps_model(model: BaseModel, **options: Any) -> str:
    """JSON text of a model, as fast as pydantic writes it.

    Args:
        model: its configuration must have `ser_json_inf_nan="constants"`; pydantic writes `null` otherwise.
        options: those of `model_dump_json`.

    Raises:
        ValueError: a number is NaN or infinite, because it was set without validation.
    """
    text = model.model_dump_json(**options)
    if "NaN" in text or "Infinity" in text:  # perhaps inside a string only
        loads(text)
    return text


def loads(text: str | bytes, *, nan_as_null: bool = False) -> Any:
    """The value of a JSON text.

    Args:
        text: the JSON text.
        nan_as_null: whether NaN and Infinity, which Python's exporters write, are null instead of an error.

    Raises:
        ValueError: not JSON; a number that is NaN, infinite or overflows to infinity; a key twice in one object.
        RecursionError: nested too deeply.
    """
    constant = _as_null if nan_as_null else _refuse_constant
    return json.loads(text, parse_constant=constant, parse_float=_finite, object_pairs_hook=_unique)


def decoder(*, nan_as_null: bool = False) -> json.JSONDecoder:
    """A decoder with the rules of `loads`, for a value within a longer text."""
    constant = _as_null if nan_as_null else _refuse_constant
    return json.JSONDecoder(parse_constant=constant, parse_float=_finite, object_pairs_hook=_unique)


def non_finite(value: Any, path: str = "") -> str | None:
    """Dotted path of the first NaN or infinity in dicts, lists and tuples; None when all numbers are finite."""
    if isinstance(value, float):
        return None if math.isfinite(value) else path
    if isinstance(value, dict):
        items = [(str(key), each) for key, each in value.items()]
    elif isinstance(value, list | tuple):
        items = [(str(number), each) for number, each in enumerate(value)]
    else:
        return None
    found = (non_finite(each, f"{path}.{key}" if path else key) for key, each in items)
    return next((each for each in found if each is not None), None)


def with_nulls(value: Any) -> Any:
    """Dicts, lists and tuples with None in place of each NaN or infinity, which is `null` in JSON.

    >>> with_nulls({"loss": math.nan, "rewards": (0.5, math.inf)})
    {'loss': None, 'rewards': [0.5, None]}
    """
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: with_nulls(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [with_nulls(each) for each in value]
    return value


def _plain(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump()  # in Python mode: its JSON mode turns a nested NaN into None
    return pydantic_core.to_jsonable_python(value)


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not a JSON number")


def _as_null(name: str) -> None:
    return None


def _finite(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise ValueError(f"the number {text} is too large")
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"key {next(key for key in keys if keys.count(key) > 1)!r} occurs twice")
    return made

"""JSON that a run trusts later: every number finite, every key once."""

from __future__ import annotations

import math
from datetime import datetime
from typing import Any

import pytest
from pydantic import BaseModel, ConfigDict

from gog import finite_json


class Model(BaseModel):
    scores: tuple[float, ...] = ()
    meta: dict[str, Any] = {}


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize(
    ("wrapped", "path"),
    [
        (lambda number: number, "value"),
        (lambda number: {"meta": {"reward": [0.5, number]}}, "meta.reward.1"),
        (lambda number: {"model": Model(scores=(1.0, number))}, "model.scores.1"),
        (lambda number: Model(meta={"settings": {"clip": number}}), "meta.settings.clip"),
    ],
)
def test_a_number_that_is_not_finite_is_refused_by_its_path(number, wrapped, path) -> None:
    with pytest.raises(ValueError, match=f"^{path} is not a finite number$"):
        finite_json.dumps(wrapped(number))


def test_finite_values_and_models_are_written_as_json_writes_them() -> None:
    value = {"a": (1, 2.5), "b": None, "c": Model(scores=(0.25,)), "é": datetime(2026, 1, 2)}
    assert finite_json.dumps(value, ensure_ascii=False) == (
        '{"a": [1, 2.5], "b": null, "c": {"scores": [0.25], "meta": {}}, "é": "2026-01-02T00:00:00"}'
    )


def test_a_model_with_a_number_that_was_not_validated_is_refused_and_one_with_such_words_is_not() -> None:
    class Text(BaseModel):
        model_config = ConfigDict(ser_json_inf_nan="constants")
        text: str
        score: float = 0.0

    good = Text(text='NaN, -Infinity and "NaN"')
    assert finite_json.loads(finite_json.dumps_model(good, exclude_defaults=True)) == {"text": good.text}
    with pytest.raises(ValueError, match="NaN is not a JSON number"):
        finite_json.dumps_model(good.model_copy(update={"score": math.nan}))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"a": NaN}', "NaN is not a JSON number"),
        ('{"a": [-Infinity]}', "-Infinity is not a JSON number"),
        ('{"a": 1e999}', "the number 1e999 is too large"),
        ('{"a": 1, "b": {"c": 1, "c": 2}}', "key 'c' occurs twice"),
        ("{", "Expecting property name"),
    ],
)
def test_text_with_such_a_number_or_a_repeated_key_is_refused(text, message) -> None:
    with pytest.raises(ValueError, match=message):
        finite_json.loads(text)


def test_what_was_written_is_read_again() -> None:
    value = {"a": [1, 2.5e-3, "NaN"], "b": {"a": None}}
    assert finite_json.loads(finite_json.dumps(value)) == value

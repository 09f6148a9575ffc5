"""pydantic's errors reach a user without pydantic's own words."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import BaseModel, ValidationError, field_validator

from gog import validation

ROOT = Path(__file__).parents[2]
OWN_WORDING = {"core/gog/validation.py", "operator/gog_operator/api/problems.py"}
"""Files that read messages of pydantic, because they are where its words are removed."""


class Inner(BaseModel):
    size: int

    @field_validator("size")
    @classmethod
    def _even(cls, size: int) -> int:
        if size % 2:
            raise ValueError("an even number is needed")
        return size


class Outer(BaseModel):
    parts: list[Inner]


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"parts": [{"size": 2}, {"size": 3}]}, "parts.1.size: an even number is needed"),
        ({"parts": [{}]}, "parts.0.size: Field required"),
        (7, "Input should be a valid dictionary or instance of Outer"),
    ],
)
def test_a_sentence_has_the_field_and_the_cause_without_value_error(values: object, sentence: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Outer.model_validate(values)
    assert validation.first_sentence(caught.value) == sentence


@pytest.mark.parametrize("package", ["core", "recipes", "console", "operator", "tool_servers"])
def test_no_other_module_reads_messages_of_pydantic(package: str) -> None:
    reading = [
        name
        for path in (ROOT / package).rglob("*.py")
        if any(form in path.read_text() for form in ('["msg"]', "['msg']"))
        if (name := path.relative_to(ROOT).as_posix()) not in OWN_WORDING
    ]
    assert reading == []

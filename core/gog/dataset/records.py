"""The records of a dataset: one line of each of its files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

INDEX, CORPUS = Path("index") / "images.jsonl", Path("corpus.jsonl")
"""Files that gog's own image search and text search read."""


def _not_blank(text: str) -> str:
    if not text.strip():
        raise ValueError("is blank")
    return text


Filled = Annotated[str, Field(min_length=1), AfterValidator(_not_blank)]
"""Text with at least one character that is not white space."""


class Record(BaseModel):
    """A line of a JSONL file. Non-finite numbers are refused; `null` in an optional field means that it is absent."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _without_nulls(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        optional = {name for name, field in cls.model_fields.items() if not field.is_required()}
        return {name: value for name, value in given.items() if value is not None or name not in optional}


class Evidence(Record):
    """What an annotator (or the world's generator) marked. Curation may use it; the policy never sees it."""

    model_config = ConfigDict(extra="allow", frozen=True)

    kind: str = Field("", description="Type of the question, for break-downs in the report.")
    expression: str = Field("", description="Words that refer to the thing asked about, as in `red ring`.")
    region: tuple[float, float, float, float] | None = Field(
        None, description="Box of the thing: x0, y0, x1, y1 in pixels of the image, x1 and y1 exclusive."
    )


class Question(Record):
    """One line of `<split>.jsonl`."""

    id: str = Field(min_length=1, max_length=200, description="Unique within its split.")
    image: str = Field(description="Path of the image, relative to the dataset folder.")
    question: Filled = Field(description="What the policy is asked.")
    answers: tuple[Filled, ...] = Field(min_length=1, description="The gold answer first, then accepted alternatives.")
    evidence: Evidence = Field(Evidence(), description="What an annotator marked.")


class IndexedImage(Record):
    """One line of index/images.jsonl: an image that image search can find."""

    image: str = Field(description="Path of the image, relative to the dataset folder.")
    title: str = Field(description="Title of the page that the search returns.")
    url: str = Field("", description="Address of that page.")


class Document(Record):
    """One line of corpus.jsonl: a page that text search can find."""

    title: str = Field(description="Title of the page.")
    text: str = Field(description="Text of the page, without markup.")
    url: str = Field("", description="Address of the page.")

"""A dataset is a folder: questions as JSON lines, images beside them.

    train.jsonl, test.jsonl     one question a line
    images/<anything>.png       named by the lines
    index/images.jsonl          optional: what an image search of one's own should find
    corpus.jsonl                optional: what a text search of one's own should find

The embedded world writes such a folder and any other may take its place. A line that is not valid is refused with
its file, number and field before anything starts.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from gog import images
from gog.errors import UserError

Line = TypeVar("Line", bound=BaseModel)
INDEX, CORPUS = Path("index") / "images.jsonl", Path("corpus.jsonl")


class Evidence(BaseModel):
    """What a human (or the world's generator) marked about the question; curation may use it, the policy never sees it."""

    model_config = ConfigDict(extra="allow")

    kind: str = Field("", description="The question's type, for break-downs in the report.")
    expression: str = Field("", description="Words that refer to the thing asked about: 'red ring'.")
    region: tuple[float, float, float, float] | None = Field(
        None, description="Its box x0, y0, x1, y1 in pixels of the image."
    )


class Question(BaseModel):
    """One line of train.jsonl or test.jsonl."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: str = Field(min_length=1, max_length=200)
    image: str = Field(description="Path of the image, relative to the dataset folder.")
    question: str = Field(min_length=1)
    answers: tuple[str, ...] = Field(min_length=1, description="The gold answer first, then accepted alternatives.")
    evidence: Evidence = Evidence()


class IndexedImage(BaseModel):
    """One line of index/images.jsonl: an image that image search can find."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    image: str
    title: str
    url: str = ""


class Document(BaseModel):
    """One line of corpus.jsonl: a page that text search can find."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    title: str
    text: str
    url: str = ""


def read_lines(path: Path, kind: type[Line]) -> Iterator[Line]:
    """Each line of a JSONL file as `kind`. Raises UserError naming file, line number, field and cause."""
    return (line for _, line in _numbered_lines(path, kind))


def _numbered_lines(path: Path, kind: type[Line]) -> Iterator[tuple[int, Line]]:
    """Lines with their numbers in the file, blank ones left out."""
    try:
        stream = path.open("rb")
    except OSError as error:
        raise UserError(
            f"cannot read: {error.strerror}", where=str(path), remedy="is the dataset folder complete?"
        ) from None
    with stream:
        for number, text in enumerate(stream, 1):
            if not text.strip():
                continue
            try:
                yield number, kind.model_validate_json(text)
            except ValidationError as error:
                first = error.errors()[0]
                field = ".".join(str(part) for part in first["loc"]) or "line"
                raise UserError(
                    f"{field}: {first['msg']}", where=f"{path}:{number}", remedy="mend or remove the line"
                ) from None


def read_questions(folder: Path, split: str) -> list[Question]:
    """All questions of a split, checked: ids unique, images present. Raises UserError."""
    path = folder / f"{split}.jsonl"
    questions, seen = [], set()
    for number, question in _numbered_lines(path, Question):
        if question.id in seen:
            raise UserError(f"id {question.id!r} occurs twice", where=f"{path}:{number}", remedy="ids must be unique")
        seen.add(question.id)
        if not (folder / question.image).is_file():
            raise UserError(f"image {question.image!r} is missing", where=f"{path}:{number}")
        questions.append(question)
    if not questions:
        raise UserError("no questions", where=str(path), remedy="give at least one line")
    return questions


def check(folder: Path, splits: Iterable[str]) -> None:
    """Looks at everything in a dataset that a run would read: every line, and every image. Raises UserError naming
    file and line."""
    for split in splits:
        read_questions(folder, split)
        _check_images(folder, folder / f"{split}.jsonl", Question)
    if (folder / INDEX).is_file():
        _check_images(folder, folder / INDEX, IndexedImage)
    if (folder / CORPUS).is_file():
        for _ in read_lines(folder / CORPUS, Document):
            pass


def _check_images(folder: Path, path: Path, kind: type[Question] | type[IndexedImage]) -> None:
    for number, line in _numbered_lines(path, kind):
        if not (folder / line.image).is_file():
            raise UserError(f"image {line.image!r} is missing", where=f"{path}:{number}")
        try:
            images.verify(folder / line.image)
        except UserError as error:
            raise UserError(
                f"image {line.image!r}: {error.what}", where=f"{path}:{number}", remedy=error.remedy
            ) from None


def write_lines(path: Path, lines: list[BaseModel]) -> None:
    """JSON lines, all or nothing: written beside the target and renamed."""
    temporary = path.with_suffix(path.suffix + ".tmp")
    with temporary.open("w", encoding="utf-8") as stream:
        for line in lines:
            stream.write(json.dumps(line.model_dump(mode="json", exclude_defaults=True), ensure_ascii=False) + "\n")
    temporary.replace(path)

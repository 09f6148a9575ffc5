"""JSON lines, written by gog or by other tools.

A byte-order mark, CRLF line ends, blank lines and `null` in optional fields are accepted, because exporters write them.
A line that is wrong is reported with file, line number, field and cause.
"""

from __future__ import annotations

import codecs
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from pydantic import BaseModel, ValidationError

from gog import finite_json, validation
from gog.errors import UnreadableFile, UserError

Kind = TypeVar("Kind", bound=BaseModel)
REMEDY = "correct or remove the line"
_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


@dataclass(frozen=True)
class Line(Generic[Kind]):
    """A line of a JSONL file that is valid."""

    number: int
    """Counts from 1; blank lines count."""
    record: Kind
    """What the line holds."""


def read_lines(path: Path, kind: type[Kind]) -> Iterator[Kind]:
    """The records of a JSONL file.

    Raises:
        UserError: the file cannot be read, or a line is not valid; it names file, line, field and cause.
    """
    for line in scan(path, kind):
        if isinstance(line, UserError):
            raise line
        yield line.record


def scan(path: Path, kind: type[Kind]) -> Iterator[Line[Kind] | UserError]:
    """Every line of a JSONL file: valid, or the error to report for it. A file that cannot be read is one error."""
    try:
        stream = path.open("rb")
    except OSError as error:
        yield UnreadableFile(
            f"cannot read: {error.strerror}", where=str(path), remedy="is the dataset folder complete?"
        )
        return
    with stream:
        for number, text in enumerate(stream, 1):
            if number == 1:
                if text.startswith(_UTF16):
                    yield UnreadableFile("the file is UTF-16", where=str(path), remedy="save it as UTF-8")
                    return
                text = text.removeprefix(codecs.BOM_UTF8)
            if text.strip():
                yield _parsed(text, number, path, kind)


def _parsed(text: bytes, number: int, path: Path, kind: type[Kind]) -> Line[Kind] | UserError:
    try:
        record = kind.model_validate_json(text)
        finite_json.loads(text)  # pydantic accepts repeated keys, and NaN where a field takes anything
        return Line(number, record)
    except ValidationError as error:
        cause = _first_cause(error)
    except (ValueError, RecursionError) as error:
        cause = f"line: {error}"
    return UserError(cause, where=f"{path}:{number}", remedy=REMEDY)


def _first_cause(error: ValidationError) -> str:
    field, cause = validation.first_problem(error)
    return f"{field or 'line'}: {cause}"


def write_lines(path: Path, records: Sequence[BaseModel]) -> None:
    """Writes records as JSON lines, without fields that have their default; the file appears whole or not at all.

    Raises:
        ValueError: a number is not finite.
        OSError: the file cannot be written.
    """
    temporary = path.with_suffix(path.suffix + ".tmp")
    with temporary.open("w", encoding="utf-8") as stream:
        for record in records:
            stream.write(finite_json.dumps(record.model_dump(exclude_defaults=True), ensure_ascii=False) + "\n")
    temporary.replace(path)

"""Records of a file in any of the forms that datasets are published in, one at a time.

JSON lines, a JSON array (read piece by piece, because such files are larger than memory allows), a JSON object whose
values are records, Parquet and Arrow. NaN, which Python's exporters write although JSON has none, becomes null.
"""

from __future__ import annotations

import codecs
import functools
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from gog import finite_json
from gog.dataset.foreign import arrow, embedded
from gog.errors import UnreadableFile, UserError

SUFFIXES = (*arrow.SUFFIXES, ".jsonl", ".ndjson", ".json")
"""Endings of the files that are read."""
HEAD = 4096
"""Bytes by which a file is recognised as binary."""
PICKLED = (".pkl", ".pickle")
PIECE = 1 << 20
"""Characters of a JSON array that are read at once."""
LARGEST = 256 << 20
"""Characters of one element of a JSON array at most."""
CANARIES = ("canary", "canary_string")
"""Fields that mark rows whose text is encrypted, so that no crawler learns a benchmark."""
_GAP = re.compile(r"[\s,]*")
"""Between the elements of a JSON array."""


@dataclass(frozen=True)
class Record:
    """One record of a file."""

    where: str
    """File and line or row, for messages."""
    number: int
    """Counts from 1."""
    fields: dict[str, Any]
    """Its fields."""


def read(path: Path) -> Iterator[Record | UserError]:
    """The records of a file; for one that cannot be read, the error to report.

    Args:
        path: the file.

    Yields:
        Records and errors of single rows. Where the rest of the file cannot be read, an UnreadableFile comes last.
    """
    try:
        for number, found in _found(path):
            where = f"{path}:{number}" if path.suffix in (".jsonl", ".ndjson") else f"{path}: row {number}"
            if isinstance(found, ValueError | RecursionError):
                yield UserError(f"line: {found}", where=where, remedy="correct or remove the line")
            elif not isinstance(found, dict):
                yield UserError("not an object", where=where, remedy="correct or remove the row")
            elif canary := next((name for name in CANARIES if found.get(name)), ""):
                raise UserError(
                    f"{canary}: the text of this file is encrypted",
                    where=where,
                    remedy="decrypt it with its publisher's script, then import the result",
                )
            else:
                yield Record(where, number, found)
    except UserError as error:
        yield UnreadableFile(error.what, where=error.where, remedy=error.remedy)
    except OSError as error:
        yield UnreadableFile(f"cannot read: {error.strerror}", where=str(path))
    except UnicodeDecodeError as error:
        yield UnreadableFile(f"not UTF-8: {error.reason}", where=str(path), remedy="save it as UTF-8")


def is_table(path: Path) -> bool:
    """Whether a file is one of those that are read, by its ending, or as Parquet or Arrow by its first bytes."""
    return path.suffix in SUFFIXES or _is_columnar(path)


def first(path: Path) -> Mapping[str, Any]:
    """What the first record of a file looks like, empty if there is none; for recognising a format. Raises nothing.

    Texts and images are cut short, and the result is kept, because each format looks at each file of a folder.
    """
    return _start(path)[0]


def unreadable(path: Path) -> UserError | None:
    """Why no record of a file can be read; None if one can, or the file holds none. Raises nothing."""
    return _start(path)[1]


def _start(path: Path) -> tuple[Mapping[str, Any], UserError | None]:
    try:
        found = path.stat()
    except OSError as error:
        return {}, UnreadableFile(f"cannot read: {error.strerror}", where=str(path))
    return _first(path, found.st_size, found.st_mtime_ns)


@functools.lru_cache(maxsize=4096)
def _first(path: Path, size: int, changed: int) -> tuple[Mapping[str, Any], UserError | None]:
    """The outline of the first record, or the first error before it.

    Args:
        path: the file.
        size: of the file, in bytes.
        changed: when it last was; another version of the file is read again.
    """
    error: UserError | None = None
    for found in read(path):
        if isinstance(found, Record):
            return {name: _outline(value) for name, value in found.fields.items()}, None
        error = error or found
    return {}, error


def _outline(value: Any) -> Any:
    if isinstance(value, bytes | str):
        return value[:64]
    if isinstance(value, list):
        return [_outline(each) for each in value[:1]]
    if isinstance(value, dict):
        return {name: _outline(each) for name, each in value.items()}
    return value


def _found(path: Path) -> Iterator[tuple[int, Any]]:
    refuse_pickle(path)
    if path.suffix in arrow.SUFFIXES or _is_columnar(path):
        yield from enumerate(arrow.rows(path), 1)
    elif path.suffix == ".json":
        yield from enumerate(_of_json(path), 1)
    else:
        _refuse_binary(path)
        yield from _of_lines(path)


def _is_columnar(path: Path) -> bool:
    return _head(path).startswith((arrow.PARQUET_MAGIC, arrow.FILE_MAGIC))


def _head(path: Path) -> bytes:
    """The first bytes of a file; none of what is no file or cannot be read."""
    try:
        with path.open("rb") as stream:
            return stream.read(HEAD)
    except OSError:
        return b""


def _refuse_binary(path: Path) -> None:
    """Raises UserError for a file that is no text, whose lines would each be an error."""
    head = _head(path)
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise UserError("the file is UTF-16", where=str(path), remedy="save it as UTF-8")
    if b"\0" in head:
        raise UserError("binary content, not JSON lines", where=str(path), remedy=f"files are {', '.join(SUFFIXES)}")


def refuse_pickle(path: Path) -> None:
    """Raises UserError for a file that is a pickle, whatever its name."""
    if path.is_file():
        with path.open("rb") as stream:
            head = stream.read(2)
        if path.suffix in PICKLED or embedded.is_pickle(head):
            raise UserError(
                "a pickle, which gog does not load because it can run any program",
                where=str(path),
                remedy="import the Parquet or JSON files that it came with",
            )


def _of_lines(path: Path) -> Iterator[tuple[int, Any]]:
    with path.open("rb") as stream:
        for number, line in enumerate(stream, 1):
            bare = line.removeprefix(codecs.BOM_UTF8) if number == 1 else line
            if bare.strip():
                try:
                    yield number, finite_json.loads(bare, nan_as_null=True)
                except (ValueError, RecursionError) as error:
                    if isinstance(error, json.JSONDecodeError) and not line.endswith(b"\n"):
                        raise UserError(
                            f"the last line is cut off: {error}",
                            where=f"{path}:{number}",
                            remedy="fetch the file again, or complete or remove the line",
                        ) from None
                    yield number, error


def _of_json(path: Path) -> Iterator[Any]:
    with path.open(encoding="utf-8-sig") as stream:
        start = stream.read(1)
        while start.isspace():
            start = stream.read(1)
        if start == "[":
            yield from _elements(stream, path)
            return
        try:
            whole = finite_json.loads(start + stream.read(LARGEST), nan_as_null=True)
        except (ValueError, RecursionError) as error:
            raise UserError(f"not JSON: {error}", where=str(path)) from None
    yield from _records_of(whole)


def _records_of(whole: Any) -> Iterator[Any]:
    """An object that is a record itself, or whose only list, or whose values, are the records."""
    lists = [each for each in whole.values() if isinstance(each, list)] if isinstance(whole, dict) else []
    if isinstance(whole, dict) and whole and all(isinstance(each, dict) for each in whole.values()):
        yield from ({"key": key, **each} for key, each in whole.items())
    elif len(lists) == 1 and len(whole) <= 3 and all(isinstance(each, dict) for each in lists[0]):
        yield from lists[0]
    else:
        yield whole


def _elements(stream: TextIO, path: Path) -> Iterator[Any]:
    """The elements of an array whose bracket has been read. Raises UserError where it stops being JSON."""
    decoder = finite_json.decoder(nan_as_null=True)
    held, at, done, count, piece = "", 0, False, 0, PIECE
    while True:
        at = _GAP.match(held, at).end()  # type: ignore[union-attr]  # it matches nothing, too
        if held.startswith("]", at):
            return
        try:
            element, end = decoder.raw_decode(held, at)
            if end < len(held) or done:  # a number may continue in the next piece
                count, at, piece = count + 1, end, PIECE
                yield element
                continue
        except json.JSONDecodeError as error:
            if at < len(held) and (done or len(held) - at > LARGEST):
                where = f"{path}: row {count + 1}"
                raise UserError(f"not JSON: {error.msg}", where=where, remedy="is the file complete?") from None
        except (ValueError, RecursionError) as error:
            raise UserError(str(error), where=f"{path}: row {count + 1}") from None
        if done:
            raise UserError("the array does not end", where=f"{path}: row {count + 1}", remedy="fetch the file again")
        fresh = stream.read(piece)
        piece *= 2  # so that a large element is not decoded again for each piece
        held, at, done = held[at:] + fresh, 0, not fresh

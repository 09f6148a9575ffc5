"""A file of another project's rows, read as an archive of gog's is: as a stream for the index, or a row by its offset.

Rows of JSON lines are read where they are. Parquet and JSON files are written as JSON lines to a temporary folder first,
so that a row has an offset. A row that cannot be read is a line with its problem; the others are shown.
"""

from __future__ import annotations

import base64
import functools
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from gog import finite_json
from gog.dataset.foreign import arrow, tables, values
from gog.errors import UserError
from gog.trajectory import explain
from gog_console.viewer import dumps
from gog_console.viewer.foreign import pictures
from gog_console.viewer.lines import HASH, Archive, Line

KEPT = 16
"""Decoded images that are kept at most."""


def as_lines(file: Path, scratch: Path, identity: str) -> Path:
    """The file of JSON lines with the rows of a file: the file itself, or a copy in a temporary folder.

    Args:
        file: of JSON lines, JSON or Parquet.
        scratch: the temporary folder.
        identity: changes with the content of the file.

    Raises:
        UserError: the file cannot be read.
    """
    if file.suffix == ".jsonl":
        return file
    target = scratch / f"{identity}.jsonl"
    if not target.exists():
        temporary = target.with_suffix(".tmp")
        with temporary.open("w", encoding="utf-8") as stream:
            stream.writelines(f"{json.dumps(row, ensure_ascii=False, default=_plain)}\n" for row in _rows(file))
        temporary.replace(target)
    return target


def _rows(file: Path) -> Iterator[dict[str, Any]]:
    if file.suffix == ".parquet":
        yield from arrow.rows(file)
        return
    for record in tables.read(file):
        if isinstance(record, UserError):
            raise record
        yield record.fields


def _plain(value: Any) -> str:
    return base64.b64encode(value).decode() if isinstance(value, bytes) else str(value)


class Rows(Archive):
    """The rows of one file. Raises UserError for a file that cannot be read."""

    def __init__(self, path: Path, reader: dumps.Reader, file: Path, folders: Sequence[Path]) -> None:
        """path: the JSON lines. file: what the project wrote. folders: where images are looked up."""
        super().__init__(path)
        self._reader, self._file, self._folders = reader, file, tuple(folders)
        self._images: dict[str, tuple[int, int]] = {}
        self._scanned = False
        self._decoded = functools.lru_cache(maxsize=KEPT)(self._decode)

    def lines(self, offset: int = 0) -> Iterator[Line]:
        """Rows from an offset. Those of a question are numbered in their order, which an offset does not tell."""
        samples: Counter[str] = Counter()
        for line in super().lines():
            if line.trajectory is not None:
                id = line.trajectory.question_id
                line = replace(line, trajectory=line.trajectory.model_copy(update={"sample": samples[id]}))
                samples[id] += 1
            if line.offset >= offset:
                yield line

    def _parsed(self, line: bytes, offset: int) -> Line:
        found = self._played(line)
        if isinstance(found, str):
            return Line(offset, len(line), None, f"{self._file.name}, row {self._number(offset)}: {found}")
        self._images |= {name: (offset, len(line)) for name in found.images}
        reward = found.trajectory.reward
        extra = {
            "prompt": found.prompt,
            "marks": dict(found.marks),
            "reward": None if reward is None else {"total": reward.total, "accuracy": reward.accuracy},
        }
        return Line(offset, len(line), found.trajectory, extra={name: value for name, value in extra.items() if value})

    def _played(self, line: bytes) -> dumps.Played | str:
        """A row in gog's form, or why it has none."""
        try:
            record = finite_json.loads(line, nan_as_null=True)
            if not isinstance(record, dict):
                return f"is {values.kind(record)}, not an object"
            return self._reader.played(record, self._file)
        except ValidationError as error:
            return explain(error)
        except UserError as error:
            return error.what
        except (ValueError, RecursionError) as error:
            return str(error)

    def _number(self, offset: int) -> int:
        """The number of the row at an offset, from 1."""
        with self.path.open("rb") as stream:
            return 1 + sum(1 for _ in iter(lambda: stream.tell() < offset and stream.readline(), False))

    def png(self, image: str) -> bytes | None:
        """PNG bytes of an image; None when it is missing, damaged, or no row names it."""
        if not HASH.fullmatch(image):
            return None
        if image not in self._images and not self._scanned:  # the index was made by an earlier viewer
            self._scanned = True
            for _ in self.lines():
                pass
        return self._decoded(image) if image in self._images else None

    def _decode(self, image: str) -> bytes | None:
        found = self._played(self.raw(*self._images[image]))
        return None if isinstance(found, str) else pictures.png(found.images.get(image), self._folders)

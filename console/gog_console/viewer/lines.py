"""Lines and images of one archive, as a stream for the index or one at a time for the page.

An archive is the zip of a checkpoint, or a JSONL file with `images/` beside it. Lines are stored uncompressed, so one
line is read by its offset. A line that cannot be parsed is returned with its problem.
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from pydantic import ValidationError

from gog import trajectory_zip
from gog.errors import UserError
from gog.trajectory import Trajectory, explain

LONGEST = 64 << 20
"""Bytes of a line at most; a longer one is split into unreadable lines, which bounds memory."""
HASH = re.compile(r"[0-9a-f]{16,128}")
LOCAL_HEADER = 30
"""Bytes of a zip's local header before name and extra field, whose lengths are its last four bytes."""


@dataclass(frozen=True)
class Line:
    """One line of an archive."""

    offset: int
    """Bytes from the start of the lines."""
    length: int
    """Bytes of the line."""
    trajectory: Trajectory | None
    """The record; None when it cannot be parsed."""
    problem: str = ""
    """Why it cannot be parsed."""
    extra: Mapping[str, Any] = field(default_factory=dict)
    """What the page shows besides the record, by its name there; of other projects' dumps only."""


class Archive:
    """One archive, open for reading by several threads. Raises UserError for a file that is not an archive."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._zip: zipfile.ZipFile | None = None
        self._start = 0
        try:
            self.size = path.stat().st_size
            if path.suffix != ".jsonl":
                self._zip = zipfile.ZipFile(path)
                self._start, self.size = self._stored()
        except (OSError, zipfile.BadZipFile, KeyError) as error:
            raise UserError(f"half-written, or not a trajectory archive: {error}", where=str(path)) from None

    def _stored(self) -> tuple[int, int]:
        """(offset of the lines in the file, their size in bytes)."""
        assert self._zip is not None
        entry = self._zip.getinfo(trajectory_zip.LINES)
        if entry.compress_type != zipfile.ZIP_STORED:
            raise zipfile.BadZipFile("its lines are compressed")
        with self.path.open("rb") as stream:
            stream.seek(entry.header_offset)
            header = stream.read(LOCAL_HEADER)
        name, extra = int.from_bytes(header[26:28], "little"), int.from_bytes(header[28:30], "little")
        return entry.header_offset + LOCAL_HEADER + name + extra, entry.file_size

    def lines(self, offset: int = 0) -> Iterator[Line]:
        """Lines from an offset. Raises UserError when the disk fails."""
        try:
            with self.path.open("rb") as stream:
                stream.seek(self._start + offset)
                yield from self._each(stream, offset)
        except OSError as error:
            raise UserError(f"cannot be read: {error.strerror}", where=str(self.path)) from None

    def _each(self, stream: IO[bytes], offset: int) -> Iterator[Line]:
        while offset < self.size:
            line = stream.readline(min(LONGEST, self.size - offset))
            if not line:
                return
            if line.strip():
                yield self._parsed(line, offset)
            offset += len(line)

    def _parsed(self, line: bytes, offset: int) -> Line:
        torn = not line.endswith(b"\n") and offset + len(line) >= self.size
        try:
            return Line(offset, len(line), Trajectory.model_validate_json(line))
        except ValidationError as error:
            problem = "half-written: the file ends within this line" if torn else explain(error)
            return Line(offset, len(line), None, problem)

    def raw(self, offset: int, length: int) -> bytes:
        """Bytes of one line. Raises OSError."""
        with self.path.open("rb") as stream:
            stream.seek(self._start + offset)
            return stream.read(length)

    def line(self, offset: int, length: int) -> Line:
        """One line by its offset. Raises OSError."""
        return self._parsed(self.raw(offset, length), offset)

    def png(self, image: str) -> bytes | None:
        """PNG bytes of an image; None when it is missing, damaged, or its name is not a content hash."""
        if not HASH.fullmatch(image):
            return None
        try:
            if self._zip is None:
                return (self.path.parent / "images" / f"{image}.png").read_bytes()
            return self._zip.read(f"images/{image}.png")
        except (KeyError, OSError, zipfile.BadZipFile):
            return None

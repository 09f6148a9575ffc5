"""Lines and images of one archive, as a stream for the index or one at a time for the page.

An archive is a zip as checkpoints carry it, or a plain JSONL file with `images/` beside it. Its lines are stored
uncompressed, so that one of them is read by its place in the file, without what comes before. A line that cannot be
read is a line all the same: it is handed on with what is wrong with it.
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from pydantic import ValidationError

from gog import trajectory_zip
from gog.errors import UserError
from gog.trajectory import Trajectory, explain

LONGEST = 64 << 20
"""Bytes of a line; what is longer is cut into lines that cannot be read, rather than into memory."""
HASH = re.compile(r"[0-9a-f]{16,128}")
LOCAL_HEADER = 30
"""Bytes of a zip's local header before name and extra field, whose lengths stand in its last four."""


@dataclass(frozen=True)
class Line:
    """A line and its place in bytes from the beginning of the lines. Either trajectory or problem is set."""

    offset: int
    length: int
    trajectory: Trajectory | None
    problem: str = ""


class Archive:
    """One archive, open for reading by several threads. Raises UserError for what is none."""

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
        """Where in the file the lines begin, and how many bytes they are."""
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
        """Lines from a place on. Raises UserError where the disk fails."""
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
        """Bytes of a line. Raises OSError."""
        with self.path.open("rb") as stream:
            stream.seek(self._start + offset)
            return stream.read(length)

    def line(self, offset: int, length: int) -> Line:
        return self._parsed(self.raw(offset, length), offset)

    def png(self, image: str) -> bytes | None:
        """An image's bytes; None when it is missing or torn, or when its name is no hash."""
        if not HASH.fullmatch(image):
            return None
        try:
            if self._zip is None:
                return (self.path.parent / "images" / f"{image}.png").read_bytes()
            return self._zip.read(f"images/{image}.png")
        except (KeyError, OSError, zipfile.BadZipFile):
            return None

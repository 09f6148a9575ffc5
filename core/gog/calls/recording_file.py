"""A recording as one file for other machines: compressed JSON lines with a content hash.

The first line names the format, each further one is an answer, and the last one holds the number of answers and the
BLAKE3 hash of all lines before it. Answers are sorted by key, so equal recordings have equal hashes, on any machine.
Secrets are removed once more, for answers that an earlier version recorded. What is imported is not trusted: lines are
bounded, and nothing is recorded unless the hash agrees.
"""

from __future__ import annotations

import base64
import contextlib
import io
import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import zstandard
from blake3 import blake3

from gog.calls.recording import MAX_ANSWER_BYTES, Entry
from gog.calls.recordings import AnyRecording
from gog.calls.redact import redact
from gog.errors import UserError, unwritable

FORMAT = "gog-recording/1"
MAX_LINE = 2 * MAX_ANSWER_BYTES
_EXPORTED, _RECORDED = b"\x28\xb5\x2f\xfd", b"SQLite format 3\0"
"""First bytes of an exported file, which zstd compressed, and of a recording."""


@dataclass(frozen=True)
class Summary:
    """What a recording holds."""

    digest: str
    """BLAKE3 hash of its content, hexadecimal."""
    answers: dict[str, int]
    """Number of answers by tool."""
    answer_bytes: int
    """Bytes of all answers, uncompressed."""
    first: float | None
    """When the oldest answer was recorded, in seconds since 1970; None if there are none."""
    last: float | None
    """When the newest one was."""


def write(recording: AnyRecording, path: Path, secrets: Sequence[str] = ()) -> Summary:
    """Writes a recording into one file, which appears whole or not at all.

    Args:
        recording: what to write.
        path: the new file; one that exists is replaced.
        secrets: texts to remove from answers, besides secret parameters of addresses.

    Raises:
        UserError: the file cannot be written, or the recording cannot be read.
        Unavailable: the recording's store does not answer.
    """
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        with (
            temporary.open("wb") as raw,
            zstandard.ZstdCompressor(level=9).stream_writer(raw, closefd=False) as stream,
        ):
            summary = _write_lines(recording.entries(), stream, secrets)
        temporary.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise unwritable(error, path) from None
    return summary


def read(path: Path, target: Callable[[], AnyRecording]) -> Summary:
    """Adds the answers of a file to a recording: all of them or none if it is a file; those of a store appear one by one.

    Args:
        path: the file.
        target: opens the recording, which is made if there is none; called when the file was found whole.

    Raises:
        UserError: the file cannot be read, or is damaged, and no recording was made or changed; or this cannot be written.
        Unavailable: the recording's store does not answer. What it has of the answers may remain; import them again.
    """
    inspect(path)  # whole, before the target exists
    with _opened(path) as stream:
        reader = _Reader(stream, path)
        with contextlib.closing(target()) as recording:
            recording.put_all(reader)
    return reader.summary()


def inspect(path: Path) -> Summary:
    """What a file that was exported from a recording holds. Raises UserError if it cannot be read, or is damaged."""
    with _opened(path) as stream:
        reader = _Reader(stream, path)
        for _ in reader:
            pass
    return reader.summary()


def summary_of(recording: AnyRecording) -> Summary:
    """What a recording holds. Raises UserError, Unavailable if it cannot be read."""
    return _write_lines(recording.entries(), _Nowhere(), ())


def is_recording(path: Path) -> bool:
    """Whether a file is a recording itself. Raises UserError if it cannot be read."""
    return _begins(path, _RECORDED)


class _Nowhere(io.RawIOBase):
    """Takes everything and keeps nothing."""

    def write(self, data: Any) -> int:
        return len(data)


class _Tally:
    """Hash and counts of the lines so far."""

    def __init__(self) -> None:
        self._hash, self._answers, self._bytes = blake3(), Counter[str](), 0
        self._times: tuple[float, float] | None = None

    def add_line(self, line: bytes) -> None:
        self._hash.update(line)

    def add(self, entry: Entry) -> None:
        self._answers[entry.tool] += 1
        self._bytes += len(entry.answer)
        first, last = self._times or (entry.recorded, entry.recorded)
        self._times = min(first, entry.recorded), max(last, entry.recorded)

    def trailer(self) -> dict[str, Any]:
        return {"answers": self._answers.total(), "blake3": self._hash.hexdigest()}

    def summary(self) -> Summary:
        first, last = self._times or (None, None)
        return Summary(self._hash.hexdigest(), dict(sorted(self._answers.items())), self._bytes, first, last)


def _write_lines(entries: Iterable[Entry], stream: Any, secrets: Sequence[str]) -> Summary:
    tally = _Tally()
    head = _line({"format": FORMAT})
    tally.add_line(head)
    stream.write(head)
    for entry in entries:
        clean = Entry(entry.key, entry.tool, entry.recorded, entry.expires, redact(entry.answer, secrets))
        line = _line(_document(clean))
        tally.add_line(line)
        tally.add(clean)
        stream.write(line)
    stream.write(_line(tally.trailer()))
    return tally.summary()


def _line(document: dict[str, Any]) -> bytes:
    return json.dumps(document, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode() + b"\n"


def _document(entry: Entry) -> dict[str, Any]:
    document = {"key": entry.key, "tool": entry.tool, "recorded": entry.recorded, "expires": entry.expires}
    try:
        return document | {"text": entry.answer.decode()}
    except UnicodeDecodeError:
        return document | {"base64": base64.b64encode(entry.answer).decode()}


def _entry(document: dict[str, Any]) -> Entry:
    """Raises KeyError, TypeError, ValueError."""
    if "text" in document:
        answer = document["text"].encode()
    else:
        answer = base64.b64decode(document["base64"], validate=True)
    if len(answer) > MAX_ANSWER_BYTES or not isinstance(document["key"], str) or not isinstance(document["tool"], str):
        raise ValueError("not an answer")
    expires = document["expires"]
    return Entry(
        document["key"],
        document["tool"],
        float(document["recorded"]),
        None if expires is None else float(expires),
        answer,
    )


class _Reader:
    """The answers of an exported file, whose hash is checked at its end."""

    def __init__(self, stream: BinaryIO, path: Path) -> None:
        self._stream, self._path, self._tally = stream, path, _Tally()

    def __iter__(self) -> Iterator[Entry]:
        try:
            yield from self._entries()
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError, zstandard.ZstdError) as error:
            raise UserError(
                f"not a recording of format {FORMAT}, or damaged: {str(error)[:200]}",
                where=str(self._path),
                remedy="copy the file again, or export the recording again",
            ) from None

    def _entries(self) -> Iterator[Entry]:
        head = self._next()
        if head != _line({"format": FORMAT}):
            raise ValueError("its first line names another format")
        self._tally.add_line(head)
        while True:
            line = self._next()
            document = json.loads(line)
            if "blake3" in document:
                if document != self._tally.trailer() or self._stream.readline(1):
                    raise ValueError("its content does not agree with its hash")
                return
            entry = _entry(document)
            self._tally.add_line(line)
            self._tally.add(entry)
            yield entry

    def _next(self) -> bytes:
        line = self._stream.readline(MAX_LINE)
        if not line.endswith(b"\n"):
            raise ValueError("it ends early" if len(line) < MAX_LINE else "a line is too long")
        return line

    def summary(self) -> Summary:
        return self._tally.summary()


def _begins(path: Path, magic: bytes) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(len(magic)) == magic
    except OSError as error:
        raise UserError(f"cannot read: {error.strerror}", where=str(path)) from None


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    """The decompressed lines of an exported file."""
    if _begins(path, _RECORDED):
        remedy = f"`gog recording export {path} FILE` makes one"
        raise UserError("a recording, not a file that was exported from one", where=str(path), remedy=remedy)
    if not _begins(path, _EXPORTED):
        remedy = "copy the file again, or export the recording again"
        raise UserError("not a file of `gog recording export`, or damaged at its start", where=str(path), remedy=remedy)
    with path.open("rb") as file, zstandard.ZstdDecompressor(max_window_size=1 << 27).stream_reader(file) as raw:
        yield io.BufferedReader(raw, 1 << 20)

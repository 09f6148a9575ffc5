"""Standard output that may disappear, fill up, or use a narrow encoding.

A run must not depend on the reader of its output: `gog run FILE | head -1` closes the pipe after one line, a full disk
refuses every write, and a terminal may not know the characters that gog prints. `gog run` therefore continues without
output (its events are also in the run folder), while commands whose purpose is their output report the failure.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import Any, TextIO


class TolerantStream:
    """A text stream whose write errors are not raised: after the first one, the output is discarded.

    The file descriptor is redirected to the null device, so that the interpreter's flush at exit succeeds too.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Writes text, or discards it after a failure. Returns the number of characters."""
        with self._tolerated():
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        """Flushes, or discards what could not be written."""
        with self._tolerated():
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    @contextlib.contextmanager
    def _tolerated(self) -> Iterator[None]:
        try:
            yield
        except OSError:
            discard(self._stream)


def discard(stream: TextIO) -> None:
    """Redirects a stream's file descriptor to the null device; a stream without a descriptor is left alone."""
    with contextlib.suppress(OSError, ValueError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, stream.fileno())
        os.close(null)


@contextlib.contextmanager
def tolerant() -> Iterator[None]:
    """Makes standard output and standard error tolerant for the duration of a block."""
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = TolerantStream(before[0]), TolerantStream(before[1])
    try:
        yield
        sys.stdout.flush()
    finally:
        sys.stdout, sys.stderr = before


def replace_unencodable() -> None:
    """Prints a question mark for each character that the output's encoding does not have, rather than failing."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="replace")


def is_unicode(stream: TextIO) -> bool:
    """Whether a stream can encode every character."""
    return (getattr(stream, "encoding", None) or "").lower().replace("-", "").startswith("utf")

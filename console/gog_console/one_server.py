"""A server of `gog serve` that a command starts for itself, as long as it needs it."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from gog.errors import UserError


@contextlib.contextmanager
def started(role: str, arguments: Sequence[str], *, seconds: float, where: str) -> Iterator[str]:
    """Starts a server, and stops it afterwards; it also ends with this process.

    Args:
        role: as in `gog serve ROLE`
        arguments: of its command line
        seconds: in which it must become ready
        where: what the user gave, for messages

    Returns:
        Its address.

    Raises:
        UserError: it ends before it is ready, or takes too long.
    """
    with tempfile.TemporaryDirectory(prefix=f"gog-{role}-") as folder:
        ready, errors = Path(folder) / "ready.json", Path(folder) / "errors"
        line = [sys.executable, "-m", "gog_console", "serve", role, *arguments]
        line += ["--ready-file", str(ready), "--exit-with-parent"]
        with errors.open("wb") as stream, subprocess.Popen(line, stdout=stream, stderr=stream) as server:
            try:
                yield _wait(role, server, ready, errors, seconds, where)
            finally:
                server.terminate()


def _wait(role: str, server: subprocess.Popen[bytes], ready: Path, errors: Path, seconds: float, where: str) -> str:
    deadline = time.monotonic() + seconds
    while not ready.exists():
        if server.poll() is not None:
            last = errors.read_text("utf-8", "replace").strip().splitlines()
            raise UserError(last[-1] if last else f"the {role}'s server did not start", where=where)
        if time.monotonic() > deadline:
            raise UserError(f"the {role}'s server is not ready after {seconds:g} s", where=where)
        time.sleep(0.05)
    return str(json.loads(ready.read_text())["url"])

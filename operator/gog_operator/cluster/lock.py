"""One control loop a run folder: an flock that the kernel gives back when its holder dies, however it dies."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

from gog.errors import UserError
from gog_operator import hints
from gog_operator.cluster.files import explained

FILE = ".gog.lock"
LOOKS, LOOK_SECONDS = 50, 0.01
"""How often and for how long a taker gives way to those who only look."""


class RunLock:
    """Held from `with` to its end. Raises UserError that names the holder."""

    def __init__(self, folder: Path, wait: Callable[[float], None] = time.sleep) -> None:
        self.folder = folder
        self._wait = wait
        self._handle: int | None = None

    def __enter__(self) -> RunLock:
        with explained(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            handle = os.open(self.folder / FILE, os.O_RDWR | os.O_CREAT, 0o644)
        if not self._take(handle):
            os.close(handle)
            raise UserError(
                f"is in use by process {holder(self.folder) or 'unknown'}",
                where=str(self.folder),
                remedy=f"wait for it, or end it with `{hints.call('cancel', self.folder)}`",
            )
        os.ftruncate(handle, 0)
        os.pwrite(handle, f"{os.getpid()}\n".encode(), 0)
        self._handle = handle
        return self

    def _take(self, handle: int) -> bool:
        """A lock that nobody has put a number to is somebody's look at it (`holder`), over in a moment."""
        for _ in range(LOOKS):
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return True
            except BlockingIOError:
                if holder(self.folder) is not None:
                    return False
                self._wait(LOOK_SECONDS)
        return False

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None


def holder(folder: Path) -> int | None:
    """Process id of whoever holds the folder, None when nobody does."""
    try:
        handle = os.open(folder / FILE, os.O_RDONLY)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        text = os.pread(handle, 32, 0).decode(errors="replace").strip()
        return int(text) if text.isdigit() else None
    finally:
        os.close(handle)
    return None

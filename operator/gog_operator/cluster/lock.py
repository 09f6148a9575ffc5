"""Allows one control loop per run folder, by an flock, which the kernel releases when its holder exits."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

from gog.errors import UserError
from gog_operator import hints
from gog_operator.cluster.files import as_user_error

FILE = ".gog.lock"
PROBES, PROBE_SECONDS = 50, 0.01
"""Number and interval of retries while the lock is only being probed."""


class RunLock:
    """The lock of a run folder, held inside `with`. Raises UserError that names the holder."""

    def __init__(self, folder: Path, wait: Callable[[float], None] = time.sleep) -> None:
        self.folder = folder
        self._wait = wait
        self._handle: int | None = None

    def __enter__(self) -> RunLock:
        with as_user_error(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            handle = os.open(self.folder / FILE, os.O_RDWR | os.O_CREAT, 0o644)
        if not self._acquire(handle):
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

    def _acquire(self, handle: int) -> bool:
        """Acquires the lock if it is free. A locked file without a process id is only being probed (`holder`)."""
        for _ in range(PROBES):
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return True
            except BlockingIOError:
                if holder(self.folder) is not None:
                    return False
                self._wait(PROBE_SECONDS)
        return False

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None


def holder(folder: Path) -> int | None:
    """Process id of the holder of the folder's lock; None if the lock is free."""
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

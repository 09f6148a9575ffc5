"""File locks between processes. The kernel releases a lock when its holder dies, for whatever reason."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator


@contextlib.contextmanager
def held(handle: int) -> Iterator[None]:
    """Holds the lock of an open file or folder, after waiting for it, and closes the file at the end.

    Args:
        handle: file descriptor; it is closed in every case.
    """
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)

"""Files as locks between processes: the kernel gives one back when its holder dies, however it dies."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator


@contextlib.contextmanager
def held(handle: int) -> Iterator[None]:
    """Waits for the lock of an open file or folder, and closes it at the end. handle: its descriptor."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)

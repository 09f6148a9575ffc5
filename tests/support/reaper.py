"""A pytest plugin: what a test session starts dies with the session, also when pytest is killed with -9.

Problem: tests start API servers, object stores and whole runs, some of them daemons in sessions of their own; fixtures
end them only when pytest lives to run its teardown. Decision: every process started by a session inherits a mark in its
environment, and a small process outside of the session waits for pytest's end, then kills whatever carries the mark.
Forks of pytest show its own environment and so no mark: those the kernel kills. Under make, pytest dies with make.
A worker of pytest-xdist carries the mark of the process that started it, and is a session with a mark of its own.
Only on Linux: elsewhere there is no /proc to find the mark in.

Does not remove folders: the next session removes what a dead one left (`kube.claim_folder`).
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path

MARK = "GOG_TEST_SESSION"
PATIENCE_SECONDS = 20.0
"""For processes that the kernel is slow to end."""


def pytest_configure() -> None:
    from gog_operator import parent_death  # here, because the reaper itself runs without the project

    parent_death.die_with_parent()
    if sys.platform == "linux":
        os.register_at_fork(after_in_child=parent_death.arm)
        os.environ[MARK] = start(os.getpid())


def start(pid: int) -> str:
    """Starts the reaper of a process that is about to start others. Returns the value of MARK for them."""
    mark = f"{pid}-{uuid.uuid4().hex[:12]}"
    environment = {name: value for name, value in os.environ.items() if name != MARK}
    subprocess.Popen(
        [sys.executable, "-I", "-S", __file__, str(pid), mark],
        env=environment,  # without any session's mark: the reaper of an inner session outlives an outer one
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    return mark


def marked(mark: str) -> list[int]:
    """Processes that carry the mark. Zombies have no environment, so they are not among them."""
    needle, found = f"{MARK}={mark}".encode(), []
    for entry in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):  # another user's process, or one that has ended meanwhile
            if needle in entry.read_bytes().split(b"\0"):
                found.append(int(entry.parent.name))
    return found


def reap(pid: int, mark: str) -> None:
    """Waits for the end of a process, then kills everything that carries the mark."""
    with contextlib.suppress(ProcessLookupError):
        watcher = select.poll()
        watcher.register(os.pidfd_open(pid), select.POLLIN)
        watcher.poll()
    end = time.monotonic() + PATIENCE_SECONDS
    while (left := marked(mark)) and time.monotonic() < end:
        for each in left:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(each, signal.SIGKILL)
        time.sleep(0.02)


if __name__ == "__main__":
    reap(int(sys.argv[1]), sys.argv[2])

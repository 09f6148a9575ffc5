"""The processes of a run folder: marked, recorded, and found again by the next control loop after a crash.

A record (`processes/<name>.json`) holds process id and start time, so that an id which the system has reused is never
mistaken for ours. A mark in the environment finds, on Linux, what no record names: processes started in the instant
before a crash, and children of children. Ending is by process group, because a stage may have workers.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from gog_operator import parent_death
from gog_operator.cluster import files

MARK = "GOG_RUN_FOLDER"
"""Environment: the run folder that a process belongs to."""
PROC = Path("/proc")
TAIL_BYTES = 16_384


class Processes:
    """The processes of one run folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.records = folder / "processes"

    def environment(self) -> dict[str, str]:
        """What every process of this run gets besides our own environment.

        One OpenMP thread unless the user sets another number: servers and a stage work at the same time, and threads
        that spin for each other's cores nearly stop each other.
        """
        threads = os.environ.get("OMP_NUM_THREADS", "1")
        return {MARK: str(self.folder), parent_death.PARENT: str(os.getpid()), "OMP_NUM_THREADS": threads}

    def record(self, name: str, pid: int) -> None:
        with files.as_user_error(self.records):
            self.records.mkdir(parents=True, exist_ok=True)
        files.write_atomically(self.records / f"{name}.json", json.dumps({"pid": pid, "started": start_time(pid)}))

    def forget(self, name: str) -> None:
        (self.records / f"{name}.json").unlink(missing_ok=True)

    def leftovers(self) -> set[int]:
        """Process ids of an earlier control loop's processes that still run."""
        return {pid for pid in self._recorded() | marked(str(self.folder)) if pid != os.getpid()}

    def end_leftovers(self, patience: float = 10.0) -> int:
        """Kills what an earlier control loop left behind: a stage may be killed at any moment by design.

        Args:
            patience: seconds to wait for them to be gone.

        Returns:
            How many there were.
        """
        found = self.leftovers()
        deadline = time.monotonic() + patience
        left = found
        while left and time.monotonic() < deadline:
            for pid in left:
                kill_group(pid, signal.SIGKILL)
            time.sleep(0.02)
            left = self.leftovers()
        for path in self.records.glob("*.json"):
            path.unlink(missing_ok=True)
        return len(found)

    def _recorded(self) -> set[int]:
        found = set()
        for path in self.records.glob("*.json"):
            with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
                record = json.loads(path.read_text())
                if record["started"] is not None and start_time(record["pid"]) == record["started"]:
                    found.add(int(record["pid"]))
        return found


def start_time(pid: int) -> str | None:
    """When a process started, in the system's own form; None if there is no such process, or only a zombie."""
    try:
        fields = (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except FileNotFoundError:
        return _start_time_by_ps(pid) if not PROC.is_dir() else None
    except OSError:
        return None
    return None if fields[0] in "ZX" else fields[19]


def _start_time_by_ps(pid: int) -> str | None:
    done = subprocess.run(["ps", "-o", "lstart=", "-p", str(pid)], capture_output=True, text=True, check=False)
    return done.stdout.strip() or None


def marked(folder: str) -> set[int]:
    """Living processes whose environment carries the run folder's mark."""
    needle = f"{MARK}={folder}".encode()
    found = set()
    for entry in PROC.glob("[0-9]*/environ") if PROC.is_dir() else ():
        with contextlib.suppress(OSError):
            pid = int(entry.parent.name)
            if needle in entry.read_bytes().split(b"\0") and start_time(pid) is not None:
                found.add(pid)
    return found


def kill_group(pid: int, number: signal.Signals) -> None:
    """Signals a process that another control loop started, and its group if it leads one."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        if os.getpgid(pid) == pid:
            os.killpg(pid, number)
        else:
            os.kill(pid, number)


def signal_children(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    """Signals every process of a session that we started, also when its leader is dead and its workers are not."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)


def end(processes: Iterable[subprocess.Popen[bytes]], grace: float, hurry: Callable[[], bool] = lambda: False) -> None:
    """Ends processes: SIGTERM, then SIGKILL, which also ends workers that outlived their leader.

    Args:
        processes: those that have ended already are skipped.
        grace: seconds between the two signals.
        hurry: whether not to wait any longer.
    """
    running = [each for each in processes if each.poll() is None]
    for each in running:
        signal_children(each, signal.SIGTERM)
    deadline = time.monotonic() + grace
    while any(each.poll() is None for each in running) and time.monotonic() < deadline and not hurry():
        time.sleep(0.05)
    for each in running:
        signal_children(each, signal.SIGKILL)
        each.wait()


def tail(path: Path, count: int = 20) -> tuple[str, ...]:
    """The last lines of a log, without control characters; none if it cannot be read."""
    try:
        with path.open("rb") as stream:
            stream.seek(0, os.SEEK_END)
            stream.seek(max(0, stream.tell() - TAIL_BYTES))
            text = stream.read().decode("utf-8", errors="replace")
    except OSError:
        return ()
    lines = [line.rpartition("\r")[2] for line in text.splitlines()]  # of a progress bar, its last state
    return tuple("".join(char for char in line if char.isprintable() or char == "\t") for line in lines[-count:])

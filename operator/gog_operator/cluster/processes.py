"""Processes of a run folder: started with a mark, recorded, and found again by whoever comes after a crash.

A record (`processes/<name>.json`) holds process id and start time, so that a number used again by the system is never
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
PROC = Path("/proc")


class Processes:
    """The processes of one run folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.records = folder / "processes"

    def environment(self) -> dict[str, str]:
        """What every process of this run is started with. One OpenMP thread unless the user says otherwise: servers and
        a stage work at the same time, and threads that spin for each other's cores all but stop."""
        threads = os.environ.get("OMP_NUM_THREADS", "1")
        return {MARK: str(self.folder), parent_death.PARENT: str(os.getpid()), "OMP_NUM_THREADS": threads}

    def record(self, name: str, pid: int) -> None:
        with files.explained(self.records):
            self.records.mkdir(parents=True, exist_ok=True)
        files.write_whole(self.records / f"{name}.json", json.dumps({"pid": pid, "started": start_time(pid)}))

    def forget(self, name: str) -> None:
        (self.records / f"{name}.json").unlink(missing_ok=True)

    def leftovers(self) -> set[int]:
        """Process ids of an earlier life that still run."""
        return {pid for pid in self._recorded() | marked(str(self.folder)) if pid != os.getpid()}

    def end_leftovers(self, patience: float = 10.0) -> int:
        """Kills what an earlier life left behind; returns how many. A stage may be killed at any moment by design."""
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
                told = json.loads(path.read_text())
                if told["started"] is not None and start_time(told["pid"]) == told["started"]:
                    found.add(int(told["pid"]))
        return found


def start_time(pid: int) -> str | None:
    """When a process began, as the system tells it; None when there is no such process (or only its corpse)."""
    try:
        fields = (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except FileNotFoundError:
        return _start_time_by_ps(pid) if not PROC.is_dir() else None
    except OSError:
        return None
    return None if fields[0] in "ZX" else fields[19]


def _start_time_by_ps(pid: int) -> str | None:
    told = subprocess.run(["ps", "-o", "lstart=", "-p", str(pid)], capture_output=True, text=True, check=False)
    return told.stdout.strip() or None


def marked(folder: str) -> set[int]:
    """Living processes whose environment carries the run's mark."""
    needle = f"{MARK}={folder}".encode()
    found = set()
    for entry in PROC.glob("[0-9]*/environ") if PROC.is_dir() else ():
        with contextlib.suppress(OSError):
            pid = int(entry.parent.name)
            if needle in entry.read_bytes().split(b"\0") and start_time(pid) is not None:
                found.add(pid)
    return found


def kill_group(pid: int, number: signal.Signals) -> None:
    """Signals a process of an earlier life, and its group where it leads one."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        if os.getpgid(pid) == pid:
            os.killpg(pid, number)
        else:
            os.kill(pid, number)


def signal_children(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    """Signals all of a session that we started, also when its leader is dead and its workers are not."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)


def end(processes: Iterable[subprocess.Popen[bytes]], grace: float, hurry: Callable[[], bool] = lambda: False) -> None:
    """SIGTERM to all that run; SIGKILL after `grace` seconds, at once when hurried, and to workers that were left."""
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
    """The last lines of a log, without control characters."""
    try:
        with path.open("rb") as stream:
            stream.seek(0, os.SEEK_END)
            stream.seek(max(0, stream.tell() - 16_384))
            text = stream.read().decode("utf-8", errors="replace")
    except OSError:
        return ()
    lines = [line.rpartition("\r")[2] for line in text.splitlines()]
    return tuple("".join(char for char in line if char.isprintable() or char == "\t") for line in lines[-count:])

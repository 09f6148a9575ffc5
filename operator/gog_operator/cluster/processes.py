"""The processes of a run folder, which the next control loop can find again after a crash.

A record (`processes/<name>.json`) holds process id and start time, so that a process id which the system has reused is
never mistaken for ours. On Linux, an environment variable also identifies processes without a record: those started
just before a crash, and grandchildren. Whole process groups are ended, because a stage may have workers.
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
"""Environment variable that holds the run folder of a process."""
PROC = Path("/proc")
TAIL_BYTES = 16_384
"""Bytes that are read from the end of a log."""


class Processes:
    """The processes of one run folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.records = folder / "processes"

    def environment(self) -> dict[str, str]:
        """Environment variables of every process of this run, in addition to our own environment.

        One OpenMP thread by default, because servers and a stage run at the same time, and more spinning threads than
        cores slow each other down severely.
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
        """Process ids that an earlier control loop left running."""
        return {pid for pid in self._recorded() | marked(str(self.folder)) if pid != os.getpid()}

    def end_leftovers(self, patience: float = 10.0) -> int:
        """Kills the processes that an earlier control loop left running. Stages are safe to kill at any time.

        Args:
            patience: Seconds to wait until they have exited.

        Returns:
            The number of these processes.
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
    """When a process started, in the system's format; None if it does not exist or is a zombie."""
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
    """Ids of running processes whose environment names the run folder."""
    needle = f"{MARK}={folder}".encode()
    found = set()
    for entry in PROC.glob("[0-9]*/environ") if PROC.is_dir() else ():
        with contextlib.suppress(OSError):
            pid = int(entry.parent.name)
            if needle in entry.read_bytes().split(b"\0") and start_time(pid) is not None:
                found.add(pid)
    return found


def kill_group(pid: int, number: signal.Signals) -> None:
    """Signals a process that another control loop started, or its whole group if it is the group's leader."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        if os.getpgid(pid) == pid:
            os.killpg(pid, number)
        else:
            os.kill(pid, number)


def signal_children(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    """Signals every process of a session that we started, even if only workers of it are still alive."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)


def kill_orphans(process: subprocess.Popen[bytes]) -> None:
    """Kills the workers that outlived a leader, which may hold the memory of a GPU. Leaves a leader that runs alone."""
    if process.poll() is not None and start_time(process.pid) is None:  # else the system has reused its id
        signal_children(process, signal.SIGKILL)


def end(processes: Iterable[subprocess.Popen[bytes]], grace: float, hurry: Callable[[], bool] = lambda: False) -> None:
    """Ends processes by SIGTERM, then by SIGKILL, which also ends workers that outlived their leader.

    Args:
        processes: Leaders of the sessions; of those that have already exited, workers are killed at once.
        grace: Seconds between the two signals.
        hurry: Whether to stop waiting.
    """
    given = list(processes)
    running = [each for each in given if each.poll() is None]
    for each in given:
        kill_orphans(each)
    for each in running:
        signal_children(each, signal.SIGTERM)
    deadline = time.monotonic() + grace
    while any(each.poll() is None for each in running) and time.monotonic() < deadline and not hurry():
        time.sleep(0.05)
    for each in running:
        signal_children(each, signal.SIGKILL)
        each.wait()


def tail(path: Path, count: int = 20) -> tuple[str, ...]:
    """The last lines of a log, without control characters; empty if it cannot be read."""
    try:
        with path.open("rb") as stream:
            stream.seek(0, os.SEEK_END)
            stream.seek(max(0, stream.tell() - TAIL_BYTES))
            text = stream.read().decode("utf-8", errors="replace")
    except OSError:
        return ()
    lines = [line.rpartition("\r")[2] for line in text.splitlines()]  # keep a progress bar's last state
    return tuple("".join(char for char in line if char.isprintable() or char == "\t") for line in lines[-count:])

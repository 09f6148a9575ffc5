"""What one side of the comparison costs, and the lines in which it reports that. Standard library only."""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

Handler = Callable[[dict[str, Any]], dict[str, Any]]


def cpu_seconds() -> float:
    """CPU time of this process, all of its threads, and of its children that have ended."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def memory(name: str) -> int:
    """Bytes of this process's memory: VmRSS now, or VmHWM at its peak."""
    with open("/proc/self/status") as lines:
        return next(1024 * int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))


def queued_seconds() -> float:
    """Seconds for which the main thread was ready and had no core, because other processes had them all."""
    with open("/proc/self/schedstat") as found:
        return int(found.read().split()[1]) / 1e9


@dataclass
class Marks:
    """CPU and wall seconds of the parts of a step, each since the mark before."""

    cpu: dict[str, float] = field(default_factory=dict)
    """CPU seconds by part."""
    wall: dict[str, float] = field(default_factory=dict)
    """Wall seconds by part."""
    own_wall: dict[str, float] = field(default_factory=dict)
    """Wall seconds by part, without those in which the main thread waited for a core."""
    _last: tuple[float, float, float] = field(default_factory=lambda: _now())

    def mark(self, part: str) -> None:
        """Ends a part."""
        now = _now()
        for table, end, begin in zip((self.cpu, self.wall, self.own_wall), now, self._last, strict=True):
            table[part] = table.get(part, 0.0) + end - begin
        self._last = now

    def report(self) -> dict[str, Any]:
        """The seconds, and the process's memory."""
        return {
            "cpu": self.cpu,
            "wall": self.wall,
            "own_wall": self.own_wall,
            "rss": memory("VmRSS"),
            "peak": memory("VmHWM"),
        }


def _now() -> tuple[float, float, float]:
    wall = time.monotonic()
    return cpu_seconds(), wall, wall - queued_seconds()


class Channel:
    """Commands in, one JSON object a line, and answers out in the same form. Whatever else prints goes to stderr."""

    def __init__(self) -> None:
        self._out = os.fdopen(os.dup(1), "w")
        os.dup2(2, 1)
        sys.stdout = sys.stderr

    def send(self, answer: dict[str, Any]) -> None:
        """Answers a command."""
        print(json.dumps(answer), file=self._out, flush=True)

    def commands(self) -> Iterator[dict[str, Any]]:
        """Commands until the other end closes."""
        for line in sys.stdin:
            yield json.loads(line)

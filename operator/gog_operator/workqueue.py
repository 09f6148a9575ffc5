"""Keys of objects that want a pass: each once however often it is added, by one worker at a time, never before it is due.

A key that is added while a worker has it is handed out again afterwards, because the worker may have looked before the
event. A failed pass is repeated after a wait that doubles from one second to five minutes and is scattered, so that an
outage does not end in a stampede. Nothing is kept on disk: what is lost with the process, the next resync finds.
"""

from __future__ import annotations

import heapq
import random
import threading
import time
from collections.abc import Callable
from typing import NamedTuple

FIRST_WAIT = 1.0
LONGEST_WAIT = 300.0
IDLE = 3600.0
"""Seconds that a worker sleeps without a key; an added one wakes it."""


class Key(NamedTuple):
    """An object."""

    kind: str
    """`GoGRun`"""
    namespace: str
    """Where it is."""
    name: str
    """Its name."""


class WorkQueue:
    """The queue.

    Args:
        clock: seconds that only grow.
        scatter: a random number in [0, 1), by which waits after failures vary.
    """

    def __init__(
        self, clock: Callable[[], float] = time.monotonic, scatter: Callable[[], float] = random.random
    ) -> None:
        self._clock, self._scatter = clock, scatter
        self._due: dict[Key, float] = {}
        self._heap: list[tuple[float, Key]] = []
        self._working: dict[Key, float] = {}
        self._failures: dict[Key, int] = {}
        self._changed = threading.Condition()
        self._closed = False

    def add(self, key: Key, after: float = 0.0) -> None:
        """Wants a pass in `after` seconds; the earliest time counts."""
        with self._changed:
            self._want(key, self._clock() + max(0.0, after))

    def take(self) -> tuple[Key | None, float]:
        """A due key, which counts as in work from now on; or None and the seconds until one may be due."""
        with self._changed:
            return self._take()

    def wait(self) -> Key | None:
        """Blocks until a key is due, and takes it; None once the queue is closed."""
        with self._changed:
            while not self._closed:
                key, seconds = self._take()
                if key is not None:
                    return key
                self._changed.wait(seconds)
            return None

    def done(self, key: Key, again: float | None = None) -> None:
        """Ends a pass that succeeded. again: seconds until another one; None for none."""
        with self._changed:
            self._failures.pop(key, None)
            self._finish(key, again)

    def failed(self, key: Key, after: float = 0.0) -> float:
        """Ends a pass that failed. after: least seconds until it is repeated. Returns the seconds until then."""
        with self._changed:
            count = self._failures[key] = self._failures.get(key, 0) + 1
            wait = min(FIRST_WAIT * 2 ** min(count - 1, 30), LONGEST_WAIT)
            seconds = max(after, wait * (0.5 + self._scatter()))
            self._finish(key, seconds)
            return seconds

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def depth(self) -> int:
        """Keys that are due and not in work."""
        with self._changed:
            now = self._clock()
            return sum(due <= now for key, due in self._due.items() if key not in self._working)

    def oldest(self) -> float:
        """Seconds for which the oldest of them has been due."""
        with self._changed:
            now = self._clock()
            return max((0.0, *(now - due for key, due in self._due.items() if key not in self._working)))

    def working(self) -> int:
        """Passes in work."""
        with self._changed:
            return len(self._working)

    def longest_pass(self) -> float:
        """Seconds that the longest pass in work has taken so far."""
        with self._changed:
            return max((self._clock() - begun for begun in self._working.values()), default=0.0)

    def _want(self, key: Key, due: float) -> None:
        if key in self._due and self._due[key] <= due:
            return
        self._due[key] = due
        if key not in self._working:
            heapq.heappush(self._heap, (due, key))
            self._changed.notify()

    def _take(self) -> tuple[Key | None, float]:
        now = self._clock()
        while self._heap:
            due, key = self._heap[0]
            if self._due.get(key) != due or key in self._working:  # replaced by an earlier time, or in work
                heapq.heappop(self._heap)
                continue
            if due > now:
                return None, due - now
            heapq.heappop(self._heap)
            del self._due[key]
            self._working[key] = now
            return key, 0.0
        return None, IDLE

    def _finish(self, key: Key, again: float | None) -> None:
        self._working.pop(key, None)
        if again is not None:
            self._want(key, self._clock() + max(0.0, again))
        if key in self._due:
            heapq.heappush(self._heap, (self._due[key], key))
            self._changed.notify()

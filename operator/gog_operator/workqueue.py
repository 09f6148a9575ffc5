"""Queue of the objects that need a pass, without duplicates. One worker at a time processes a key, once it is due.

A key that is added during its pass is processed again afterwards, because the worker may have read the object before
the event. Failed passes are retried with exponential backoff from one second to five minutes, with jitter against
stampedes after an outage. The queue is not persistent; after a restart, the resync fills it again.
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
"""Seconds that a worker sleeps while the queue is empty; a new key wakes it."""


class Key(NamedTuple):
    """Identifies an object."""

    kind: str
    """Kind, such as `GoGRun`."""
    namespace: str
    """Namespace."""
    name: str
    """Name."""


class WorkQueue:
    """The queue.

    Args:
        clock: Monotonic time in seconds.
        scatter: Returns a random number in [0, 1), the jitter of waits after failures.
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
        """Requests a pass in `after` seconds; the earliest requested time applies."""
        with self._changed:
            self._want(key, self._clock() + max(0.0, after))

    def take(self) -> tuple[Key | None, float]:
        """Takes a due key, whose pass starts now; otherwise returns None and the seconds until a key may be due."""
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
        """Ends a successful pass. again: seconds until the next one; None for none."""
        with self._changed:
            self._failures.pop(key, None)
            self._finish(key, again)

    def failed(self, key: Key, after: float = 0.0) -> float:
        """Ends a failed pass. after: minimum delay of the retry in seconds. Returns the actual delay."""
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
        """Number of keys that are due and have no pass in progress."""
        with self._changed:
            now = self._clock()
            return sum(due <= now for key, due in self._due.items() if key not in self._working)

    def oldest(self) -> float:
        """Seconds for which the oldest of these keys has been due."""
        with self._changed:
            now = self._clock()
            return max((0.0, *(now - due for key, due in self._due.items() if key not in self._working)))

    def working(self) -> int:
        """Number of passes in progress."""
        with self._changed:
            return len(self._working)

    def longest_pass(self) -> float:
        """Duration so far of the longest pass in progress, in seconds."""
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
            if self._due.get(key) != due or key in self._working:  # replaced by an earlier time, or in progress
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

"""Keys that want a pass: each once however often it is asked for, by one worker at a time, no sooner than it is due.

A key that is asked for while a worker has it is handed out again afterwards, because the worker may have looked before
what it was asked for happened. A pass that failed comes back after a wait that doubles from one second to five minutes
and is scattered, so that an outage does not end in a stampede. Nothing is kept on disk: what is lost with the process,
the next resync finds.
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


class Key(NamedTuple):
    kind: str
    namespace: str
    name: str


class WorkQueue:
    """clock: seconds that only grow; scatter: a number in [0, 1)."""

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
        """Asks for a pass in `after` seconds; the earliest wish counts."""
        with self._changed:
            self._want(key, self._clock() + max(0.0, after))

    def take(self) -> tuple[Key | None, float]:
        """A key that is due, now in work; or None and the seconds until one may be."""
        with self._changed:
            return self._take()

    def wait(self) -> Key | None:
        """The next key that is due; None once the queue is closed."""
        with self._changed:
            while not self._closed:
                key, seconds = self._take()
                if key is not None:
                    return key
                self._changed.wait(seconds)
            return None

    def done(self, key: Key, again: float | None = None) -> None:
        """The pass went well; another one in `again` seconds."""
        with self._changed:
            self._failures.pop(key, None)
            self._finish(key, again)

    def failed(self, key: Key, after: float = 0.0) -> float:
        """The pass did not work out: again later, not before `after` seconds. Returns in how many."""
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
        """Keys that are due and that nobody has taken."""
        with self._changed:
            now = self._clock()
            return sum(due <= now for key, due in self._due.items() if key not in self._working)

    def oldest(self) -> float:
        """Seconds that the longest waiting of them has been due."""
        with self._changed:
            now = self._clock()
            return max((0.0, *(now - due for key, due in self._due.items() if key not in self._working)))

    def working(self) -> int:
        """Passes under way."""
        with self._changed:
            return len(self._working)

    def longest_pass(self) -> float:
        """Seconds that the longest of the passes under way has taken so far."""
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
            if self._due.get(key) != due or key in self._working:  # taken by an earlier wish
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

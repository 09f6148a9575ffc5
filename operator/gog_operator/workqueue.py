"""Queue of the objects that need a pass, without duplicates. One worker at a time processes a key, once it is due.

A key that is added during its pass is processed again afterwards, because the worker may have read the object before
the event. Failed passes are retried with exponential backoff from one second to five minutes, with jitter against
stampedes after an outage. The queue is not persistent; after a restart, the resync fills it again.

Namespaces belong to different tenants and share the workers. Of the namespaces with due keys, the one with the fewest
passes in progress is next, and among equals the one that has waited longest since its last pass. The passes of one
namespace never occupy all workers. Passes of one key are limited to a rate, because an object that changes all the time
would otherwise cost requests without end; the passes of all keys may be limited, too.
"""

from __future__ import annotations

import heapq
import math
import random
import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Callable
from typing import NamedTuple

FIRST_WAIT = 1.0
LONGEST_WAIT = 300.0
IDLE = 3600.0
"""Seconds that a worker sleeps while the queue is empty; a new key wakes it."""
INTERVAL = 1.0
"""Seconds between two passes of one key, on average."""
BURST = 10
"""Passes of one key without that interval, after a time without passes."""


class Key(NamedTuple):
    """Identifies an object."""

    kind: str
    """Kind, such as `GoGRun`."""
    namespace: str
    """Namespace."""
    name: str
    """Name."""


ALL = Key("", "", "")
"""Stands for all keys together, where their common rate is limited."""


class WorkQueue:
    """The queue.

    Args:
        clock: Monotonic time in seconds.
        scatter: Returns a random number in [0, 1), the jitter of waits after failures.
        workers: Number of workers; one namespace has at most one pass fewer in progress.
        rate: Passes per second of all keys together; None for no limit.
    """

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        scatter: Callable[[], float] = random.random,
        workers: int | None = None,
        rate: float | None = None,
    ) -> None:
        self._clock, self._scatter = clock, scatter
        self._most = None if workers is None else max(1, workers - 1)
        self._total = None if rate is None else Pace(1 / rate, max(1, int(rate)))
        self._due: dict[Key, float] = {}
        self._later: list[tuple[float, Key]] = []
        self._ready: dict[str, OrderedDict[Key, None]] = {}  # keys that are due, by namespace; the next of each first
        self._working: dict[Key, float] = {}
        self._passes: Counter[str] = Counter()  # in progress, by namespace
        self._pace = Pace(INTERVAL, BURST)
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
        due = max(due, self._pace.earliest(key))
        if key in self._due and self._due[key] <= due:
            return
        self._due[key] = due
        if key not in self._working:
            self._enqueue(key)

    def _enqueue(self, key: Key) -> None:
        heapq.heappush(self._later, (self._due[key], key))
        self._changed.notify()

    def _take(self) -> tuple[Key | None, float]:
        now = self._clock()
        self._sort(now)
        free = [each for each in self._ready if self._most is None or self._passes[each] < self._most]
        if not free:
            return None, self._later[0][0] - now if self._later else IDLE
        if self._total is not None and (early := self._total.earliest(ALL) - now) > 0:
            return None, early
        namespace = min(free, key=self._passes.__getitem__)
        keys = self._ready.pop(namespace)
        key, _ = keys.popitem(last=False)
        if keys:
            self._ready[namespace] = keys  # behind the other namespaces
        del self._due[key]
        self._working[key] = now
        self._passes[namespace] += 1
        self._pace.record(key, now)
        if self._total is not None:
            self._total.record(ALL, now)
        return key, 0.0

    def _sort(self, now: float) -> None:
        """Moves the keys that are due to their namespaces."""
        while self._later:
            due, key = self._later[0]
            outdated = self._due.get(key) != due or key in self._working  # replaced by an earlier time, or in progress
            if due > now and not outdated:
                return
            heapq.heappop(self._later)
            if not outdated:
                self._ready.setdefault(key.namespace, OrderedDict())[key] = None

    def _finish(self, key: Key, again: float | None) -> None:
        if self._working.pop(key, None) is not None:
            self._passes[key.namespace] -= 1
            if not self._passes[key.namespace]:
                del self._passes[key.namespace]
            self._changed.notify()  # a worker may be waiting because this namespace had its share
        if key in self._due:
            self._enqueue(key)
        if again is not None:
            self._want(key, self._clock() + max(0.0, again))


class Pace:
    """Limits the rate of passes of each key.

    Args:
        interval: Seconds between two passes, on average.
        burst: Passes without that interval, after a time without passes.

    Source:
        The generic cell rate algorithm, ITU-T I.371.
    """

    def __init__(self, interval: float, burst: int) -> None:
        self._interval, self._tolerance = interval, (burst - 1) * interval
        self._expected: dict[Key, float] = {}  # time of the next pass at exactly the average rate
        self._most = 1024

    def earliest(self, key: Key) -> float:
        """Time from which a pass of the key is permitted."""
        return self._expected.get(key, -math.inf) - self._tolerance

    def record(self, key: Key, now: float) -> None:
        """Counts a pass that starts now."""
        self._expected[key] = max(self._expected.get(key, now), now) + self._interval
        if len(self._expected) > self._most:
            self._expected = {each: time for each, time in self._expected.items() if time > now}
            self._most = max(1024, 2 * len(self._expected))

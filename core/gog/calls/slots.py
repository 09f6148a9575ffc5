"""Places for the calls of one tool: many while its server keeps up, fewer while it does not.

Every conversation may have a call in flight, so a fixed small number makes a rollout wait for its own queue, and a fixed
large one buries a server that answers one call after the other: queued there, calls run into their deadlines. So a few
places are given first. While calls wait for a place, every answer adds one, up to the bound. The places are halved when a
share of the latest calls was not answered in time or was refused as one of too many, once for all calls that were in flight
then; from then on it takes as many answers as there are places to add one.

A share, not a single call: a server on the internet loses one call in a hundred at any load, and fewer places do not
prevent that. Halved at each of them, the places would stay near their fewest (additive increase, multiplicative decrease,
with losses that do not depend on the load).
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping
from types import TracebackType

from gog.tool_types import FailureKind

OVERLOAD = frozenset({FailureKind.TIMEOUT, FailureKind.RATE_LIMITED})
"""Failures after which fewer calls are sent at once."""
TOLERATED, MEMORY = 0.2, 32
"""Share of such failures that takes no places; calls over which it is averaged (exponentially)."""
FEWEST, FIRST = 4, 16
"""Places that always remain, and those that are given first, unless the bound is lower."""


def of_process(most: int, environment: Mapping[str, str]) -> int:
    """This process's part of a stage's places, at least 1. torchrun describes the processes of a stage in the environment.

    >>> of_process(256, {"WORLD_SIZE": "8"}), of_process(4, {"WORLD_SIZE": "8"}), of_process(16, {})
    (32, 1, 16)
    """
    return max(1, most // int(environment.get("WORLD_SIZE", "1")))


class Slots:
    """Used as `async with`; calls get places in the order in which they asked.

    Args:
        most: places, at most
        clock: seconds; only differences matter
    """

    def __init__(self, most: int, clock: Callable[[], float]) -> None:
        self._most, self._clock = most, clock
        self._limit, self._reduced_at = float(min(most, FIRST)), float("-inf")
        self._overloaded = 0.0
        self._taken = 0
        self._queue: deque[asyncio.Future[None]] = deque()

    @property
    def limit(self) -> int:
        """Places now."""
        return int(self._limit)

    def locked(self) -> bool:
        """Whether a call would have to wait for a place."""
        return self._taken >= self.limit or bool(self._queue)

    async def acquire(self) -> None:
        """Waits for a place."""
        if not self.locked():
            self._taken += 1
            return
        waiter = asyncio.get_running_loop().create_future()
        self._queue.append(waiter)
        try:
            await waiter
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled():  # got its place, and cannot use it any more
                self.release()
            raise

    def release(self) -> None:
        """Gives a place back."""
        self._taken -= 1
        self._hand_out()

    async def __aenter__(self) -> None:
        await self.acquire()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    def answered(self) -> None:
        """The server has answered a call."""
        self._overloaded *= 1 - 1 / MEMORY
        if self._queue:
            step = 1.0 if self._reduced_at == float("-inf") else 1 / self._limit
            self._limit = min(float(self._most), self._limit + step)
            self._hand_out()

    def failed(self, kind: FailureKind, began: float) -> None:
        """A call has failed. began: when it was sent, on the clock."""
        if kind not in OVERLOAD or began < self._reduced_at:
            return
        self._overloaded += (1 - self._overloaded) / MEMORY
        if self._overloaded > TOLERATED:
            self._limit = max(min(self._most, FEWEST), self._limit / 2)
            self._reduced_at, self._overloaded = self._clock(), 0.0

    def _hand_out(self) -> None:
        while self._queue and self._taken < self.limit:
            waiter = self._queue.popleft()
            if not waiter.done():
                self._taken += 1
                waiter.set_result(None)

"""Places for the calls of one tool: many while its server keeps up, fewer while it does not.

Every conversation may have a call in flight, so a fixed small number makes a rollout wait for its own queue, and a fixed
large one buries a server that answers one call after the other: queued there, calls run into their deadlines. So a few
places are given first. While calls wait for a place, every answer adds one, up to the bound. The places are halved when a
call is not answered in time or is refused as one of too many, once for all calls that were in flight then; from then on
it takes as many answers as there are places to add one.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from types import TracebackType

from gog.tool_types import FailureKind

OVERLOAD = frozenset({FailureKind.TIMEOUT, FailureKind.RATE_LIMITED})
"""Failures after which fewer calls are sent at once."""
FEWEST, FIRST = 4, 16
"""Places that always remain, and those that are given first, unless the bound is lower."""


class Slots:
    """Used as `async with`; calls get places in the order in which they asked.

    Args:
        most: places, at most
        clock: seconds; only differences matter
    """

    def __init__(self, most: int, clock: Callable[[], float]) -> None:
        self._most, self._clock = most, clock
        self._limit, self._reduced_at = float(min(most, FIRST)), float("-inf")
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
        if self._queue:
            step = 1.0 if self._reduced_at == float("-inf") else 1 / self._limit
            self._limit = min(float(self._most), self._limit + step)
            self._hand_out()

    def failed(self, kind: FailureKind, began: float) -> None:
        """A call has failed. began: when it was sent, on the clock."""
        if kind in OVERLOAD and began >= self._reduced_at:
            self._limit = max(min(self._most, FEWEST), self._limit / 2)
            self._reduced_at = self._clock()

    def _hand_out(self) -> None:
        while self._queue and self._taken < self.limit:
            waiter = self._queue.popleft()
            if not waiter.done():
                self._taken += 1
                waiter.set_result(None)

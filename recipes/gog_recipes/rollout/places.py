"""Places of groups in the engine: the earliest step has the first claim, whenever its groups began to wait.

A step that is due may still need groups: those that replace groups without a signal, or those of a step that failures
spoiled. First come, first served would put them behind every group of the later steps that are played ahead, and the trainer
would wait for groups that it needs only after them.
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import itertools
from collections.abc import AsyncIterator


class Places:
    """Some places.

    Args:
        count: groups at once
    """

    def __init__(self, count: int) -> None:
        self._free, self._arrivals = count, itertools.count()
        self._queue: list[tuple[int, int, asyncio.Future[None]]] = []

    @contextlib.asynccontextmanager
    async def of(self, step: int) -> AsyncIterator[None]:
        """A place for a group of a step, which waits for one; equal steps in the order in which they asked."""
        await self._acquire(step)
        try:
            yield
        finally:
            self._release()

    async def _acquire(self, step: int) -> None:
        if self._free:
            self._free -= 1
            return
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._queue, (step, next(self._arrivals), waiter))
        try:
            await waiter
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled():  # got its place, and cannot use it any more
                self._release()
            raise

    def _release(self) -> None:
        while self._queue:
            *_, waiter = heapq.heappop(self._queue)
            if not waiter.done():
                waiter.set_result(None)
                return
        self._free += 1

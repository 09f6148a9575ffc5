"""Work of an event loop's callers, done in another thread, in batches.

A file that is locked or on a slow disk must not stop the loop that owns the sockets. Hopping to another thread and back
costs more than a read of a small file, so what arrives while the thread is busy is handed to it together; for writes, one
commit then serves many callers (`Batches`). Requests to a server are made side by side instead, each in a thread (`Singly`).
Callers wait for their own result. At most `limit` of them are in the queue.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from typing import Generic, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

log = logging.getLogger(__name__)


class Batches(Generic[Item, Result]):
    """Calls a function with the items of several callers. Used in one event loop."""

    def __init__(self, work: Callable[[Sequence[Item]], Sequence[Result]], executor: Executor, limit: int) -> None:
        """
        Args:
            work: items -> a result for each, in order; called in the executor. Its exception is raised for each item.
            executor: runs it.
            limit: most items that are queued or worked on; further callers wait.
        """
        self._work, self._executor = work, executor
        self._room = asyncio.Semaphore(limit)
        self._queue: deque[tuple[Item, asyncio.Future[Result]]] = deque()
        self._running: asyncio.Task[None] | None = None

    async def add(self, item: Item) -> Result:
        """The result for an item. A caller that is cancelled does not withdraw it, nor free its place."""
        await self._room.acquire()
        loop = asyncio.get_running_loop()
        result: asyncio.Future[Result] = loop.create_future()
        result.add_done_callback(self._leave)
        self._queue.append((item, result))
        if self._running is None:
            self._running = loop.create_task(self._run())
        return await asyncio.shield(result)

    def _leave(self, result: asyncio.Future[Result]) -> None:
        self._room.release()
        if not result.cancelled():
            result.exception()  # asyncio would report that of an item whose caller is gone

    async def finish(self) -> None:
        """Waits until the queue is empty."""
        while self._running is not None:
            await asyncio.wait([self._running])

    async def _run(self) -> None:
        try:
            while self._queue:
                items, waiting = zip(*self._queue, strict=True)
                self._queue.clear()
                await self._serve(items, waiting)
        finally:
            self._running = None

    async def _serve(self, items: Sequence[Item], waiting: Sequence[asyncio.Future[Result]]) -> None:
        try:
            results = await asyncio.get_running_loop().run_in_executor(self._executor, self._work, items)
        except Exception as error:  # noqa: BLE001 (raised by every caller)
            for each in waiting:
                if not each.done():
                    each.set_exception(error)
            return
        for each, result in zip(waiting, results, strict=True):
            if not each.done():
                each.set_result(result)


class Singly(Generic[Item, Result]):
    """Calls a function for each item, as many at once as the executor has threads. Used in one event loop."""

    def __init__(self, work: Callable[[Item], Result], executor: Executor, limit: int, lost: str = "") -> None:
        """
        Args:
            work: called in the executor. Its exception is raised to the item's caller.
            executor: runs it.
            limit: most items that are queued or worked on; further callers wait.
            lost: what to log of the exception of an item whose caller is gone; empty: nothing.
        """
        self._work, self._executor, self._lost = work, executor, lost
        self._room = asyncio.Semaphore(limit)
        self._running: set[asyncio.Future[Result]] = set()

    async def add(self, item: Item) -> Result:
        """The result for an item. A caller that is cancelled does not withdraw it, nor free its place."""
        await self._room.acquire()
        result = asyncio.get_running_loop().run_in_executor(self._executor, self._work, item)
        self._running.add(result)
        result.add_done_callback(self._leave)
        try:
            return await asyncio.shield(result)
        except asyncio.CancelledError:
            result.add_done_callback(self._report)
            raise

    def _leave(self, result: asyncio.Future[Result]) -> None:
        self._running.discard(result)
        self._room.release()
        if not result.cancelled():
            result.exception()  # asyncio would report that of an item whose caller is gone

    def _report(self, result: asyncio.Future[Result]) -> None:
        if self._lost and not result.cancelled() and result.exception() is not None:
            log.error("%s: %s", self._lost, result.exception())

    async def finish(self) -> None:
        """Waits until no item is left."""
        while self._running:
            await asyncio.wait(self._running)

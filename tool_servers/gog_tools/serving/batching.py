"""Micro-batches: requests that arrive close together are worked on together, off the event loop.

A model that answers eight images in little more than the time of one is wasted on requests taken singly, and a
prediction on the event loop stops everything else, health included. So one thread works, and while it does, arrivals
gather; an idle one waits a few milliseconds for company. One thread, because a detector holds one device.

An item's failure is its own: the work function returns a value or an exception for each.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Generic, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


class MicroBatcher(Generic[Item, Result]):
    """work: items -> as many results or exceptions, in order; runs in this batcher's only thread."""

    def __init__(
        self,
        work: Callable[[Sequence[Item]], Sequence[Result | Exception]],
        *,
        max_size: int = 16,
        max_wait: float = 0.002,
    ) -> None:
        self.work, self.max_size, self.max_wait = work, max_size, max_wait
        self.waiting: list[tuple[Item, asyncio.Future[Result]]] = []
        self.full = asyncio.Event()
        self.thread = ThreadPoolExecutor(1, thread_name_prefix="batch")
        self.worker: asyncio.Task[None] | None = None

    async def submit(self, item: Item) -> Result:
        """The item's result; raises the exception that `work` gave for it."""
        future: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self.waiting.append((item, future))
        if len(self.waiting) >= self.max_size:
            self.full.set()
        if self.worker is None:
            self.worker = asyncio.create_task(self._serve())
        return await future

    async def _serve(self) -> None:
        """Works until nothing waits."""
        try:
            await self._gather()
            while self.waiting:
                batch, self.waiting = self.waiting[: self.max_size], self.waiting[self.max_size :]
                await self._work_on([(item, future) for item, future in batch if not future.done()])
        finally:
            self.worker = None

    async def _gather(self) -> None:
        if self.max_wait > 0 and len(self.waiting) < self.max_size:
            self.full.clear()
            try:
                async with asyncio.timeout(self.max_wait):
                    await self.full.wait()
            except TimeoutError:
                return

    async def _work_on(self, batch: list[tuple[Item, asyncio.Future[Result]]]) -> None:
        loop = asyncio.get_running_loop()
        try:
            results = await loop.run_in_executor(self.thread, self.work, [item for item, _ in batch])
            if len(results) != len(batch):
                raise RuntimeError(f"{len(results)} results for {len(batch)} items")
        except Exception as error:  # noqa: BLE001  a broken work function is every item's failure, and nobody's hang
            results = [error] * len(batch)
        for (_, future), result in zip(batch, results, strict=True):
            if future.done():  # the client has gone
                continue
            if isinstance(result, Exception):
                future.set_exception(result)
            else:
                future.set_result(result)

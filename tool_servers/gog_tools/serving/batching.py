"""Micro-batches: requests that arrive close together are answered together, off the event loop.

A model that answers eight images in little more than the time of one wastes capacity on single requests, and a
prediction on the event loop would stop everything else, health included. So a thread runs the batches; requests that
arrive meanwhile form the next one, and an idle batcher waits a few milliseconds for company. One thread by default,
because a model holds one device; a back end that waits for a remote service may have several.

A request shares nothing but time with the others of its batch. When a batch fails, its items run again one by one, each
once, so that only the item at fault fails. Two bounds keep a broken back end from multiplying its own load: a back end
that reports itself unavailable is not called again, and single runs stop after ISOLATION_SECONDS.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Generic, TypeVar, cast

from gog_tools.serving import errors

Item = TypeVar("Item")
Result = TypeVar("Result")

ISOLATION_SECONDS = 30.0
"""Longest time that the items of a failed batch are run one by one; the rest then fail with the batch's error."""


class MicroBatcher(Generic[Item, Result]):
    """Batches for one work function."""

    def __init__(
        self,
        work: Callable[[Sequence[Item]], Sequence[Result | Exception]],
        *,
        max_size: int = 16,
        max_wait: float = 0.002,
        threads: int = 1,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Creates an idle batcher.

        Args:
            work: called with 1 to max_size items in a thread of this batcher; returns a result or an exception for
                each item, in order, or raises for the whole batch
            max_size: most items in a batch
            max_wait: seconds for which an idle batcher waits for a second item
            threads: batches that may run at once
            clock: seconds, monotonic
        """
        self.work, self.max_size, self.max_wait = work, max_size, max_wait
        self.threads, self.clock = threads, clock
        self.executor = ThreadPoolExecutor(threads, thread_name_prefix="batch")
        self._waiting: list[tuple[Item, asyncio.Future[Result]]] = []
        self._full = asyncio.Event()
        self._workers: set[asyncio.Task[None]] = set()

    async def submit(self, item: Item) -> Result:
        """The item's result.

        Raises:
            Exception: what `work` returned or raised for the item.
        """
        future: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, future))
        if len(self._waiting) >= self.max_size:
            self._full.set()
        if len(self._workers) < self.threads:
            self._workers.add(asyncio.create_task(self._run()))
        return await future

    async def _run(self) -> None:
        """One worker: runs batches until no item is waiting."""
        try:
            await self._wait_for_company()
            while self._waiting:
                batch, self._waiting = self._waiting[: self.max_size], self._waiting[self.max_size :]
                await self._answer([(item, future) for item, future in batch if not future.done()])
        finally:
            # Not in a done callback: an item submitted before that ran would start no worker and wait for ever.
            self._workers.discard(cast("asyncio.Task[None]", asyncio.current_task()))

    async def _wait_for_company(self) -> None:
        if self.max_wait > 0 and len(self._waiting) < self.max_size:
            self._full.clear()
            try:
                async with asyncio.timeout(self.max_wait):
                    await self._full.wait()
            except TimeoutError:
                return

    async def _answer(self, batch: list[tuple[Item, asyncio.Future[Result]]]) -> None:
        results = await self._attempt([item for item, _ in batch])
        if isinstance(results, Exception):
            if len(batch) > 1 and not isinstance(results, errors.RequestError):
                await self._isolate(batch, results)
                return
            results = [results] * len(batch)
        for (_, future), result in zip(batch, results, strict=True):
            _resolve(future, result)

    async def _isolate(self, batch: list[tuple[Item, asyncio.Future[Result]]], failure: Exception) -> None:
        """Runs the items of a failed batch one by one."""
        end = self.clock() + ISOLATION_SECONDS
        for item, future in batch:
            if future.done():  # its client has disconnected
                continue
            outcome = await self._attempt([item]) if self.clock() < end else failure
            _resolve(future, outcome if isinstance(outcome, Exception) else outcome[0])

    async def _attempt(self, items: list[Item]) -> Sequence[Result | Exception] | Exception:
        """The results of `work`, or the exception that it raised for the whole batch."""
        return await asyncio.get_running_loop().run_in_executor(self.executor, self._call, items) if items else []

    def _call(self, items: list[Item]) -> Sequence[Result | Exception] | Exception:
        """In the thread. Exceptions are returned: a future would turn SystemExit into the end of the server."""
        try:
            results = self.work(items)
            if len(results) != len(items):
                return RuntimeError(f"{len(results)} results for {len(items)} items")
            return results
        except (Exception, SystemExit) as error:  # noqa: BLE001  each item reports it to its own client
            return error if isinstance(error, Exception) else RuntimeError(f"exit {error.code}")


def _resolve(future: asyncio.Future[Result], result: Result | Exception) -> None:
    if future.done():  # the client has disconnected
        return
    if isinstance(result, StopIteration):  # no future accepts one: the request would wait for ever
        result = RuntimeError(f"StopIteration: {result.value}")
    if isinstance(result, Exception):
        future.set_exception(result)
    else:
        future.set_result(result)

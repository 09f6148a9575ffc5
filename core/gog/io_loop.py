"""An event loop in a thread of its own, for sockets and deadlines.

A step of a model computes for tens of milliseconds on a CPU and for seconds when a prompt is long. A socket that shares
its thread is served late by as much, and a deadline that expires meanwhile is charged to a tool that had answered in
time. So what waits for a network runs here, and what computes stays with its caller.

This is no pool: work that computes for long must not be submitted, because it would delay every deadline. The
interpreter lock is still shared. Python code gives it up every few milliseconds, but one long call into C that keeps it
delays this loop, too. The longest such call of a recipe is the garbage collector's full pass over what libraries made
at import (0.2 s for torch and transformers), so objects that exist when the loop starts are exempt while it runs.
"""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class IOLoop:
    """An event loop that runs in a daemon thread from construction until `close`."""

    def __init__(self, name: str = "gog-io") -> None:
        gc.freeze()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._serve, name=name, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()

    async def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Awaits a coroutine on this loop, from any other.

        The coroutine sees the caller's context variables. Its exception is raised here; cancelling the caller cancels it.
        """
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(coroutine, self._loop))

    def call(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """The result of a coroutine on this loop, from a thread without a loop; the thread waits."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()

    def close(self) -> None:
        """Stops the loop and its thread. What still runs there is cancelled."""
        asyncio.run_coroutine_threadsafe(self._cancel_everything(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        gc.unfreeze()

    async def _cancel_everything(self) -> None:
        others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        await self._loop.shutdown_default_executor()

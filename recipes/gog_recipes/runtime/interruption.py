"""SIGTERM as a request to end: the platform takes the process away and gives it seconds to save what it has done.

A stage that works asks `requested` between steps and lets its waits be cut short; it then flushes its journal, commits
what it can and exits as interrupted (`config.exit_with`). Before it works there is nothing to save, so the request ends
it at once. A second SIGTERM ends it at once in any case; a request that another rank has passed on (`relay`) is not a first.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import threading
from collections.abc import Awaitable, Iterator
from types import FrameType
from typing import TypeVar

T = TypeVar("T")
CODE = 130
"""Exit code of an interrupted stage, which the control plane resumes without counting a failure."""


class Interrupted(Exception):
    """The stage ends because it was asked to. What it has done is durable."""


class Interruption:
    """Whether this process was asked to end."""

    def __init__(self) -> None:
        self.requested = False
        self._signalled = False
        self._deferred = False
        self._waiting: set[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = set()

    @contextlib.contextmanager
    def installed(self) -> Iterator[None]:
        """Takes SIGTERM inside; only the main thread can."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = signal.signal(signal.SIGTERM, self._on_signal)
        try:
            yield
        finally:
            signal.signal(signal.SIGTERM, before if before is not None else signal.SIG_DFL)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self._signalled:
            os._exit(CODE)
        self._signalled = True
        self.request()
        if not self._deferred:
            raise Interrupted("before it began")

    def request(self) -> None:
        """Asks to end; from any thread."""
        self.requested = True
        for loop, event in tuple(self._waiting):
            with contextlib.suppress(RuntimeError):  # closed since by its own thread
                loop.call_soon_threadsafe(event.set)

    @contextlib.contextmanager
    def deferred(self) -> Iterator[None]:
        """Inside, a request only sets `requested` and cuts waits short: the stage ends by itself within seconds."""
        self._deferred = True
        try:
            yield
        finally:
            self._deferred = False

    async def sleep(self, seconds: float) -> None:
        """Waits; a request ends the wait."""
        with self._event() as event, contextlib.suppress(TimeoutError):
            await asyncio.wait_for(event.wait(), seconds)

    async def race(self, work: Awaitable[T]) -> T:
        """The result of work. Raises Interrupted, and cancels the work, when a request comes before its end."""
        task = asyncio.ensure_future(work)
        with self._event() as event:
            stop = asyncio.ensure_future(event.wait())
            try:
                await asyncio.wait({task, stop}, return_when=asyncio.FIRST_COMPLETED)
                if task.done():
                    return task.result()
                raise Interrupted
            finally:
                task.cancel()
                stop.cancel()
                await asyncio.gather(task, stop, return_exceptions=True)

    @contextlib.contextmanager
    def _event(self) -> Iterator[asyncio.Event]:
        """An event of the running loop that a request sets."""
        event = asyncio.Event()
        entry = (asyncio.get_running_loop(), event)
        self._waiting.add(entry)
        if self.requested:
            event.set()
        try:
            yield event
        finally:
            self._waiting.discard(entry)


PROCESS = Interruption()
"""Of this process."""

"""How late the event loop that owns the sockets notices things, measured from inside.

A deadline is only as good as its loop: while something else holds the thread or the interpreter, answers that have
arrived are not read, and tools seem slower than they are. A timer that should fire after INTERVAL and fires later was
late by that much, and so was everything else. Measuring costs ten wake-ups a second.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

INTERVAL = 0.1
"""Seconds between two measurements."""


async def measure(
    observe: Callable[[float], None],
    clock: Callable[[], float] = time.perf_counter,
    sleep: Callable[[float], Awaitable[Any]] = asyncio.sleep,
) -> None:
    """Observes the lag of the running loop, in seconds, until it is cancelled."""
    while True:
        began = clock()
        await sleep(INTERVAL)
        observe(max(0.0, clock() - began - INTERVAL))

"""A thread that parses documents, replaced after a number of them.

lxml keeps every name of an element or attribute that a thread has seen for as long as the thread lives. A page can hold
thousands of invented names, so hostile pages would fill the memory of a thread that never ends, at a quarter of a megabyte
each. A new thread begins with none. Names are freed with the last parser of a thread that has ended; parsers are parts of
reference cycles, so the collector is run once for each new thread. One thread at a time is enough, because parsing holds
the interpreter's lock.
"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Value = TypeVar("Value")

RENEW = 25
"""Documents after which the thread is replaced."""


class Parsers:
    """Runs functions that parse, one after the other. For one event loop."""

    def __init__(self) -> None:
        self._begun = 0
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="parse")

    async def run(self, work: Callable[[], Value]) -> Value:
        """The result of `work`, in the thread."""
        self._begun += 1
        if self._begun > RENEW:
            self._thread.shutdown(wait=False)  # what was submitted is still done
            self._thread, self._begun = ThreadPoolExecutor(1, thread_name_prefix="parse"), 1
            self._thread.submit(gc.collect)
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

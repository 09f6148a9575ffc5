"""A hedge: a second, equal request when the first is slow, so that one stall does not delay an episode.

Only for servers of the user's own, because a vendor charges for both. The first request that succeeds is the answer; the
other is cancelled. A failure is final only when no other request is under way.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")


async def first_success(
    request: Callable[[], Awaitable[T]], after: float, second: Callable[[], Callable[[], Awaitable[T]] | None]
) -> T:
    """The result of the first of at most two requests that succeeds.

    Args:
        request: makes the first request.
        after: seconds for which the first request has the time to itself.
        second: called when these are over; what makes the second request, or None if there shall be none.

    Returns:
        The result of the request that succeeded first.

    Raises:
        Exception: of the first request, if all have failed.
    """
    tasks = [asyncio.ensure_future(request())]
    try:
        await asyncio.wait(tasks, timeout=after)
        hedge = None if tasks[0].done() else second()
        if hedge is not None:
            tasks.append(asyncio.ensure_future(hedge()))
        pending = set(tasks)
        while pending:
            done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                if task.exception() is None:
                    return task.result()
        return tasks[0].result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

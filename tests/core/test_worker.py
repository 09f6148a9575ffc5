"""Work that an event loop hands to a thread in batches."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest

from gog.calls.worker import Batches


def test_callers_that_are_cancelled_do_not_let_the_queue_grow_beyond_its_limit() -> None:
    release, most = threading.Event(), 0

    def work(items: Sequence[int]) -> list[int]:
        nonlocal most
        release.wait(10)
        most = max(most, len(items))
        return [2 * item for item in items]

    async def scenario() -> int:
        with ThreadPoolExecutor(1) as thread:
            batches = Batches(work, thread, 4)
            for _ in range(4):  # each wave of callers gives up before it is served
                wave = [asyncio.ensure_future(batches.add(number)) for number in range(4)]
                await asyncio.sleep(0)
                await asyncio.sleep(0)
                for each in wave:
                    each.cancel()
                await asyncio.gather(*wave, return_exceptions=True)
            release.set()
            last = await batches.add(21)
            await batches.finish()
            return last

    assert asyncio.run(scenario()) == 42
    assert most <= 4


def test_the_failure_of_an_item_whose_caller_is_gone_reaches_nobody_and_the_next_item_is_served(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def work(items: Sequence[int]) -> list[int]:
        if 1 in items:
            raise ValueError("one")
        return list(items)

    async def scenario() -> int:
        with ThreadPoolExecutor(1) as thread:
            batches = Batches(work, thread, 1)
            caller = asyncio.ensure_future(batches.add(1))
            await asyncio.sleep(0)
            caller.cancel()
            await batches.finish()
            return await batches.add(2)

    assert asyncio.run(scenario()) == 2 and not caplog.records

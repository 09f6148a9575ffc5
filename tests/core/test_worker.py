"""Work that an event loop hands to threads, in batches or one by one."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest

from gog.calls.worker import Batches, Singly


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


def test_items_that_are_served_one_by_one_wait_for_room_although_their_callers_gave_up() -> None:
    release, served = threading.Event(), []

    def work(item: int) -> int:
        release.wait(10)
        served.append(item)
        return 2 * item

    async def scenario() -> int:
        with ThreadPoolExecutor(2) as threads:
            singly = Singly(work, threads, 3)
            callers = [asyncio.ensure_future(singly.add(number)) for number in range(5)]
            await asyncio.sleep(0.01)
            for each in callers:
                each.cancel()
            await asyncio.gather(*callers, return_exceptions=True)
            release.set()
            last = await singly.add(21)
            await singly.finish()
            return last

    assert asyncio.run(scenario()) == 42
    assert sorted(served) == [0, 1, 2, 21], "what was handed over is served, what waited is not"


def test_the_exception_of_one_item_is_its_callers_alone() -> None:
    def work(item: int) -> float:
        return 1 / item

    async def scenario() -> list[float | BaseException]:
        with ThreadPoolExecutor(2) as threads:
            singly = Singly(work, threads, 3)
            return await asyncio.gather(*(singly.add(number) for number in (0, 2)), return_exceptions=True)

    failed, served = asyncio.run(scenario())
    assert isinstance(failed, ZeroDivisionError) and served == 0.5

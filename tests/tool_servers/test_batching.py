"""Micro-batches."""

from __future__ import annotations

import asyncio
import threading

import pytest

from gog_tools.serving.batching import MicroBatcher


def run(work, items, **settings):
    """What each item comes to, value or exception."""

    async def together():
        batcher = MicroBatcher(work, **settings)
        return await asyncio.gather(*(batcher.submit(item) for item in items), return_exceptions=True)

    return asyncio.run(together())


def recorder():
    batches = []

    def double(items):
        batches.append(list(items))
        return [2 * item for item in items]

    return batches, double


def test_requests_that_arrive_together_are_one_batch():
    batches, work = recorder()
    assert run(work, range(5)) == [0, 2, 4, 6, 8]
    assert batches == [[0, 1, 2, 3, 4]]


def test_a_batch_is_never_larger_than_asked():
    batches, work = recorder()
    assert run(work, range(10), max_size=4) == [2 * item for item in range(10)]
    assert [len(batch) for batch in batches] == [4, 4, 2]


def test_one_items_failure_is_its_own():
    def work(items):
        return [ValueError("bad") if item == 1 else item for item in items]

    results = run(work, range(3))
    assert results[0] == 0 and isinstance(results[1], ValueError) and results[2] == 2


@pytest.mark.parametrize("broken", [lambda items: 1 / 0, lambda items: []])
def test_a_broken_worker_hangs_nobody(broken):
    assert all(isinstance(result, Exception) for result in run(broken, range(3)))


def test_the_loop_is_free_while_a_batch_is_worked_on():
    release = threading.Event()

    def work(items):
        assert release.wait(30)
        return items

    async def scene():
        batcher = MicroBatcher(work)
        held = asyncio.create_task(batcher.submit("x"))
        await asyncio.sleep(0.01)  # not for order: the loop turns, whether or not the thread has begun
        assert not held.done()
        release.set()
        return await held

    assert asyncio.run(scene()) == "x"


def test_what_arrives_during_a_batch_makes_the_next_one():
    batches, gates = [], [threading.Event(), threading.Event()]
    gates[1].set()

    def work(items):
        batches.append(list(items))
        gates[len(batches) - 1].wait(30)
        return items

    async def scene():
        batcher = MicroBatcher(work, max_wait=0)
        first = asyncio.create_task(batcher.submit(0))
        while not batches:
            await asyncio.sleep(0)
        rest = [asyncio.create_task(batcher.submit(item)) for item in (1, 2, 3)]
        await asyncio.sleep(0)
        gates[0].set()
        await asyncio.gather(first, *rest)

    asyncio.run(scene())
    assert batches == [[0], [1, 2, 3]]


def test_a_client_that_has_gone_costs_the_others_nothing():
    batches, work = recorder()

    async def scene():
        batcher = MicroBatcher(work, max_wait=0.01)
        gone = asyncio.create_task(batcher.submit(1))
        stays = asyncio.create_task(batcher.submit(2))
        await asyncio.sleep(0)
        gone.cancel()
        return await stays

    assert asyncio.run(scene()) == 4
    assert batches == [[2]]

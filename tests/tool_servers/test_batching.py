"""Micro-batches: what runs together, and what a failure costs the others."""

from __future__ import annotations

import asyncio
import threading

import pytest

from gog.errors import UserError
from gog_tools.serving import batching
from gog_tools.serving.batching import MicroBatcher
from gog_tools.serving.errors import Unavailable


def run(work, items, **settings):
    """The outcome of each item, a value or an exception."""

    async def together():
        batcher = MicroBatcher(work, **settings)
        return await asyncio.gather(*(batcher.submit(item) for item in items), return_exceptions=True)

    return asyncio.run(together())


def recorder(fault=lambda items: None):
    """Batches as they ran, and a work function that doubles items unless `fault` gives a reason to raise."""
    batches = []

    def double(items):
        batches.append(list(items))
        error = fault(items)
        if error is not None:
            raise error
        return [2 * item for item in items]

    return batches, double


def test_requests_that_arrive_together_are_one_batch():
    batches, work = recorder()
    assert run(work, range(5)) == [0, 2, 4, 6, 8]
    assert batches == [[0, 1, 2, 3, 4]]


def test_a_batch_is_never_larger_than_its_limit():
    batches, work = recorder()
    assert run(work, range(10), max_size=4) == [2 * item for item in range(10)]
    assert [len(batch) for batch in batches] == [4, 4, 2]


def test_an_exception_returned_for_one_item_is_that_items_alone():
    def work(items):
        return [ValueError("bad") if item == 1 else item for item in items]

    results = run(work, range(3))
    assert results[0] == 0 and isinstance(results[1], ValueError) and results[2] == 2


@pytest.mark.parametrize("broken", [lambda items: 1 / 0, lambda items: [], lambda items: None])
def test_a_work_function_that_always_fails_fails_every_item(broken):
    assert all(isinstance(result, Exception) for result in run(broken, range(3)))


@pytest.mark.parametrize("error", [StopIteration(7), SystemExit(3)])
def test_an_exception_that_asyncio_treats_as_its_own_fails_the_items_only(error):
    def work(items):
        raise error

    results = run(work, range(2))
    assert all(isinstance(result, RuntimeError) for result in results)


# ---- one bad item in a batch


@pytest.mark.parametrize("error", [ValueError("aspect ratio"), UserError("aspect ratio")])
def test_when_a_batch_fails_only_the_item_at_fault_fails(error):
    batches, work = recorder(lambda items: error if 3 in items else None)
    results = run(work, range(6))
    assert results[3] is error
    assert results[:3] + results[4:] == [0, 2, 4, 8, 10]
    assert batches == [[0, 1, 2, 3, 4, 5], [0], [1], [2], [3], [4], [5]]


def test_an_item_that_fails_alone_is_not_tried_again():
    batches, work = recorder(lambda items: ValueError("bad"))
    run(work, [1])
    assert batches == [[1]]


def test_a_back_end_that_is_unavailable_is_not_asked_again_item_by_item():
    batches, work = recorder(lambda items: Unavailable("rate limit"))
    assert all(isinstance(result, Unavailable) for result in run(work, range(5)))
    assert len(batches) == 1


def test_a_back_end_that_fails_slowly_is_not_tried_longer_than_the_limit():
    now = [0.0]

    def slow(items):
        now[0] += 0.4 * batching.ISOLATION_SECONDS
        return ValueError("broken")

    batches, work = recorder(slow)
    assert all(isinstance(result, ValueError) for result in run(work, range(16), clock=lambda: now[0]))
    assert len(batches) == 4  # the batch, then three items until the limit has passed


def test_the_batch_after_a_failed_one_runs_whole():
    batches, work = recorder(lambda items: ValueError("bad") if 1 in items else None)
    run(work, range(6), max_size=3)
    assert batches == [[0, 1, 2], [0], [1], [2], [3, 4, 5]]


# ---- concurrency


def test_the_loop_is_free_while_a_batch_runs():
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


def test_items_that_arrive_during_a_batch_form_the_next_one():
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


def test_a_back_end_with_several_threads_answers_several_items_at_once():
    together = threading.Barrier(3, timeout=30)

    def work(items):
        together.wait()  # passes only when three calls are under way
        return items

    assert run(work, range(6), max_size=1, max_wait=0, threads=3) == list(range(6))


def test_an_item_submitted_when_a_worker_ends_is_answered():
    """A worker that has found nothing waiting must not be counted as running."""
    _, work = recorder()

    async def scene():
        batcher = MicroBatcher(work, max_wait=0)
        results = []
        for item in range(200):
            results.append(await batcher.submit(item))
        return results

    assert asyncio.run(asyncio.wait_for(scene(), 30)) == [2 * item for item in range(200)]


def test_an_item_whose_client_disconnected_is_not_worked_on():
    batches, work = recorder()

    async def scene():
        batcher = MicroBatcher(work, max_wait=0.01)
        cancelled = asyncio.create_task(batcher.submit(1))
        other = asyncio.create_task(batcher.submit(2))
        await asyncio.sleep(0)
        cancelled.cancel()
        return await other

    assert asyncio.run(scene()) == 4
    assert batches == [[2]]

"""Places for the calls of a tool: as many as its server keeps up with."""

from __future__ import annotations

import asyncio
import random

import pytest

from gog.calls.slots import FEWEST, FIRST, Slots, of_process
from gog.tool_types import FailureKind


def slots(most: int) -> tuple[Slots, list[float]]:
    """Places, and the clock that they use."""
    now = [0.0]
    return Slots(most, lambda: now[0]), now


def played(made: Slots, calls: int, *, answers: bool = True) -> int:
    """The most calls that were in flight together when so many were made at once; each takes a cycle of the loop."""
    flying, most = 0, 0

    async def call() -> None:
        nonlocal flying, most
        async with made:
            flying += 1
            most = max(most, flying)
            await asyncio.sleep(0)
            flying -= 1
            if answers:
                made.answered()

    async def run() -> None:
        await asyncio.gather(*(call() for _ in range(calls)))

    asyncio.run(run())
    return most


def test_the_places_grow_with_the_calls_that_wait_up_to_the_bound() -> None:
    made, _ = slots(64)
    assert played(made, FIRST) == FIRST == made.limit
    assert FIRST < played(made, 60) <= 60
    played(made, 400)
    assert made.limit == 64


def test_answers_add_no_places_that_no_call_waits_for() -> None:
    made, _ = slots(64)
    for _ in range(100):
        made.answered()
    assert made.limit == FIRST


def overload(made: Slots, began: float) -> None:
    """As many failures in a row as take places."""
    for _ in range(8):
        made.failed(FailureKind.TIMEOUT, began)


def test_the_places_are_halved_once_for_all_calls_that_were_in_flight_together() -> None:
    made, now = slots(64)
    now[0] = 10.0
    for _ in range(30):
        made.failed(FailureKind.TIMEOUT, began=0.0)
    assert made.limit == FIRST // 2
    for _ in range(8):
        made.failed(FailureKind.RATE_LIMITED, began=10.0)
    assert made.limit == FIRST // 4


@pytest.mark.parametrize("seed", range(5))
def test_a_server_that_loses_a_few_calls_at_any_load_keeps_all_places(seed: int) -> None:
    made, now = slots(64)
    played(made, 400)
    draw = random.Random(seed)
    for second in range(3000):
        now[0] = float(second)
        if draw.random() < 0.03:
            made.failed(draw.choice([FailureKind.TIMEOUT, FailureKind.RATE_LIMITED]), began=now[0])
        else:
            made.answered()
        assert made.limit == 64


@pytest.mark.parametrize(("most", "fewest"), [(64, FEWEST), (2, 2)])
def test_a_server_that_does_not_keep_up_keeps_a_few_places(most: int, fewest: int) -> None:
    made, now = slots(most)
    for second in range(20):
        now[0] = float(second)
        overload(made, now[0])
    assert made.limit == fewest and played(made, 30, answers=False) == fewest


def test_failures_that_fewer_calls_would_not_prevent_take_no_places() -> None:
    made, _ = slots(64)
    for _ in range(30):
        made.failed(FailureKind.REFUSED, began=0.0)
        made.failed(FailureKind.SERVER_ERROR, began=0.0)
    assert made.limit == FIRST


def test_after_an_overload_the_places_grow_slowly() -> None:
    made, _ = slots(64)
    overload(made, 0.0)
    played(made, 8 + 8 + 9)
    assert FIRST // 2 < made.limit <= FIRST // 2 + 2


def test_calls_get_places_in_order_and_one_that_is_cancelled_leaves_its_place_to_the_next() -> None:
    made, _ = slots(1)
    order: list[str] = []

    async def hold(name: str) -> None:
        async with made:
            order.append(name)
            await asyncio.sleep(0)

    async def run() -> None:
        tasks = [asyncio.create_task(hold(name)) for name in "abcd"]
        await asyncio.sleep(0)
        tasks[1].cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    asyncio.run(run())
    assert order == ["a", "c", "d"]


@pytest.mark.parametrize("ranks", [1, 2, 3, 8, 64])
def test_the_processes_of_a_stage_have_no_more_places_together_than_it_has(ranks: int) -> None:
    assert 256 - ranks < ranks * of_process(256, {"WORLD_SIZE": str(ranks)}) <= 256


def test_a_process_has_a_place_although_a_stage_has_fewer_than_processes() -> None:
    assert of_process(4, {"WORLD_SIZE": "8"}) == 1

"""The breaker and the rate limit of a call path: when no request is sent, and when one waits."""

from __future__ import annotations

import asyncio

import pytest
from support.builders import HANG, SERVER_ERROR, FakeBackend, make_path, now, request, run

from gog.calls.breaker import Breaker
from gog.calls.rate_limit import RateLimit
from gog.tool_types import CallError, Decision, FailureKind, Reply

ANSWER = b"a ring"


class FakeClock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_the_breaker_opens_after_failures_in_a_row_only() -> None:
    breaker = Breaker(3, 5.0, FakeClock())
    for success in (False, False, True, False, False):
        breaker.report(success)
    assert breaker.admits() and not breaker.is_open
    breaker.report(False)
    assert breaker.is_open and not breaker.admits()


def test_an_open_breaker_lets_one_call_through_after_a_while() -> None:
    clock = FakeClock()
    breaker = Breaker(1, 5.0, clock)
    breaker.report(False)
    clock.now = 4.9
    assert not breaker.admits()
    clock.now = 5.0
    assert [breaker.admits() for _ in range(3)] == [True, False, False]
    breaker.report(False)
    assert not breaker.admits()
    clock.now = 10.0
    assert breaker.admits()
    breaker.report(True)
    assert [breaker.admits() for _ in range(3)] == [True, True, True]


def test_a_dead_back_end_gets_no_requests_until_the_breaker_tests_it() -> None:
    async def scenario() -> list[Reply[str]]:
        path = make_path(backend, attempts=1, breaker_failures=3, breaker_seconds=5)
        replies = [await request(path, str(number)) for number in range(5)]
        await asyncio.sleep(5)
        return [*replies, await request(path, "later"), await request(path, "later still")]

    backend = FakeBackend([SERVER_ERROR] * 3 + [ANSWER])
    replies = run(scenario())
    kinds = [reply.failure.kind if reply.failure else None for reply in replies]
    assert kinds == [FailureKind.SERVER_ERROR] * 3 + [FailureKind.BREAKER_OPEN] * 2 + [None] * 2
    assert len(backend.requests) == 5


def test_a_call_that_the_breaker_refuses_says_why_the_back_end_failed() -> None:
    async def scenario() -> Reply[str]:
        path = make_path(FakeBackend([SERVER_ERROR]), attempts=1, breaker_failures=1)
        await request(path, "first")
        return await request(path, "second")

    failure = run(scenario()).failure
    assert failure is not None
    assert failure.words == "breaker_open: too many failures in a row, the last: server_error: HTTP 500"


def test_calls_queued_behind_a_dead_back_end_fail_together() -> None:
    async def scenario() -> float:
        path = make_path(backend, attempts=1, concurrency=4, deadline_seconds=10, breaker_failures=4)
        await asyncio.gather(*(request(path, str(number)) for number in range(100)))
        return now()

    backend = FakeBackend([HANG])
    assert run(scenario()) == 10
    assert len(backend.requests) == 4


def test_a_refused_request_does_not_count_against_the_breaker() -> None:
    async def scenario() -> list[Reply[str]]:
        path = make_path(backend, attempts=1, breaker_failures=2)
        return [await request(path, str(number)) for number in range(5)]

    backend = FakeBackend([CallError(FailureKind.REFUSED, "HTTP 400")])
    assert {reply.failure.kind for reply in run(scenario()) if reply.failure} == {FailureKind.REFUSED}
    assert len(backend.requests) == 5


@pytest.mark.parametrize("kind", [FailureKind.AUTH, FailureKind.NO_CREDIT])
def test_a_closed_account_opens_the_breaker_at_once_and_the_refusals_name_it(kind: FailureKind) -> None:
    async def scenario() -> list[Reply[str]]:
        path = make_path(backend, breaker_failures=1000, breaker_seconds=5)
        replies = [await request(path, "first"), await request(path, "second")]
        await asyncio.sleep(5)
        return [*replies, await request(path, "third")]

    backend = FakeBackend([CallError(kind, "HTTP 402: top up"), ANSWER])
    first, second, third = run(scenario())
    assert first.failure is not None and first.failure.kind is kind and second.failure is not None
    assert second.failure.words == f"breaker_open: the account is closed, the last: {kind}: HTTP 402: top up"
    assert (third.value, len(backend.requests)) == ("a ring", 2)


# ---- the rate limit


def test_requests_are_spaced_evenly_and_retries_count_as_requests() -> None:
    async def scenario() -> list[Reply[str]]:
        path = make_path(backend, attempts=2, backoff_seconds=0)
        path.rate = RateLimit(30, clock=now)
        return await asyncio.gather(*(request(path, str(number)) for number in range(3)))

    backend = FakeBackend([SERVER_ERROR, ANSWER])
    replies = run(scenario())
    assert backend.times == [0, 2, 4, 6]
    assert sorted(reply.waited for reply in replies)[-1] > 0
    assert all(Decision.WAITED in reply.decisions for reply in replies if reply.waited)


def test_waiting_for_the_rate_limit_costs_nothing_of_the_budget() -> None:
    async def scenario() -> list[Reply[str]]:
        path = make_path(FakeBackend([ANSWER]), budget_seconds=1, deadline_seconds=1)
        path.rate = RateLimit(1, clock=now)
        return [await request(path, str(number)) for number in range(3)]

    assert [reply.waited for reply in run(scenario())] == [0, 60, 60]


def test_an_open_breaker_refuses_without_waiting_for_the_rate_limit() -> None:
    async def scenario() -> float:
        path = make_path(FakeBackend([SERVER_ERROR]), attempts=1, breaker_failures=1, breaker_seconds=1000)
        path.rate = RateLimit(1, clock=now)
        replies = [await request(path, str(number)) for number in range(5)]
        assert [Decision.BREAKER in reply.decisions for reply in replies] == [False] + [True] * 4
        return now()

    assert run(scenario()) == 0


# ---- the hedge

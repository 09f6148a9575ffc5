"""The one path of every tool call, in fake time: retries, budgets, deadlines, the breaker, and one call for many."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest
from support.builders import HANG, SERVER_ERROR, FakeBackend, make_path, now, request, run

from gog import call_path, metrics
from gog.calls import attempt
from gog.tool_types import RETRYABLE, Bill, CallError, Decision, FailureKind, Reply

ANSWER = b"a ring"


def call_once(backend: FakeBackend, **limits: float) -> tuple[Reply[str], float]:
    """One call and the second at which it was over."""

    async def scenario() -> tuple[Reply[str], float]:
        return await request(make_path(backend, **limits)), now()

    return run(scenario())


def test_a_call_that_works_is_made_once() -> None:
    backend = FakeBackend([ANSWER], seconds=0.5)
    reply, _ = call_once(backend)
    assert (reply.value, reply.failure, reply.attempts, reply.seconds, reply.cached) == ("a ring", None, 1, 0.5, False)


def test_a_call_is_retried_and_its_answer_then_counts() -> None:
    backend = FakeBackend([SERVER_ERROR, SERVER_ERROR, ANSWER])
    reply, _ = call_once(backend, attempts=3)
    assert (reply.value, reply.attempts, reply.decisions) == ("a ring", 3, (Decision.RETRIED,))


def test_pauses_double_and_are_jittered() -> None:
    backend = FakeBackend([SERVER_ERROR])
    call_once(backend, attempts=6, backoff_seconds=1, budget_seconds=1000)
    assert len(backend.pauses) == 5
    assert all(2**n / 2 <= pause <= 2**n for n, pause in enumerate(backend.pauses))
    assert len({pause / 2**n for n, pause in enumerate(backend.pauses)}) == 5


def test_after_the_last_attempt_the_failure_is_typed() -> None:
    backend = FakeBackend([SERVER_ERROR])
    reply, _ = call_once(backend, attempts=3)
    assert reply.value is None and reply.failure is not None
    assert (reply.failure.tool, reply.failure.kind, reply.failure.message) == (
        "textSearch",
        FailureKind.SERVER_ERROR,
        "HTTP 500",
    )
    assert (reply.attempts, len(backend.requests)) == (3, 3)


@pytest.mark.parametrize("kind", FailureKind)
def test_only_failures_that_may_pass_are_retried(kind: FailureKind) -> None:
    backend = FakeBackend([CallError(kind)])
    reply, _ = call_once(backend, attempts=3)
    assert reply.failure is not None and reply.failure.kind is kind
    assert len(backend.requests) == (3 if kind in RETRYABLE else 1)
    assert (kind is FailureKind.REFUSED) <= (kind not in RETRYABLE)


@pytest.mark.parametrize("answer", [b"\xff\xfe", b""], ids=["not text", "refused by the reader without a message"])
def test_an_answer_that_cannot_be_read_is_malformed_and_retried(answer: bytes) -> None:
    async def scenario() -> Reply[str]:
        def read(body: bytes) -> str:
            if not body:
                raise ValueError
            return body.decode()

        return await make_path(backend).call({}, lambda: b"", read)

    backend = FakeBackend([answer, answer, ANSWER])
    reply = run(scenario())
    assert (reply.value, reply.attempts) == ("a ring", 3)


def test_a_retry_waits_for_the_time_that_the_server_requests_instead_of_the_backoff() -> None:
    backend = FakeBackend([CallError(FailureKind.RATE_LIMITED, "HTTP 429", 7.0), ANSWER])
    reply, _ = call_once(backend, backoff_seconds=0.1)
    assert reply.value == "a ring" and backend.pauses == [7.0]


def test_a_requested_wait_beyond_the_budget_is_a_failure_at_once() -> None:
    backend = FakeBackend([CallError(FailureKind.RATE_LIMITED, "HTTP 429", 60.0), ANSWER])
    reply, ended = call_once(backend, budget_seconds=30)
    assert reply.failure is not None and reply.failure.kind is FailureKind.RATE_LIMITED
    assert (ended, len(backend.requests)) == (0, 1)


def test_every_attempt_has_a_deadline() -> None:
    backend = FakeBackend([HANG, HANG, ANSWER])
    reply, ended = call_once(backend, deadline_seconds=2, backoff_seconds=0)
    assert (reply.value, reply.attempts, ended) == ("a ring", 3, 4)
    assert backend.busy == 0


def test_a_call_with_its_retries_never_exceeds_its_budget() -> None:
    backend = FakeBackend([HANG])
    reply, ended = call_once(backend, attempts=10, deadline_seconds=8, budget_seconds=20)
    assert reply.failure is not None and reply.failure.kind is FailureKind.TIMEOUT
    assert ended <= 20 and len(backend.requests) == 3


def test_at_most_four_calls_are_in_flight_and_answers_keep_their_order() -> None:
    async def scenario() -> tuple[list[str | None], float]:
        async def send(body: bytes) -> bytes:
            await backend(body)
            await asyncio.sleep(1 / (1 + int(body)))  # later calls finish sooner
            return body

        path = make_path(send, concurrency=4)
        replies = await asyncio.gather(*(request(path, str(number)) for number in range(12)))
        return [reply.value for reply in replies], now()

    backend = FakeBackend(seconds=1)
    values, ended = run(scenario())
    assert values == [str(number) for number in range(12)]
    assert backend.peak == 4 and ended >= 3


def test_a_pause_before_a_retry_holds_no_slot() -> None:
    async def scenario() -> list[Reply[str]]:
        path = make_path(send, concurrency=1, backoff_seconds=10)
        return await asyncio.gather(request(path, "retried"), request(path, "prompt"))

    tried: set[bytes] = set()

    async def send(body: bytes) -> bytes:
        if body == b"retried" and body not in tried:
            tried.add(body)
            raise SERVER_ERROR
        return body

    retried, prompt = run(scenario())
    assert prompt.seconds == 0 and retried.seconds >= 5


def test_waiting_for_a_slot_costs_nothing_of_the_budget() -> None:
    async def scenario() -> list[Reply[str]]:
        path = make_path(send, concurrency=1, budget_seconds=5)
        return await asyncio.gather(*(request(path, str(number)) for number in range(20)))

    seen: set[bytes] = set()

    async def send(body: bytes) -> bytes:
        await asyncio.sleep(1)
        if body not in seen:
            seen.add(body)
            raise SERVER_ERROR
        return body

    assert all(reply.failure is None and reply.attempts == 2 for reply in run(scenario()))


def test_concurrent_duplicates_are_one_request() -> None:
    async def scenario() -> list[Reply[str]]:
        path = make_path(backend)
        return await asyncio.gather(*(request(path) for _ in range(20)))

    backend = FakeBackend([SERVER_ERROR, ANSWER], seconds=1)
    replies = run(scenario())
    assert {reply.value for reply in replies} == {"a ring"}
    assert len(backend.requests) == 2  # the failed attempt and the one that worked
    assert [reply.cached for reply in replies] == [False] + [True] * 19


def test_a_duplicate_that_arrives_as_the_call_ends_makes_no_second_request() -> None:
    async def scenario() -> None:
        path = make_path(backend)
        first = asyncio.ensure_future(request(path))
        while not first.done():
            late.append(asyncio.ensure_future(request(path)))
            await asyncio.sleep(0)
        await asyncio.gather(*late)

    backend, late = FakeBackend([ANSWER]), []
    run(scenario())
    assert len(late) > 3 and len(backend.requests) == 1


def test_abandoned_calls_send_nothing_more() -> None:
    async def scenario() -> tuple[int, int]:
        path = make_path(backend, concurrency=1)
        callers = [asyncio.create_task(request(path, f"query {number}")) for number in range(3)]
        await asyncio.sleep(1)
        for caller in callers:
            caller.cancel()
        await asyncio.gather(*callers, return_exceptions=True)
        await path.abandon()
        sent = len(backend.requests)
        await asyncio.sleep(1000)
        return sent, len(backend.requests)

    backend = FakeBackend([HANG])
    assert run(scenario()) == (1, 1)
    assert backend.busy == 0


def test_cancelling_a_caller_does_not_affect_the_callers_that_joined_it() -> None:
    async def scenario() -> tuple[Reply[str], Reply[str]]:
        path = make_path(backend)
        first, second = asyncio.ensure_future(request(path)), asyncio.ensure_future(request(path))
        await asyncio.sleep(0.5)
        first.cancel()
        return await second, await request(path)

    backend = FakeBackend([ANSWER], seconds=1)
    joined, later = run(scenario())
    assert (joined.value, later.value, later.cached) == ("a ring", "a ring", True)
    assert len(backend.requests) == 1


def test_a_failure_is_not_kept() -> None:
    async def scenario() -> tuple[Reply[str], Reply[str]]:
        path = make_path(backend, attempts=1)
        return await request(path), await request(path)

    backend = FakeBackend([SERVER_ERROR, ANSWER])
    failed, worked = run(scenario())
    assert failed.failure is not None
    assert (worked.value, worked.cached) == ("a ring", False)


def test_a_cache_key_is_tool_back_end_version_and_arguments() -> None:
    keys = {
        call_path.cache_key(*parts)
        for parts in (
            ("imageSearch", "world", "1", {"image": "aa", "top": 5}),
            ("textSearch", "world", "1", {"image": "aa", "top": 5}),
            ("imageSearch", "serpapi", "1", {"image": "aa", "top": 5}),
            ("imageSearch", "world", "2", {"image": "aa", "top": 5}),
            ("imageSearch", "world", "1", {"image": "bb", "top": 5}),
            ("imageSearch", "world", "1", {"image": "aa", "top": 6}),
        )
    }
    assert len(keys) == 6
    assert call_path.cache_key("t", "b", "1", {"a": 1, "b": 2}) == call_path.cache_key("t", "b", "1", {"b": 2, "a": 1})


def test_the_request_is_built_only_when_it_is_sent() -> None:
    async def scenario() -> None:
        path = make_path(FakeBackend([ANSWER]))
        for _ in range(3):
            await path.call({}, lambda: built.append(1) or b"", bytes.decode)

    built: list[int] = []
    run(scenario())
    assert len(built) == 1


def test_requests_are_built_for_calls_that_have_a_slot_only() -> None:
    async def scenario() -> None:
        path = make_path(FakeBackend([ANSWER], seconds=1), concurrency=2)
        await asyncio.gather(*(path.call({"n": n}, lambda: built.append(now()) or b"", bytes.decode) for n in range(4)))

    built: list[float] = []
    run(scenario())
    assert built == [0, 0, 1, 1]


def test_a_long_answer_is_read_in_another_thread_and_reading_costs_nothing_of_the_deadline() -> None:
    async def scenario() -> Reply[str]:
        asyncio.get_running_loop().call_later(0.1, later.set)  # would never come if reading held the loop
        return await make_path(FakeBackend([answer]), attempts=1, deadline_seconds=0.01).call({}, lambda: b"", read)

    def read(body: bytes) -> str:
        return "read" if later.wait(10) else "the loop is held"

    later, answer = threading.Event(), b"x" * (attempt.LONG_ANSWER + 1)
    assert asyncio.run(scenario()).value == "read"


# ---- the breaker


def hedged(outcomes: list[object], *, seconds: float = 0.0, **limits: float) -> tuple[Reply[str], FakeBackend, float]:
    """One call that is hedged after a second."""
    backend = FakeBackend(outcomes, seconds)
    reply, ended = call_once(backend, hedge_seconds=1, **limits)
    return reply, backend, ended


def test_a_stalled_request_gets_a_second_one_whose_answer_counts() -> None:
    reply, backend, ended = hedged([HANG, ANSWER])
    assert (reply.value, reply.attempts, ended, len(backend.requests)) == ("a ring", 1, 1, 2)
    assert reply.decisions == (Decision.HEDGED,) and backend.busy == 0


def test_a_request_that_is_answered_in_time_is_not_hedged() -> None:
    reply, backend, _ = hedged([ANSWER], seconds=0.9)
    assert (reply.decisions, len(backend.requests)) == ((), 1)


def test_a_failed_hedge_does_not_end_the_first_request() -> None:
    async def scenario() -> Reply[str]:
        return await request(make_path(send, hedge_seconds=1, attempts=1))

    async def send(body: bytes) -> bytes:
        sent.append(now())
        if len(sent) == 2:
            raise SERVER_ERROR
        await asyncio.sleep(5)
        return ANSWER

    sent: list[float] = []
    assert run(scenario()).value == "a ring" and sent == [0, 1]


def test_a_hedge_needs_a_slot_of_its_own() -> None:
    reply, backend, _ = hedged([HANG, ANSWER], concurrency=1, attempts=1, deadline_seconds=3)
    assert reply.failure is not None and len(backend.requests) == 1 and reply.decisions == ()


def test_both_requests_of_a_hedged_attempt_end_at_its_deadline() -> None:
    reply, backend, ended = hedged([HANG], attempts=1, deadline_seconds=3)
    assert reply.failure is not None and reply.failure.kind is FailureKind.TIMEOUT
    assert (ended, len(backend.requests), backend.busy) == (3, 2, 0)


@pytest.mark.parametrize("given", [{"usd": 0.01}, {"vendor": "serpapi"}])
def test_a_server_that_reports_a_vendor_or_a_cost_is_not_hedged_from_then_on(given: dict[str, Any]) -> None:
    async def send(body: bytes, bill: Bill) -> bytes:
        sent.append(body)
        vars(bill).update(given)
        await asyncio.sleep(5)
        return ANSWER

    async def scenario() -> list[Reply[str]]:
        path = make_path(send, hedge_seconds=6)
        path.send = send
        first = await request(path, "first")
        path.policy = path.policy.model_copy(update={"hedge_seconds": 1})
        return [first, await request(path, "second")]

    sent: list[bytes] = []
    replies = run(scenario())
    assert len(sent) == 2 and [reply.usd for reply in replies] == [given.get("usd", 0)] * 2


def test_a_server_that_has_a_price_is_never_hedged() -> None:
    reply, backend, _ = hedged([HANG, ANSWER], attempts=1, deadline_seconds=3, usd_per_call=0.01)
    assert reply.failure is not None and len(backend.requests) == 1


# ---- metrics


def test_attempts_failures_and_recoveries_are_counted() -> None:
    def counted(name: str, outcome: str) -> float:
        labels = {"tool": "textSearch", "backend": "counted", "outcome": outcome}
        return metrics.REGISTRY.get_sample_value(name, labels) or 0.0

    async def scenario() -> None:
        path = make_path(FakeBackend([SERVER_ERROR, SERVER_ERROR, ANSWER]))
        path.backend = "counted"
        await asyncio.gather(request(path), request(path))  # one call, joined by the other
        await request(path)

    run(scenario())
    assert counted("gog_tool_attempts_total", "server_error") == 2
    assert counted("gog_tool_attempts_total", "ok") == 1
    assert counted("gog_tool_calls_total", "ok") == 1
    assert counted("gog_tool_calls_total", "server_error") == 0


def test_decisions_are_counted() -> None:
    def counted(decision: Decision) -> float:
        labels = {"tool": "textSearch", "decision": decision}
        return metrics.REGISTRY.get_sample_value("gog_tool_decisions_total", labels) or 0.0

    before = {each: counted(each) for each in (Decision.RETRIED, Decision.HEDGED)}
    call_once(FakeBackend([SERVER_ERROR, HANG, ANSWER]), hedge_seconds=1, backoff_seconds=0)
    assert {each: counted(each) - before[each] for each in before} == {Decision.RETRIED: 1, Decision.HEDGED: 1}

"""Outages: a service that is down is waited for, a service that is set up wrongly is not."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from support.builders import now, run
from support.loopback import Handler, Provider, hang, responds, with_toolbox

from gog import outage
from gog.errors import ServiceDown, UserError
from gog.outage import Down, Healthy, Patience, Waiting, Watch
from gog.spec import OutageSpec
from gog.tool_client import Toolbox
from gog.tool_types import FailureKind, Reply, ToolFailure

DEAD = ToolFailure("textSearch", FailureKind.SERVER_ERROR, "HTTP 503: overloaded")
REFUSED = ToolFailure("textSearch", FailureKind.REFUSED, "HTTP 401: no such key")


def refused(after: int) -> ToolFailure:
    """A call that a breaker refused after so many failed attempts in a row."""
    return ToolFailure("textSearch", FailureKind.BREAKER_OPEN, "too many failures", failed_attempts=after)


class Clock:
    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


def patience_after(*outcomes: ToolFailure | None, service: str = "textSearch") -> tuple[Patience, Clock]:
    clock = Clock()
    patience = Patience(service, OutageSpec(patience_seconds=60), clock)
    for outcome in outcomes:
        patience.observe(outcome)
    return patience, clock


MISSED = ToolFailure("textSearch", FailureKind.CACHE_MISS, "not recorded")


def test_a_strict_replay_of_another_run_ends_with_a_remedy_and_one_with_gaps_goes_on() -> None:
    async def scenario(*replies: Reply[str]) -> int:
        watch, given = Watch(OutageSpec(), clock=now), iter(replies)

        async def call() -> Reply[str]:
            return next(given)

        for _ in replies:
            await watch.call("textSearch", call)
        return len(replies)

    missed = Reply[str](None, MISSED)
    assert run(scenario(*[missed] * 19)) == 19
    assert run(scenario(Reply("found", cached=True), *[missed] * 50)) == 51
    with pytest.raises(UserError, match=r"tools.cache.path: none of the first calls of textSearch is recorded.*replay"):
        run(scenario(*[missed] * 20))


# ---- the decision


def test_five_failures_in_a_row_are_an_outage_and_four_are_not() -> None:
    assert patience_after(*[DEAD] * 4)[0].verdict() == Healthy()
    assert isinstance(patience_after(*[DEAD] * 5)[0].verdict(), Waiting)


def test_a_success_in_between_keeps_a_service_healthy_and_one_afterwards_ends_the_outage() -> None:
    assert patience_after(*[DEAD] * 4, None, *[DEAD] * 4)[0].verdict() == Healthy()
    assert patience_after(*[DEAD] * 9, None)[0].verdict() == Healthy()


def test_a_wait_counts_down_and_ends_after_the_patience() -> None:
    patience, clock = patience_after(*[DEAD] * 5)
    clock.now += 59.0
    assert patience.verdict() == Waiting("textSearch", "server_error: HTTP 503: overloaded", 59.0, 1.0)
    clock.now += 1.0
    assert patience.verdict() == Down("textSearch", "server_error: HTTP 503: overloaded", 60.0)


def test_probes_become_rarer_and_one_call_at_a_time_is_a_probe() -> None:
    patience, clock = patience_after(*[DEAD] * 5)
    probes = []
    while len(probes) < 8:
        clock.now += 1.0
        if patience.may_probe():
            probes.append(clock.now - 1_000)
            assert not patience.may_probe()
            patience.observe(DEAD)
    assert probes == [1, 3, 7, 15, 31, 61, 91, 121]


def test_calls_that_an_open_breaker_refuses_add_nothing_to_the_failures_that_opened_it() -> None:
    assert patience_after(DEAD, *[refused(after=1)] * 50)[0].verdict() == Healthy()
    assert isinstance(patience_after(DEAD, *[refused(after=1)] * 50, *[DEAD] * 4)[0].verdict(), Waiting)


def test_a_breaker_that_five_failures_opened_is_an_outage_although_their_calls_have_not_returned_yet() -> None:
    assert patience_after(refused(after=4))[0].verdict() == Healthy()
    assert isinstance(patience_after(refused(after=5))[0].verdict(), Waiting)


def test_an_open_breaker_does_not_hide_why_the_service_failed() -> None:
    patience, _ = patience_after(*[DEAD] * 5, refused(after=5))
    verdict = patience.verdict()
    assert isinstance(verdict, Waiting) and "overloaded" in verdict.reason


@pytest.mark.parametrize("kind", [FailureKind.REFUSED, FailureKind.CACHE_MISS])
def test_a_refusal_and_a_cache_miss_are_no_outage(kind: FailureKind) -> None:
    assert patience_after(*[ToolFailure("textSearch", kind)] * 50)[0].verdict() == Healthy()


def test_nonsense_from_a_tool_is_an_outage_and_from_the_judge_it_is_not() -> None:
    nonsense = ToolFailure("x", FailureKind.MALFORMED, "<html>")
    assert isinstance(patience_after(*[nonsense] * 5)[0].verdict(), Waiting)
    assert patience_after(*[nonsense] * 5, service="judge")[0].verdict() == Healthy()


@pytest.mark.parametrize(("service", "enough"), [("textSearch", 20), ("judge", 5)])
def test_a_service_that_has_refused_every_call_is_misconfigured(service: str, enough: int) -> None:
    assert patience_after(*[REFUSED] * (enough - 1), service=service)[0].misconfigured == ""
    assert "no such key" in patience_after(*[REFUSED] * enough, service=service)[0].misconfigured
    assert patience_after(None, *[REFUSED] * enough, service=service)[0].misconfigured == ""


NO_CREDIT = ToolFailure("textSearch", FailureKind.NO_CREDIT, "HTTP 402: top up")


def test_calls_wait_from_the_first_response_that_the_account_is_closed() -> None:
    verdict = patience_after(None, NO_CREDIT)[0].verdict()
    assert isinstance(verdict, Waiting) and verdict.reason == "no_credit: HTTP 402: top up"
    assert patience_after(None, NO_CREDIT, None)[0].verdict() == Healthy()


def test_an_account_that_was_closed_from_the_start_is_the_user_s_to_correct() -> None:
    assert patience_after(*[NO_CREDIT] * 4)[0].misconfigured == ""
    assert "top up" in patience_after(*[NO_CREDIT] * 5)[0].misconfigured
    assert patience_after(None, *[NO_CREDIT] * 50)[0].misconfigured == ""


def test_a_wait_is_reported_with_the_times_when_it_began_and_when_it_ends() -> None:
    waiting = Waiting("judge", "timeout: no answer within 30 s", seconds=90, seconds_left=510)
    assert waiting.progress(now=1_800_000_000) == {
        "reason": "JudgeDown",
        "message": "judge is down: timeout: no answer within 30 s",
        "since": "2027-01-15T07:58:30Z",
        "until": "2027-01-15T08:08:30Z",
    }


# ---- calls that wait


@dataclass
class Service:
    """Down until `back`, in the loop's seconds."""

    back: float
    failure: ToolFailure = DEAD
    times: list[float] = field(default_factory=list)
    seconds: float = 0.0

    async def call(self) -> Reply[str]:
        self.times.append(now())
        await asyncio.sleep(self.seconds)
        return Reply("answer") if now() >= self.back else Reply(None, self.failure)


def call_all(service: Service, calls: int, patience: float = 600.0) -> tuple[list[Reply[str]], list[Waiting | None]]:
    """So many calls one after the other, and what was reported."""

    async def scenario() -> tuple[list[Reply[str]], list[Waiting | None]]:
        reported: list[Waiting | None] = []
        watch = Watch(OutageSpec(patience_seconds=patience), reported.append, clock=now)
        return [await watch.call("textSearch", service.call) for _ in range(calls)], reported

    return run(scenario())


def values(replies: Sequence[Reply[str]]) -> list[str | None]:
    return [reply.value for reply in replies]


def test_calls_of_a_service_that_is_down_wait_for_it_and_are_repeated() -> None:
    service = Service(back=100.0)
    replies, _ = call_all(service, 6)
    assert values(replies) == [None] * 4 + ["answer"] * 2
    assert 100 <= service.times[-2] < 100 + outage.LONGEST_PROBE
    assert len(service.times) < 20


def test_a_wait_is_reported_when_it_begins_and_when_it_is_over() -> None:
    _, reported = call_all(Service(back=3.0), 6)
    first, last = reported
    assert isinstance(first, Waiting) and first.seconds_left == 600 and last is None


def test_a_service_that_stays_down_ends_the_stage_with_its_own_words() -> None:
    with pytest.raises(ServiceDown, match=r"textSearch: down for 60 s: server_error: HTTP 503: overloaded"):
        call_all(Service(back=1e9), 6, patience=60.0)


def test_a_wait_that_outlasts_the_patience_is_not_reported_as_over() -> None:
    async def scenario() -> list[Waiting | None]:
        reported: list[Waiting | None] = []
        watch = Watch(OutageSpec(patience_seconds=60), reported.append, clock=now)
        slow = Service(back=1e9, seconds=50.0)
        await asyncio.gather(*(watch.call("textSearch", slow.call) for _ in range(8)), return_exceptions=True)
        return reported

    assert None not in run(scenario())


def test_a_service_that_refuses_every_call_is_the_user_s_to_correct() -> None:
    with pytest.raises(UserError, match=r"endpoints.textSearch: .*HTTP 401: no such key"):
        call_all(Service(back=1e9, failure=REFUSED), 25)


def test_an_answer_from_the_cache_says_nothing_about_the_service() -> None:
    async def scenario() -> list[Reply[str]]:
        watch = Watch(OutageSpec(), clock=now)

        async def cached() -> Reply[str]:
            return Reply("kept", cached=True)

        service = Service(back=50.0)
        calls = [service.call, service.call, service.call, service.call, cached, service.call]
        return [await watch.call("textSearch", call) for call in calls]

    assert values(run(scenario())) == [None] * 4 + ["kept", "answer"]


def test_an_outage_of_one_service_holds_no_call_of_another() -> None:
    async def scenario() -> float:
        watch = Watch(OutageSpec(), clock=now)
        dead, alive = Service(back=1e9), Service(back=0.0)
        for _ in range(4):
            await watch.call("textSearch", dead.call)
        stuck = asyncio.ensure_future(watch.call("textSearch", dead.call))
        await asyncio.sleep(2)
        await watch.call("imageSearch", alive.call)
        stuck.cancel()
        return now()

    assert run(scenario()) == 2


# ---- calls that share one request, or that a breaker refuses: the real toolbox and a real server

BROKEN = responds(b"<html>busy</html>")


@dataclass
class Searched:
    """Concurrent text searches."""

    replies: list[Any]
    """Replies and exceptions, in the order of the queries."""
    reported: list[Waiting | None]
    """Outages that were reported."""
    requests: int
    """Requests that reached the server."""

    @property
    def failures(self) -> list[FailureKind | type | None]:
        """Kind of each failure, the type of an exception, None for a success."""
        return [
            type(reply) if isinstance(reply, Exception) else reply.failure and reply.failure.kind
            for reply in self.replies
        ]


def search_together(queries: Sequence[str], handler: Handler, **limits: Any) -> Searched:
    """Sends all queries at once to the real toolbox, which waits a moment only for an outage to end."""
    reported: list[Waiting | None] = []

    async def use(tools: Toolbox, provider: Provider) -> Searched:
        searches = (tools.search_text(query) for query in queries)
        replies = await asyncio.gather(*searches, return_exceptions=True)
        return Searched(replies, reported, len(provider.requests["textSearch"]))

    watch = Watch(OutageSpec(patience_seconds=0.01), reported.append)
    return with_toolbox({"textSearch": [handler]}, use, watch=watch, **{"attempts": 1, "concurrency": 64, **limits})


@pytest.mark.parametrize(("handler", "kind"), [(BROKEN, FailureKind.MALFORMED), (hang, FailureKind.TIMEOUT)])
def test_one_failed_request_that_five_callers_share_is_no_outage(handler: Handler, kind: FailureKind) -> None:
    searched = search_together(["ring"] * 5, handler, deadline_seconds=0.2)
    assert searched.failures == [kind] * 5
    assert searched.requests == 1 and searched.reported == []


def test_one_failed_request_whose_breaker_refuses_five_others_is_no_outage() -> None:
    searched = search_together(list("abcdef"), BROKEN, breaker_failures=1, concurrency=1)
    assert searched.failures == [FailureKind.MALFORMED, *[FailureKind.BREAKER_OPEN] * 5]
    assert searched.requests == 1 and searched.reported == []


def test_five_different_requests_that_fail_in_a_row_are_an_outage() -> None:
    searched = search_together(list("abcde"), BROKEN)
    assert searched.failures == [FailureKind.MALFORMED] * 4 + [ServiceDown]
    (waiting,) = searched.reported
    assert isinstance(waiting, Waiting) and waiting.reason.startswith("malformed")


@pytest.mark.parametrize("same", [1, 5])
@pytest.mark.parametrize("attempts", [1, 3])
def test_a_hard_outage_is_noticed_in_the_first_calls_of_many(same: int, attempts: int) -> None:
    queries = [f"query {number}" for number in range(40) for _ in range(same)]
    searched = search_together(
        queries, BROKEN, attempts=attempts, concurrency=4, breaker_failures=20, backoff_seconds=0.2
    )
    reached = [kind for kind in searched.failures if kind is not ServiceDown]
    assert len(reached) <= (outage.FAILURES - 1) * same
    assert searched.requests <= 20 + 4 - 1, "the breaker opens while others are under way"

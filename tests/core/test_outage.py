"""Outages: a service that is down is waited for, a service that is set up wrongly is not."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest
from support.builders import now, run

from gog import outage
from gog.errors import ServiceDown, UserError
from gog.outage import Down, Healthy, Patience, Waiting, Watch
from gog.spec import OutageSpec
from gog.tool_types import FailureKind, Reply, ToolFailure

DEAD = ToolFailure("textSearch", FailureKind.SERVER_ERROR, "HTTP 503: overloaded")
REFUSED = ToolFailure("textSearch", FailureKind.REFUSED, "HTTP 401: no such key")


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


def test_an_open_breaker_does_not_hide_why_the_service_failed() -> None:
    patience, _ = patience_after(*[DEAD] * 5, ToolFailure("textSearch", FailureKind.BREAKER_OPEN, "too many failures"))
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

    async def call(self) -> Reply[str]:
        self.times.append(now())
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

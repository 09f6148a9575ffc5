"""Whether a tool or the judge is down, and how long a stage waits for it.

An outage is no fault of the manifest: the same run succeeds once the service answers again. So a service counts as down
after FAILURES failed calls in a row. Its calls then wait, and those that failed meanwhile are repeated; one call at a
time is let through as a probe, at intervals that double. The first success ends the outage. When the patience that the
manifest grants is used up, waiting calls raise ServiceDown: the stage's attempt fails and is retried.

`Patience` decides and is pure; `Watch` makes asynchronous calls wait. A service that answers, but with refusals or
nonsense, is not down: waiting cannot help there, and the user can (`Patience.misconfigured`, `judging.check`).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, TypeVar

from gog import metrics, tracing
from gog.errors import ServiceDown, UserError
from gog.spec import OutageSpec
from gog.tool_types import FailureKind, Reply, ToolFailure

FAILURES = 5
"""Failed calls in a row, none succeeding in between, from which a service counts as down."""
REFUSALS = 20
"""Refused calls of a tool, none ever having succeeded, from which it counts as misconfigured; of the judge, FAILURES."""
FIRST_PROBE, LONGEST_PROBE = 1.0, 30.0
"""Seconds before the first probe, and between probes at most."""
TICK = 1.0
"""Seconds between looks of a waiting call at whether the outage is over."""
UNREACHABLE = frozenset(
    {
        FailureKind.TIMEOUT,
        FailureKind.RATE_LIMITED,
        FailureKind.SERVER_ERROR,
        FailureKind.CONNECTION,
        FailureKind.BREAKER_OPEN,
    }
)
"""Failures of a service that did not answer the call."""

Value = TypeVar("Value")


@dataclass(frozen=True)
class Healthy:
    """Calls go through."""


@dataclass(frozen=True)
class Waiting:
    """The service is down, and calls wait for it."""

    service: str
    """Name of the tool, or `judge`."""
    reason: str
    """Why its last call failed."""
    seconds: float
    """Seconds since the outage was noticed."""
    seconds_left: float
    """Seconds after which waiting calls give up."""

    def progress(self, now: float) -> dict[str, str]:
        """Field `waiting` of a stage's progress.

        Args:
            now: seconds since 1970.
        """
        return {
            "reason": "JudgeDown" if self.service == "judge" else "ToolDown",
            "message": f"{self.service} is down: {self.reason}",
            "since": _rfc3339(now - self.seconds),
            "until": _rfc3339(now + self.seconds_left),
        }


@dataclass(frozen=True)
class Down:
    """The service was down for longer than the stage waits."""

    service: str
    """Name of the tool, or `judge`."""
    reason: str
    """Why its last call failed."""
    seconds: float
    """Seconds since the outage was noticed."""


Verdict = Healthy | Waiting | Down


@dataclass
class Patience:
    """The recent calls of one service, and what follows from them.

    Example of an outage, with patience_seconds = 600:
        patience.observe(failure)      # five times: verdict() becomes Waiting
        patience.may_probe()           # True once, 1 s later; then after 2, 4, … 30 s
        patience.observe(None)         # the probe succeeded: Healthy
    """

    service: str
    """Name of the tool, or `judge`."""
    spec: OutageSpec
    """How long to wait."""
    clock: Callable[[], float] = time.monotonic
    """Seconds; only differences matter."""
    _in_a_row: int = 0
    _refused: int = 0
    _answered: bool = False
    _reason: str = ""
    _since: float | None = None
    _probe_at: float = 0.0
    _pause: float = FIRST_PROBE

    def observe(self, failure: ToolFailure | None) -> None:
        """Takes note of one call that reached the service, or tried to.

        Args:
            failure: why it failed; None for a success.
        """
        if failure is None:
            self._in_a_row, self._refused, self._answered, self._since, self._pause = 0, 0, True, None, FIRST_PROBE
        elif self._is_outage(failure.kind):
            self._in_a_row += 1
            if failure.kind is not FailureKind.BREAKER_OPEN or not self._reason:
                self._reason = failure.words
            if self._in_a_row >= FAILURES and self._since is None:
                self._since = self.clock()
                self._probe_at = self._since + self._pause
        elif failure.kind is not FailureKind.CACHE_MISS:
            self._in_a_row, self._since, self._pause = 0, None, FIRST_PROBE  # it answers
            self._refused, self._reason = self._refused + 1, failure.words

    def _is_outage(self, kind: FailureKind) -> bool:
        """A tool that answers HTML or half a body is as good as down. A judge that replies with something else than a
        verdict is not: it was asked in a way that it does not understand."""
        return kind in UNREACHABLE or (kind is FailureKind.MALFORMED and self.service != "judge")

    def verdict(self) -> Verdict:
        """Whether calls go through, wait, or give up."""
        if self._since is None:
            return Healthy()
        seconds = self.clock() - self._since
        left = self.spec.patience_seconds - seconds
        if left > 0:
            return Waiting(self.service, self._reason, seconds, left)
        return Down(self.service, self._reason, seconds)

    def may_probe(self) -> bool:
        """Whether one call may go through although the service is down. True once for each interval."""
        now = self.clock()
        if self._since is None or now < self._probe_at:
            return False
        self._pause = min(2 * self._pause, LONGEST_PROBE)
        self._probe_at = now + self._pause
        return True

    @property
    def misconfigured(self) -> str:
        """Why waiting cannot help: the service answers, but no call has ever succeeded. Empty otherwise."""
        enough = FAILURES if self.service == "judge" else REFUSALS
        return "" if self._answered or self._refused < enough else self._reason


@dataclass
class Watch:
    """Makes the calls of every service of a stage wait while it is down.

    Calls of one event loop. A call that fails while its service is down is repeated after the outage, so that no episode
    is lost to it; at most FAILURES - 1 failures in a row reach the caller.
    """

    spec: OutageSpec
    """How long to wait."""
    report: Callable[[Waiting | None], None] = lambda _: None
    """Called when a wait begins, with the newest reason after each probe, and with None when all services are back."""
    clock: Callable[[], float] = time.monotonic
    """Seconds; only differences matter."""
    sleep: Callable[[float], Awaitable[Any]] = asyncio.sleep
    """Waits for so many seconds."""
    _services: dict[str, Patience] = field(default_factory=dict)
    _reported: Waiting | None = None

    async def call(self, service: str, call: Callable[[], Awaitable[Reply[Value]]]) -> Reply[Value]:
        """The reply of `call`, made when the service is not down.

        Raises:
            ServiceDown: the outage lasted for longer than the manifest's patience.
            UserError: the service has refused every call so far.
        """
        patience = self._services.setdefault(service, Patience(service, self.spec, self.clock))
        while True:
            await self._until_open(patience)
            reply = await call()
            if reply.cached and reply.failure is None:
                return reply
            patience.observe(reply.failure)
            metrics.record_tool_down(service, not isinstance(patience.verdict(), Healthy))
            self._report_news()
            if patience.misconfigured:
                raise UserError(
                    f"it answers, but no call has succeeded; the last reply: {patience.misconfigured}",
                    where=f"endpoints.{service}",
                    remedy="check its address, key, model and back end",
                )
            if reply.failure is None or isinstance(patience.verdict(), Healthy):
                return reply

    async def _until_open(self, patience: Patience) -> None:
        verdict = patience.verdict()
        if isinstance(verdict, Healthy):
            return
        with tracing.span("wait"):
            while not isinstance(verdict, Healthy):
                if isinstance(verdict, Down):
                    raise ServiceDown(verdict.service, f"down for {verdict.seconds:.0f} s: {verdict.reason}")
                if patience.may_probe():
                    return
                await self.sleep(min(TICK, verdict.seconds_left))
                verdict = patience.verdict()

    def _report_news(self) -> None:
        """Reports the service that gives up first, where that is news."""
        waiting = [each for each in map(Patience.verdict, self._services.values()) if isinstance(each, Waiting)]
        first = min(waiting, key=lambda each: each.seconds_left, default=None)
        known = self._reported
        if (first and (first.service, first.reason)) != (known and (known.service, known.reason)):
            self._reported = first
            self.report(first)


def _rfc3339(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")

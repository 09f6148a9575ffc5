"""Detects outages of tools and the judge, and makes a stage wait for their end.

An outage is not an error of the manifest; the same run succeeds once the service responds again. A service counts as
down after FAILURES consecutive failures. Calls then wait, and calls that failed in the meantime are repeated. Single
calls are sent as probes at doubling intervals; the first success ends the outage. When the patience set in the manifest
is exhausted, waiting calls raise ServiceDown, and the stage's attempt fails and is retried.

Only results of requests are evidence. A request that several callers share counts once, and a call that an open breaker
refused adds nothing to the failed attempts that opened the breaker. Otherwise one failed request would be an outage
whenever the five samples of a group make the same call.

`Patience` decides and is pure; `Watch` makes asynchronous calls wait. A service that responds with refusals or invalid
responses is not down. Waiting would not help, and the user must act (`Patience.misconfigured`, `judging.check`).

A service that refuses the key or has no credit left counts as down from its first such response, because every further
call would fail, too. If it has answered before, calls wait: a key can be renewed and an account topped up meanwhile.
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
from gog.tool_types import CLOSED_ACCOUNT, FailureKind, Reply, ToolFailure

FAILURES = 5
"""Consecutive failures after which a service counts as down."""
REFUSALS = 20
"""Refused calls without any success after which a tool counts as misconfigured; for the judge it is FAILURES."""
FIRST_PROBE, LONGEST_PROBE = 1.0, 30.0
"""Seconds before the first probe, and maximum seconds between probes."""
TICK = 1.0
"""Seconds between checks of a waiting call for the end of the outage."""
UNREACHABLE = frozenset(
    {
        FailureKind.TIMEOUT,
        FailureKind.RATE_LIMITED,
        FailureKind.SERVER_ERROR,
        FailureKind.CONNECTION,
        FailureKind.BREAKER_OPEN,
    }
)
"""Failures of a call to which the service gave no valid response."""

Value = TypeVar("Value")


class BudgetUsedUp(UserError):
    """A budget of the run forbids the next call."""


@dataclass(frozen=True)
class Healthy:
    """The service is up, and calls are sent."""


@dataclass(frozen=True)
class Waiting:
    """The service is down, and calls wait for it."""

    service: str
    """Name of the tool, or `judge`."""
    reason: str
    """Why its last call failed."""
    seconds: float
    """Seconds since the outage was detected."""
    seconds_left: float
    """Seconds until waiting calls fail."""

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
    """The recent calls of one service, and the resulting verdict.

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
    _replayed: bool = False
    """Whether the recording has answered a call."""
    _missed: int = 0
    """Calls that are not recorded."""
    _in_a_row: int = 0
    _refused: int = 0
    _answered: bool = False
    _closed: bool = False
    _reason: str = ""
    _since: float | None = None
    _probe_at: float = 0.0
    _pause: float = FIRST_PROBE

    def observe(self, failure: ToolFailure | None) -> None:
        """Records the result of one call. A result that several callers share must be recorded once.

        Args:
            failure: Why the call failed; None for a success.
        """
        if failure is None:
            self._in_a_row, self._refused, self._answered, self._since, self._pause = 0, 0, True, None, FIRST_PROBE
        elif self._is_outage(failure.kind):
            refused = failure.kind is FailureKind.BREAKER_OPEN
            self._in_a_row = max(self._in_a_row, failure.failed_attempts) if refused else self._in_a_row + 1
            if not refused or not self._reason:
                self._reason = failure.words
            self._begin(self._in_a_row >= FAILURES)
        elif failure.kind in CLOSED_ACCOUNT:
            self._refused, self._reason, self._closed = self._refused + 1, failure.words, True
            self._begin(True)
        elif failure.kind is FailureKind.CACHE_MISS:
            self._missed += 1
        elif failure.kind is not FailureKind.BUDGET:
            self._in_a_row, self._since, self._pause = 0, None, FIRST_PROBE  # the service responds
            self._refused, self._reason = self._refused + 1, failure.words

    def observe_replay(self) -> None:
        """Records that the recording has answered a call."""
        self._replayed = True

    @property
    def unrecorded(self) -> bool:
        """Whether a strict replay has found no call of the service, so that the recording is of another run."""
        return not self._replayed and self._missed >= (FAILURES if self.service == "judge" else REFUSALS)

    def _begin(self, is_down: bool) -> None:
        """Begins an outage, unless the service is up or one has begun."""
        if is_down and self._since is None:
            self._since = self.clock()
            self._probe_at = self._since + self._pause

    def _is_outage(self, kind: FailureKind) -> bool:
        """Whether a failure indicates an outage. A tool that returns HTML or a truncated body counts as down. A judge
        that returns no verdict does not, because the cause is the request."""
        return kind in UNREACHABLE or (kind is FailureKind.MALFORMED and self.service != "judge")

    def verdict(self) -> Verdict:
        """Whether calls are sent, wait, or fail."""
        if self._since is None:
            return Healthy()
        seconds = self.clock() - self._since
        left = self.spec.patience_seconds - seconds
        if left > 0:
            return Waiting(self.service, self._reason, seconds, left)
        return Down(self.service, self._reason, seconds)

    def may_probe(self) -> bool:
        """Whether one call may be sent although the service is down. True once per interval."""
        now = self.clock()
        if self._since is None or now < self._probe_at:
            return False
        self._pause = min(2 * self._pause, LONGEST_PROBE)
        self._probe_at = now + self._pause
        return True

    @property
    def misconfigured(self) -> str:
        """The last failure of a service that responds but has never completed a call, so that waiting would not help;
        empty for other services."""
        enough = FAILURES if self.service == "judge" or self._closed else REFUSALS
        return "" if self._answered or self._refused < enough else self._reason


@dataclass
class Watch:
    """Makes calls to a stage's services wait while a service is down.

    All calls must run in one event loop. A call that fails while its service is down is repeated after the outage, so
    that no episode is lost; at most FAILURES - 1 consecutive failures reach the caller.
    """

    spec: OutageSpec
    """How long to wait."""
    report: Callable[[Waiting | None], None] = lambda _: None
    """Called when a wait begins, with the newest reason after each probe, and with None when all services are up."""
    clock: Callable[[], float] = time.monotonic
    """Seconds; only differences matter."""
    sleep: Callable[[float], Awaitable[Any]] = asyncio.sleep
    """Waits for so many seconds."""
    _services: dict[str, Patience] = field(default_factory=dict)
    _reported: Waiting | None = None

    async def call(self, service: str, call: Callable[[], Awaitable[Reply[Value]]]) -> Reply[Value]:
        """Waits until the service is not down, then makes the call.

        Raises:
            ServiceDown: the outage exceeded the manifest's patience.
            UserError: the service has refused every call so far.
            BudgetUsedUp: the run's budget, or the service's own, is used up.
        """
        patience = self._services.setdefault(service, Patience(service, self.spec, self.clock))
        while True:
            await self._until_open(patience)
            reply = await call()
            if not reply.cached:  # otherwise the call that sent the request records its result
                patience.observe(reply.failure)
                metrics.record_tool_down(service, not isinstance(patience.verdict(), Healthy))
                self._report_news()
            elif reply.failure is None:
                patience.observe_replay()
            if patience.unrecorded:
                raise UserError(
                    f"none of the first calls of {service} is recorded, and the cache is replay-strict",
                    where="tools.cache.path",
                    remedy="name the recording of this run: same data, seed, prompts, back ends and judge; or use "
                    "replay-or-live",
                )
            if reply.failure is not None and reply.failure.kind is FailureKind.BUDGET:
                raise BudgetUsedUp(
                    reply.failure.message, where=f"budget of {service}", remedy="raise it, then `gog resume`"
                )
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
        """Reports the service whose patience ends first, if that has changed."""
        verdicts = [patience.verdict() for patience in self._services.values()]
        if any(isinstance(each, Down) for each in verdicts):  # the stage is about to fail: its wait is not over
            return
        waiting = [each for each in verdicts if isinstance(each, Waiting)]
        first = min(waiting, key=lambda each: each.seconds_left, default=None)
        known = self._reported
        if (first and (first.service, first.reason)) != (known and (known.service, known.reason)):
            self._reported = first
            self.report(first)


def _rfc3339(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")

"""The path that every tool call takes.

    cache → single-flight → slot → breaker → rate limit → attempt with its deadline, hedged → reading of the answer
    → retry within a budget → typed failure

A tool failure must neither stop a run nor become a training signal. A call therefore never raises because of a tool: it
returns a `Reply` with a typed failure. Only this module retries calls. Failures are never cached. Concurrent equal
calls are merged into one.

What was decided on the way (a retry, a hedge, a wait) is in the reply and in metrics. HTTP and time are arguments
(`send`, `clock`, `sleep`).
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import random
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Generic, TypeVar

from pydantic import ValidationError

from gog import metrics, tracing, wording
from gog.calls import hedge
from gog.calls.breaker import Breaker
from gog.calls.rate_limit import RateLimit
from gog.calls.spend import Account
from gog.spec import CallPolicy
from gog.tool_cache import Cache
from gog.tool_types import CLOSED_ACCOUNT, RETRYABLE, Bill, Decision, FailureKind, Reply, ToolFailure

Value = TypeVar("Value")
Build = Callable[[Callable[[], bytes]], Awaitable[bytes]]
"""Calls a function that builds a request's body, in this thread or in another."""


class CallError(Exception):
    """One attempt failed. `send` and `read` raise it; the call path turns it into a ToolFailure.

    Attributes:
        kind: Kind of the failure, which determines whether it is retried.
        message: The server's error message, or a description of the failure.
        retry_after: Seconds to wait before the next attempt, as requested by the server; None if it requests nothing.
    """

    def __init__(self, kind: FailureKind, message: str = "", retry_after: float | None = None) -> None:
        super().__init__(message)
        self.kind, self.message, self.retry_after = kind, message, retry_after


LONG_ANSWER = 1 << 17
"""Bytes from which an answer is read in another thread."""
UNREADABLE = (CallError, ValueError, RecursionError)
"""What `read` may raise for an answer that it cannot read."""


def cache_key(tool: str, backend: str, version: str, arguments: Mapping[str, Any]) -> str:
    """Key under which the answer of a call is kept.

    Args:
        tool: name of the tool.
        backend: what answers: the back end with its options and data, the vendor, or the address of a server.
        version: of the request's form, and for the judge of its rules and model.
        arguments: JSON values; an image is its pixel hash.
    """
    canonical = json.dumps([tool, backend, version, arguments], sort_keys=True, separators=(",", ":"))
    return hashlib.blake2b(canonical.encode(), digest_size=16).hexdigest()


@dataclass
class _Call:
    """What happens during one call."""

    tool: str
    """Name of the tool."""
    decisions: dict[Decision, None] = field(default_factory=dict)
    """What was decided, in order, each once."""
    waited: float = 0.0
    """Seconds for which the rate limit held its requests."""
    usd: float = 0.0
    """What its requests cost, in US dollars."""

    def decide(self, decision: Decision) -> None:
        """Takes note of a decision."""
        metrics.record_decision(self.tool, decision)
        self.decisions.setdefault(decision)

    def reply(self, value: Any, failure: ToolFailure | None, attempts: int, seconds: float) -> Reply[Any]:
        """The reply of this call."""
        return Reply(value, failure, attempts, seconds, False, tuple(self.decisions), self.waited, self.usd)


def _first_line(error: ValueError) -> str:
    """The first line of an error's message. That of pydantic has more for each error, and takes seconds for many."""
    if isinstance(error, ValidationError):
        count = error.error_count()
        return f"{count} validation error{'s' * (count > 1)} for {error.title}"
    return str(error).partition("\n")[0]


async def _read(read: Callable[[bytes], Value], answer: bytes) -> Value:
    """The value of an answer; a long one is read in another thread, so that the loop serves others meanwhile."""
    return read(answer) if len(answer) <= LONG_ANSWER else await asyncio.to_thread(read, answer)


async def build_here(body: Callable[[], bytes]) -> bytes:
    """Builds a request in this event loop."""
    return body()


@dataclass
class CallPath(Generic[Value]):
    """Calls of one tool at one back end."""

    tool: str
    """Name of the tool, as in catalog.TOOLS."""
    backend: str
    """Label of metrics; one of few words, never an address."""
    send: Callable[[bytes, Bill], Awaitable[bytes]]
    """Body of a request -> body of the answer, whose cost it writes into the bill. Raises CallError."""
    policy: CallPolicy
    """Attempts, deadlines, concurrency, breaker."""
    cache: Cache
    """Answers by key."""
    answered_by: str = ""
    """What answers, as part of cache keys: back end and data, vendor, or address; empty takes `backend`."""
    version: str = "1"
    """Of the request's form, as part of cache keys."""
    clock: Callable[[], float] = time.monotonic
    """Seconds; only differences matter."""
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    """Waits for so many seconds."""
    rng: random.Random = field(default_factory=lambda: random.Random(0))
    """Jitter of the pauses."""
    build: Build = build_here
    """Calls the function that builds a request, in another thread where that takes long."""
    rate: RateLimit = field(default_factory=lambda: RateLimit(None))
    """Spaces the requests of this tool, over all processes of the machine."""
    account: Account = field(default_factory=Account)
    """What calls cost, and the budgets that they must keep to."""
    charged_as: str = ""
    """Name under which the account is charged; empty takes `tool`."""

    def __post_init__(self) -> None:
        self.charged_as = self.charged_as or self.tool
        self._span = f"execute_tool {self.tool}"
        self._slots = asyncio.Semaphore(self.policy.concurrency)
        self._last_failure = ""
        self._is_paid = bool(self.policy.usd_per_call)
        self._flights: dict[str, asyncio.Task[Reply[Value]]] = {}
        self.breaker = Breaker(self.policy.breaker_failures, self.policy.breaker_seconds, self.clock)
        metrics.initialise_tool(self.tool, self.backend)

    async def call(
        self, arguments: Mapping[str, Any], body: Callable[[], bytes], read: Callable[[bytes], Value]
    ) -> Reply[Value]:
        """One call, whatever becomes of it.

        Args:
            arguments: what the cache key is made of: JSON values.
            body: makes the request's body; called only when a request is sent.
            read: body of an answer -> its value. Raises CallError, or ValueError for a malformed answer.
        """
        with tracing.span(self._span) as span:
            reply = await self._call(arguments, body, read)
            tracing.tool_call(span, self.tool, reply)
        return reply

    async def _call(
        self, arguments: Mapping[str, Any], body: Callable[[], bytes], read: Callable[[bytes], Value]
    ) -> Reply[Value]:
        started = self.clock()
        key = cache_key(self.tool, self.answered_by or self.backend, self.version, arguments)
        stored = await self.cache.get(key)
        with contextlib.suppress(*UNREADABLE):  # recorded in the form of an earlier version: as if it were missing
            if stored is not None:
                value = await _read(read, stored)
                metrics.record_cache_lookup(self.tool, "hit")
                return Reply(value, seconds=self.clock() - started, cached=True, decisions=(Decision.CACHED,))
        if self.cache.strict:
            metrics.record_cache_lookup(self.tool, "miss")
            failure = ToolFailure(self.tool, FailureKind.CACHE_MISS, "not recorded, and the cache is replay-strict")
            return self._finish(Reply(None, failure, seconds=self.clock() - started))
        flight = self._flights.get(key)
        joined = flight is not None
        if flight is None:
            flight = asyncio.ensure_future(self._fly(key, body, read))
            self._flights[key] = flight
            flight.add_done_callback(lambda _: self._flights.pop(key, None))
        metrics.record_cache_lookup(self.tool, "joined" if joined else "miss")
        reply = await asyncio.shield(flight)
        seconds = self.clock() - started
        if not joined:
            return replace(reply, seconds=seconds)
        # The caller that sent the request pays for it.
        return Reply(reply.value, reply.failure, reply.attempts, seconds, cached=True, decisions=(Decision.JOINED,))

    async def abandon(self) -> None:
        """Cancels the calls under way, whose callers are gone, and waits for their end. Called before the sockets close."""
        flights = list(self._flights.values())
        for flight in flights:
            flight.cancel()
        await asyncio.gather(*flights, return_exceptions=True)

    async def _fly(self, key: str, body: Callable[[], bytes], read: Callable[[bytes], Value]) -> Reply[Value]:
        """The call itself. It is in the cache, and in its file, before it is over, so that no equal call falls between
        the two, and no answer is used that a replay would miss."""
        reply, answer = await self._attempts(body, read)
        if answer is not None:
            is_empty = isinstance(reply.value, Sequence) and not reply.value
            await self.cache.put(key, answer, tool=self.tool, is_empty=is_empty)
        return self._finish(reply)

    def _finish(self, reply: Reply[Any]) -> Reply[Any]:
        metrics.record_tool_call(self.tool, self.backend, reply.failure.kind if reply.failure else "ok", reply.seconds)
        return reply

    async def _attempts(
        self, body: Callable[[], bytes], read: Callable[[bytes], Value]
    ) -> tuple[Reply[Value], bytes | None]:
        """Attempts until one succeeds, the kind of failure forbids it, or attempts or budget are used up.

        Returns:
            The reply, and the answer's body where there is one.
        """
        started, attempt, left = self.clock(), 0, self.policy.budget_seconds
        request: bytes | None = None
        call = _Call(self.tool)
        while True:
            # Waiting for a slot or for the rate limit costs nothing of the budget: the queue is ours, not the tool's.
            async with self._slots:
                refusal = await self._admit(call)
                if refusal is not None:
                    return call.reply(None, refusal, attempt, self.clock() - started), None
                attempt += 1
                began = self.clock()
                try:
                    if request is None:  # with a slot only, because the requests of waiting calls would fill the memory
                        request = await self.build(body)
                        began = self.clock()
                    with tracing.span("attempt") as span:
                        outcome = await self._attempt(request, read, min(self.policy.deadline_seconds, left), call)
                        if span is not None and isinstance(outcome, ToolFailure):
                            span.error = outcome.kind
                finally:
                    self.account.release(self.charged_as)
                left -= self.clock() - began
            if not isinstance(outcome, ToolFailure):
                value, answer = outcome
                return call.reply(value, None, attempt, self.clock() - started), answer
            pause = self._pause(attempt, outcome)
            if outcome.kind not in RETRYABLE or attempt >= self.policy.attempts or pause >= left:
                return call.reply(None, outcome, attempt, self.clock() - started), None
            call.decide(Decision.RETRIED)
            await self.sleep(pause)
            left -= pause

    async def _admit(self, call: _Call) -> ToolFailure | None:
        """Waits until a request may be sent, and reserves it in the budget; returns why none may be sent.

        Asked with a slot in hand, so that calls queued behind a dead back end are refused at once instead of waiting for
        their deadlines one after the other. A request that is refused takes neither a place of the rate limit nor the
        test of an open breaker.
        """
        await self.account.wait_for_price(self.charged_as)
        refusal = self._refusal(call)
        if refusal is None:
            if waited := await self.rate.wait():
                call.waited += waited
                call.decide(Decision.WAITED)
            # Others may have gone first even where this call did not sleep: the breaker may have opened meanwhile, or
            # the budget been used up.
            await self.account.wait_for_price(self.charged_as)
            refusal = self._refusal(call)
        if refusal is None:
            self.account.reserve(self.charged_as)
            self.breaker.admits()
        return refusal

    def _refusal(self, call: _Call) -> ToolFailure | None:
        """Why no request may be sent now. Takes nothing."""
        if self.breaker.refuses:
            call.decide(Decision.BREAKER)
            why = f"{self.breaker.reason}, the last: {self._last_failure}"
            return ToolFailure(self.tool, FailureKind.BREAKER_OPEN, why, failed_attempts=self.breaker.failed_attempts)
        for kind, why in (
            (FailureKind.NO_CREDIT, self.account.no_credit(self.charged_as)),
            (FailureKind.BUDGET, self.account.used_up(self.charged_as)),
        ):
            if why:
                call.decide(Decision.BUDGET)
                return ToolFailure(self.tool, kind, why)
        return None

    def _pause(self, attempt: int, failure: ToolFailure) -> float:
        """Seconds before the next attempt: exponential with jitter, and no less than the server asked for.

        A server that asks for no time, or for a time that has passed, must not be asked at once, as often as there are
        attempts.
        """
        backoff = self.policy.backoff_seconds * 2 ** (attempt - 1) * (0.5 + self.rng.random() / 2)
        return max(backoff, failure.retry_after or 0.0)

    async def _exchange(
        self, request: bytes, read: Callable[[bytes], Value], call: _Call, until: float
    ) -> tuple[Value, bytes]:
        """One request: the value with the answer it was read from. until: when its answer must be there, on the loop's
        clock; reading does not count."""
        bill, price, is_answered = Bill(), self.policy.usd_per_call or 0.0, False
        try:
            async with asyncio.timeout_at(until):
                answer = await self.send(request, bill)
            is_answered = True
        except CallError:
            price = 0.0  # vendors charge for answers; of a request that was cut off it is not known
            raise
        finally:
            self._charge(bill, price, call, is_answered)
        return await _read(read, answer), answer

    def _charge(self, bill: Bill, price: float, call: _Call, is_answered: bool) -> None:
        """Adds the cost of a request to its call and to the account. price: where the server reports no cost."""
        usd = price if bill.usd is None else bill.usd
        if bill.usd is None and price:
            metrics.record_cost(self.tool, self.backend, price, None)
        call.usd += usd
        self._is_paid = self._is_paid or usd > 0 or bool(bill.vendor)
        calls = 1 if bill.calls is None else bill.calls
        # A failure that costs nothing does not make the next answer free.
        self.account.charge(self.charged_as, calls, usd, bill.credit, is_price=is_answered or usd > 0)

    async def _hedged(
        self, request: bytes, read: Callable[[bytes], Value], call: _Call, until: float
    ) -> tuple[Value, bytes]:
        """An exchange, and a second one if the first is slow, and a slot and the budgets allow it; never at a back end
        that charges."""
        reserved = False

        def first() -> Awaitable[tuple[Value, bytes]]:
            return self._exchange(request, read, call, until)

        def second() -> Callable[[], Awaitable[tuple[Value, bytes]]] | None:
            nonlocal reserved
            is_free = not self._is_paid and not self._slots.locked() and not self.account.used_up(self.charged_as)
            if not is_free or self.account.must_learn_price(self.charged_as) or not self.rate.try_now():
                return None
            self.account.reserve(self.charged_as)
            reserved = True
            call.decide(Decision.HEDGED)
            return in_a_slot

        async def in_a_slot() -> tuple[Value, bytes]:
            async with asyncio.timeout_at(until):
                await self._slots.acquire()
            try:
                return await first()
            finally:
                self._slots.release()

        assert self.policy.hedge_seconds is not None
        try:
            return await hedge.first_success(first, self.policy.hedge_seconds, second)
        finally:
            if reserved:
                self.account.release(self.charged_as)

    async def _attempt(
        self, request: bytes, read: Callable[[bytes], Value], deadline: float, call: _Call
    ) -> tuple[Value, bytes] | ToolFailure:
        """One attempt: the value with the answer it was read from. deadline in seconds; reading does not count."""
        exchange = self._exchange if self.policy.hedge_seconds is None else self._hedged
        try:
            value, answer = await exchange(request, read, call, asyncio.get_running_loop().time() + deadline)
        except TimeoutError:
            failure = ToolFailure(self.tool, FailureKind.TIMEOUT, f"no answer within {deadline:g} s")
        except CallError as error:
            failure = ToolFailure(
                self.tool, error.kind, wording.one_line(error.message, 2 * wording.MAX_WORDS), error.retry_after
            )
        except RecursionError:
            failure = ToolFailure(self.tool, FailureKind.MALFORMED, "the answer is nested too deeply")
        except ValueError as error:
            failure = ToolFailure(self.tool, FailureKind.MALFORMED, wording.one_line(_first_line(error)))
        else:
            self._report(True)
            metrics.record_tool_attempt(self.tool, self.backend, "ok")
            return value, answer
        # A refusal or an undecided verdict is caused by the request and does not indicate an unhealthy back end.
        self._report(
            failure.kind in (FailureKind.REFUSED, FailureKind.UNDECIDED), at_once=failure.kind in CLOSED_ACCOUNT
        )
        metrics.record_tool_attempt(self.tool, self.backend, failure.kind)
        self._last_failure = failure.words
        return failure

    def _report(self, success: bool, *, at_once: bool = False) -> None:
        self.breaker.report(success, at_once=at_once)
        metrics.record_breaker(self.tool, self.backend, self.breaker.is_open)

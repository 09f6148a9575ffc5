"""The path that every tool call takes.

    cache → single-flight → slot → breaker → rate limit → attempt with its deadline, hedged → reading of the answer
    → retry within a budget → typed failure

A tool failure must neither stop a run nor become a training signal. A call therefore never raises because of a tool: it
returns a `Reply` with a typed failure. Only this module retries calls. Failures are never cached. Concurrent equal
calls are merged into one.

What was decided on the way (a retry, a hedge, a wait) is in the reply and in metrics. HTTP and time are arguments
(`send`, `clock`, `sleep`). A single attempt is in `gog.calls.attempt`.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from gog import metrics, tracing
from gog.calls import attempt
from gog.tool_cache import Cache
from gog.tool_types import RETRYABLE, Decision, FailureKind, Reply, ToolFailure

Value = TypeVar("Value")
Build = Callable[[Callable[[], bytes]], Awaitable[bytes]]
"""Calls a function that builds a request's body, in this thread or in another."""


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


async def build_here(body: Callable[[], bytes]) -> bytes:
    """Builds a request in this event loop."""
    return body()


@dataclass
class CallPath(attempt.Attempts[Value]):
    """Calls of one tool at one back end."""

    cache: Cache
    """Answers by key."""
    answered_by: str = ""
    """What answers, as part of cache keys: back end and data, vendor, or address; empty takes `backend`."""
    version: str = "1"
    """Of the request's form, as part of cache keys."""
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    """Waits for so many seconds."""
    rng: random.Random = field(default_factory=lambda: random.Random(0))
    """Jitter of the pauses."""
    build: Build = build_here
    """Calls the function that builds a request, in another thread where that takes long."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self._span = f"execute_tool {self.tool}"
        self._flights: dict[str, asyncio.Task[Reply[Value]]] = {}

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
        with contextlib.suppress(
            *attempt.UNREADABLE
        ):  # recorded in the form of an earlier version: as if it were missing
            if stored is not None:
                value = await attempt.read_answer(read, stored)
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
        started, number, left = self.clock(), 0, self.policy.budget_seconds
        request: bytes | None = None
        call = attempt.Call(self.tool)
        while True:
            # Waiting for a slot or for the rate limit costs nothing of the budget: the queue is ours, not the tool's.
            async with self._slots:
                refusal = await self._admit(call)
                if refusal is not None:
                    return call.reply(None, refusal, number, self.clock() - started), None
                number += 1
                began = self.clock()
                try:
                    if request is None:  # with a slot only, because the requests of waiting calls would fill the memory
                        request = await self.build(body)
                        began = self.clock()
                    with tracing.span("attempt") as span:
                        seconds = min(self.policy.deadline_seconds, left)
                        outcome = await self._attempt(request, read, seconds, call)
                        if span is not None and isinstance(outcome, ToolFailure):
                            span.error = outcome.kind
                finally:
                    self.account.release(self.charged_as)
                left -= self.clock() - began
                if isinstance(outcome, ToolFailure):
                    self._slots.failed(outcome.kind, began)
                else:
                    self._slots.answered()
            if not isinstance(outcome, ToolFailure):
                value, answer = outcome
                return call.reply(value, None, number, self.clock() - started), answer
            pause = self._pause(number, outcome)
            if outcome.kind not in RETRYABLE or number >= self.policy.attempts or pause >= left:
                return call.reply(None, outcome, number, self.clock() - started), None
            call.decide(Decision.RETRIED)
            await self.sleep(pause)
            left -= pause

    async def _admit(self, call: attempt.Call) -> ToolFailure | None:
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

    def _refusal(self, call: attempt.Call) -> ToolFailure | None:
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

    def _pause(self, attempts: int, failure: ToolFailure) -> float:
        """Seconds before the next attempt: exponential with jitter, and no less than the server asked for.

        A server that asks for no time, or for a time that has passed, must not be asked at once, as often as there are
        attempts.
        """
        backoff = self.policy.backoff_seconds * 2 ** (attempts - 1) * (0.5 + self.rng.random() / 2)
        return max(backoff, failure.retry_after or 0.0)

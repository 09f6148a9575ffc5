"""One attempt at a call: a request with its deadline, hedged by choice, paid for, and the reading of its answer.

It never raises because of a tool: it returns the value, or a typed failure, and reports either to the breaker. It neither
waits for its turn nor repeats anything, which is the call path's (`gog.call_path`).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from pydantic import ValidationError

from gog import metrics, wording
from gog.calls import hedge, slots
from gog.calls.breaker import Breaker
from gog.calls.rate_limit import RateLimit
from gog.calls.spend import Account
from gog.spec import CallPolicy
from gog.tool_types import CLOSED_ACCOUNT, Bill, CallError, Decision, FailureKind, Pages, Reply, ToolFailure, add_pages

Value = TypeVar("Value")

LONG_ANSWER = 1 << 17
"""Bytes from which an answer is read in another thread."""
UNREADABLE = (CallError, ValueError, RecursionError)
"""What `read` may raise for an answer that it cannot read."""


@dataclass
class Call:
    """What happens during one call."""

    tool: str
    """Name of the tool."""
    decisions: dict[Decision, None] = field(default_factory=dict)
    """What was decided, in order, each once."""
    waited: float = 0.0
    """Seconds for which the rate limit held its requests."""
    usd: float = 0.0
    """What its requests cost, in US dollars."""
    pages: Pages = (0, 0)
    """Pages of its requests."""

    def decide(self, decision: Decision) -> None:
        """Takes note of a decision."""
        metrics.record_decision(self.tool, decision)
        self.decisions.setdefault(decision)

    def reply(self, value: Any, failure: ToolFailure | None, attempts: int, seconds: float) -> Reply[Any]:
        """The reply of this call."""
        return Reply(value, failure, attempts, seconds, False, tuple(self.decisions), self.waited, self.usd, self.pages)


def _first_line(error: ValueError) -> str:
    """The first line of an error's message. That of pydantic has more for each error, and takes seconds for many."""
    if isinstance(error, ValidationError):
        count = error.error_count()
        return f"{count} validation error{'s' * (count > 1)} for {error.title}"
    return str(error).partition("\n")[0]


async def read_answer(read: Callable[[bytes], Value], answer: bytes) -> Value:
    """The value of an answer; a long one is read in another thread, so that the loop serves others meanwhile."""
    return read(answer) if len(answer) <= LONG_ANSWER else await asyncio.to_thread(read, answer)


@dataclass
class Attempts(Generic[Value]):
    """Attempts at the calls of one tool at one back end."""

    tool: str
    """Name of the tool, as in catalog.TOOLS."""
    backend: str
    """Label of metrics; one of few words, never an address."""
    send: Callable[[bytes, Bill], Awaitable[bytes]]
    """Body of a request -> body of the answer, whose cost it writes into the bill. Raises CallError."""
    policy: CallPolicy
    """Attempts, deadlines, concurrency, breaker."""
    clock: Callable[[], float] = field(default=time.monotonic, kw_only=True)
    """Seconds; only differences matter."""
    rate: RateLimit = field(default_factory=lambda: RateLimit(None), kw_only=True)
    """Spaces the requests of this tool, over all processes of the machine."""
    account: Account = field(default_factory=Account, kw_only=True)
    """What calls cost, and the budgets that they must keep to."""
    charged_as: str = field(default="", kw_only=True)
    """Name under which the account is charged; empty takes `tool`."""
    price_of: Callable[[Value], float] | None = field(default=None, kw_only=True)
    """US dollars of an answer that was read, where the server reports no cost; None takes `policy.usd_per_call`."""

    def __post_init__(self) -> None:
        self.charged_as = self.charged_as or self.tool
        self.breaker = Breaker(self.policy.breaker_failures, self.policy.breaker_seconds, self.clock)
        self._slots = slots.Slots(self.policy.concurrency, self.clock)
        self._last_failure = ""
        self._is_paid = bool(self.policy.usd_per_call)
        metrics.initialise_tool(self.tool, self.backend)

    async def _attempt(
        self, request: bytes, read: Callable[[bytes], Value], deadline: float, call: Call
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

    async def _exchange(
        self, request: bytes, read: Callable[[bytes], Value], call: Call, until: float
    ) -> tuple[Value, bytes]:
        """One request: the value with the answer it was read from. until: when its answer must be there, on the loop's
        clock; reading does not count."""
        bill, price, is_answered = Bill(), self.policy.usd_per_call or 0.0, False
        try:
            async with asyncio.timeout_at(until):
                answer = await self.send(request, bill)
            is_answered = True
            value = await read_answer(read, answer)
            if self.price_of is not None:
                price = self.price_of(value)
            return value, answer
        except CallError:
            if not is_answered:  # vendors charge for answers; of a request that was cut off it is not known
                price = 0.0
            raise
        finally:
            self._charge(bill, price, call, is_answered)

    def _charge(self, bill: Bill, price: float, call: Call, is_answered: bool) -> None:
        """Adds the cost of a request to its call and to the account. price: where the server reports no cost."""
        usd = price if bill.usd is None else bill.usd
        if bill.usd is None and price:
            metrics.record_cost(self.tool, self.backend, price, None)
        call.usd += usd
        call.pages = add_pages(call.pages, bill.pages)
        self._is_paid = self._is_paid or usd > 0 or bool(bill.vendor)
        calls = 1 if bill.calls is None else bill.calls
        # A failure that costs nothing does not make the next answer free.
        self.account.charge(self.charged_as, calls, usd, bill.credit, is_price=is_answered or usd > 0)

    async def _hedged(
        self, request: bytes, read: Callable[[bytes], Value], call: Call, until: float
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

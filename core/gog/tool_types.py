"""Results of tool calls, which always return.

A reply holds a value or a typed failure, never an exception, with statistics of the call (attempts, seconds, cache).
The kind of a failure identifies the infrastructure's fault, so that later code need not guess whether the model or a
tool failed.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Generic, TypeVar

from gog.images import Image
from gog.trajectory import Candidate, Failure

Value = TypeVar("Value", covariant=True)
Other = TypeVar("Other")


class FailureKind(StrEnum):
    """Kinds of tool failure; also the `outcome` label of metrics."""

    TIMEOUT = "timeout"
    """No answer within the attempt's deadline."""
    RATE_LIMITED = "rate_limited"
    """HTTP 429, or 503 with a time to wait."""
    SERVER_ERROR = "server_error"
    """HTTP 5xx or 408."""
    REFUSED = "refused"
    """Any other HTTP status but 200: the request or the address is wrong. Not retried."""
    AUTH = "auth"
    """HTTP 401 or 403: the key is missing, wrong or without permission. Not retried; opens the breaker at once."""
    NO_CREDIT = "no_credit"
    """HTTP 402, or a report that less is left than a call costs: the account has no credit. Not retried; an answer of
    that kind opens the breaker at once."""
    CONNECTION = "connection"
    """No connection, or one that broke."""
    MALFORMED = "malformed"
    """An answer that cannot be read."""
    BUDGET = "budget"
    """The budget of the run or of the tool is used up. No request was sent."""
    UNDECIDED = "undecided"
    """The judge replied neither Yes nor No. Not retried, because at temperature 0 the reply would be the same."""
    BREAKER_OPEN = "breaker_open"
    """The circuit breaker refused the call, because many before it failed."""
    CACHE_MISS = "cache_miss"
    """The answer is not recorded, and the cache is replay-strict."""


RETRYABLE = frozenset(
    {
        FailureKind.TIMEOUT,
        FailureKind.RATE_LIMITED,
        FailureKind.SERVER_ERROR,
        FailureKind.CONNECTION,
        FailureKind.MALFORMED,
    }
)
"""Kinds that the call path retries."""

CLOSED_ACCOUNT = frozenset({FailureKind.AUTH, FailureKind.NO_CREDIT})
"""Kinds that hold for every further call until a person acts."""


class Decision(StrEnum):
    """What the call path decided during a call; also the `decision` label of metrics."""

    CACHED = "cached"
    """The answer was kept: no request."""
    JOINED = "joined"
    """An equal call was under way, whose answer this one shares."""
    WAITED = "waited"
    """The rate limit held a request."""
    RETRIED = "retried"
    """A failed attempt was repeated."""
    HEDGED = "hedged"
    """A slow request got an equal one beside it."""
    BREAKER = "breaker"
    """The open breaker refused the call."""
    BUDGET = "budget"
    """The budget, or the credit of the vendor's account, is used up, and the call was refused."""
    FELL_BACK = "fell_back"
    """The tool's own server failed, and its fallback was called."""


Pages = tuple[int, int]
"""Pages that a search has read, and pages that it could not read."""


def add_pages(first: Pages, second: Pages) -> Pages:
    """The pages of two requests together."""
    return first[0] + second[0], first[1] + second[1]


@dataclass
class Bill:
    """What one request cost. The transport fills it in."""

    usd: float | None = None
    """US dollars; None if the server does not report it."""
    calls: int | None = None
    """Calls of vendors; None if the server does not report it."""
    credit: float | None = None
    """US dollars that are left on the vendor's account; None if the server does not report it."""
    vendor: str = ""
    """Who was called; empty for a server that asks no vendor."""
    pages: Pages = (0, 0)
    """What the server reports of pages."""


@dataclass(frozen=True)
class ToolFailure:
    """Why a call failed: infrastructure's fault, never the model's."""

    tool: str
    """Name of the tool, or `judge`."""
    kind: FailureKind
    """Kind of the failure."""
    message: str = ""
    """What happened, in the server's own words where it gave any; one line."""
    retry_after: float | None = None
    """Seconds to wait before the next attempt, as requested by the server; None if it requests nothing."""
    failed_attempts: int = 0
    """Consecutive failed attempts because of which an open breaker refused the call; 0 for other kinds."""

    @property
    def words(self) -> str:
        """Kind and message in one line."""
        return f"{self.kind}: {self.message}" if self.message else str(self.kind)


@dataclass(frozen=True)
class Reply(Generic[Value]):
    """Result of a call; exactly one of value and failure is set."""

    value: Value | None
    """The answer; None when the call failed."""
    failure: ToolFailure | None = None
    """Why the call failed; None when it did not."""
    attempts: int = 0
    """Attempts that reached for the server; 0 for an answer from the cache."""
    seconds: float = 0.0
    """Duration of the call, waiting for a slot and pauses included."""
    cached: bool = False
    """Whether the answer came from the cache, or from an equal call under way."""
    decisions: tuple[Decision, ...] = ()
    """What the call path decided, in order, each once."""
    waited: float = 0.0
    """Seconds for which the rate limit held its requests; part of `seconds`."""
    usd: float = 0.0
    """Cost in US dollars, failed attempts included; 0 for an answer that another call paid for."""
    pages: Pages = (0, 0)
    """Pages of all attempts; none for an answer from the cache."""

    def with_value(self, value: Other | None) -> Reply[Other]:
        """The same reply with another value."""
        return Reply(
            value,
            self.failure,
            self.attempts,
            self.seconds,
            self.cached,
            self.decisions,
            self.waited,
            self.usd,
            self.pages,
        )

    def unwrap(self) -> Value:
        """The value of a call that succeeded."""
        assert self.value is not None, self.failure
        return self.value

    @property
    def failure_record(self) -> Failure | None:
        """What a trajectory keeps of the failure, its message cut to 200 characters; None if the call succeeded."""
        if self.failure is None:
            return None
        return Failure(tool=self.failure.tool, kind=self.failure.kind, message=self.failure.message[:200])


@dataclass(frozen=True)
class Grounding:
    """Candidates of an expression, best first, numbered from 1 in this order."""

    candidates: tuple[Candidate, ...] = ()
    """Their numbers, boxes and scores."""
    crops: tuple[Image, ...] = ()
    """The pixels of each candidate, in the same order."""


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

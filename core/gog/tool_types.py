"""What a tool is to an episode: a call that always returns.

A reply holds a value or a failure, never an exception; how it was come by (attempts, seconds, from the cache) rides
along. Failures are typed, so that nobody downstream has to guess whether the model or the infrastructure was wrong.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Generic, Protocol, TypeVar

from gog import tool_api
from gog.images import Image
from gog.trajectory import Candidate

Value = TypeVar("Value", covariant=True)


class FailureKind(StrEnum):
    """Kinds of tool failure; also the `outcome` label of metrics."""

    TIMEOUT = "timeout"
    RATE_LIMITED = "rate_limited"
    SERVER_ERROR = "server_error"
    REFUSED = "refused"
    CONNECTION = "connection"
    MALFORMED = "malformed"
    UNDECIDED = "undecided"
    BREAKER_OPEN = "breaker_open"
    CACHE_MISS = "cache_miss"


RETRYABLE = frozenset(
    {
        FailureKind.TIMEOUT,
        FailureKind.RATE_LIMITED,
        FailureKind.SERVER_ERROR,
        FailureKind.CONNECTION,
        FailureKind.MALFORMED,
    }
)


@dataclass(frozen=True)
class ToolFailure:
    """Infrastructure's fault. retry_after: seconds the server asked for."""

    tool: str
    kind: FailureKind
    message: str = ""
    retry_after: float | None = None


@dataclass(frozen=True)
class Reply(Generic[Value]):
    """What a call came to; exactly one of value and failure is set."""

    value: Value | None
    failure: ToolFailure | None = None
    attempts: int = 0
    seconds: float = 0.0
    cached: bool = False

    def unwrap(self) -> Value:
        assert self.value is not None, self.failure
        return self.value


@dataclass(frozen=True)
class Grounding:
    """Candidates of an expression, best first, numbered from 1 in this order."""

    candidates: tuple[Candidate, ...] = ()
    """Their numbers, boxes and scores."""
    crops: tuple[Image, ...] = ()
    """The pixels of each candidate, in the same order."""


class Tools(Protocol):
    """Everything an episode may call. None of it raises for a tool's sake."""

    async def ground(self, image: Image, expression: str) -> Reply[Grounding]: ...

    async def search_image(self, image: Image) -> Reply[Sequence[tool_api.SearchHit]]: ...

    async def search_text(self, query: str) -> Reply[Sequence[tool_api.SearchHit]]: ...

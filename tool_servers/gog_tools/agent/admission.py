"""Who may chat, how often, and how many at once. Pure but for the clock, which is given.

A chat takes seconds and calls paid vendors, so each key has a rate of its own, and chats beyond those that the server
plays at once wait only if there is room in the queue; the rest are refused with the time after which to try again.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field

from gog_tools.serving import errors

ANONYMOUS = "anonymous"
"""Name of the caller where no key is required."""


@dataclass
class Rate:
    """A bucket that holds a minute's chats and fills evenly."""

    per_minute: float
    """Chats per minute."""
    left: float
    """Chats that may begin now."""
    at: float
    """When `left` was true, on the clock."""

    def take(self, now: float) -> float:
        """Takes one chat. Returns 0, or the seconds until there is one."""
        self.left = min(self.per_minute, self.left + (now - self.at) * self.per_minute / 60)
        self.at = now
        if self.left >= 1:
            self.left -= 1
            return 0.0
        return (1 - self.left) * 60 / self.per_minute


@dataclass
class Admission:
    """Admits chats."""

    keys: Mapping[str, str]
    """Name of the caller by the SHA-256 of its key; empty: no key is required."""
    per_minute: float
    """Chats per minute of each caller; 0 for any number."""
    at_once: int
    """Chats that are played at the same time."""
    waiting: int
    """Chats that may wait for a place."""
    clock: Callable[[], float]
    """Seconds; only differences matter."""
    _rates: dict[str, Rate] = field(default_factory=dict)
    _queued: int = 0

    def __post_init__(self) -> None:
        self._places = asyncio.Semaphore(self.at_once)

    def caller(self, authorization: str) -> str:
        """Name of the caller that a header belongs to. Raises RequestError for a key that is not known."""
        if not self.keys:
            return ANONYMOUS
        digest = hashlib.sha256(authorization.removeprefix("Bearer ").encode()).hexdigest()
        if authorization.startswith("Bearer ") and digest in self.keys:
            return self.keys[digest]
        raise errors.RequestError(401, "send the header Authorization: Bearer KEY")

    @contextlib.asynccontextmanager
    async def chat(self, caller: str) -> AsyncIterator[None]:
        """A place for one chat. Raises RequestError 429 where the caller's rate is used up, 503 where all places are."""
        if self.per_minute:
            rate = self._rates.setdefault(caller, Rate(self.per_minute, self.per_minute, self.clock()))
            wait = rate.take(self.clock())
            if wait:
                raise errors.RequestError(429, f"{self.per_minute:g} chats a minute", retry_after=int(wait) + 1)
        if self._places.locked() and self._queued >= self.waiting:
            raise errors.RequestError(503, "too many chats at once", retry_after=2)
        self._queued += 1
        try:
            await self._places.acquire()
        finally:
            self._queued -= 1
        try:
            yield
        finally:
            self._places.release()


def hashed(keys: Mapping[str, str]) -> dict[str, str]:
    """Name by SHA-256 of each key, so that a look-up compares no key character by character. keys: key by name."""
    return {hashlib.sha256(key.encode()).hexdigest(): name for name, key in keys.items()}

"""The replicas of a policy: which one samples a turn, and what happens while one or all of them are down.

A conversation keeps its replica, whose prefix cache holds what was said so far, until a request fails there; then it
moves. A turn fails only when every replica failed, which the stage's outage watch counts and waits out. A replica that
failed is asked after the others for a while. Everything here runs in one event loop.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from gog.tool_types import CallError, FailureKind, Reply, ToolFailure
from gog_recipes.rollout import vllm_names
from gog_recipes.rollout import vllm_request as requests
from gog_recipes.rollout.vllm_replica import Replica, Served

FIRST_PAUSE, LONGEST_PAUSE = 2.0, 30.0
"""Seconds for which a replica that failed is asked last; doubles with each failure in a row."""
SERVICE = "policy"
"""Name of the service in failures, metrics and progress."""


@dataclass
class _Trust:
    """How a replica fared recently."""

    pause: float = FIRST_PAUSE
    """Seconds that the next failure costs it."""
    until: float = 0.0
    """Until when it is asked last."""


@dataclass(frozen=True)
class Sampled:
    """A turn, or a part of one."""

    answer: requests.Answer
    """What was sampled."""
    replica: Replica
    """Where, which holds the conversation in its cache now."""


@dataclass
class Fleet:
    """Replicas that serve the same model."""

    replicas: Sequence[Replica]
    """In the order of the manifest."""
    clock: Callable[[], float] = time.monotonic
    """Seconds; only differences matter."""
    names: vllm_names.Names | None = None
    """Where replicas are looked up again, because pods are replaced; None for replicas that do not change."""
    join: Callable[[str], Replica] | None = None
    """Makes the replica of a URL that was not there before."""
    _looked: float = float("-inf")
    """When replicas were looked up."""
    _trust: dict[str, _Trust] = field(default_factory=dict)
    """Replicas that failed and have not answered since, by URL."""

    def home(self, conversations: Mapping[str, int]) -> Replica:
        """The replica for a new group of conversations: that with the fewest among those that respond.

        Args:
            conversations: how many are open, by URL of their replica.
        """
        return min(self.replicas, key=lambda each: (self._is_suspect(each), conversations.get(each.url, 0)))

    def _is_suspect(self, replica: Replica) -> bool:
        trust = self._trust.get(replica.url)
        return trust is not None and self.clock() < trust.until

    async def generate(
        self,
        home: Replica,
        served: Served,
        prompt: requests.Prompt,
        images: tuple[str, ...],
        parameters: dict[str, Any],
    ) -> Reply[Sampled]:
        """Samples a turn on the first replica that answers, beginning with the conversation's home.

        Raises:
            UserError: a refusal, or another prompt than was meant.
        """
        await self.look()
        ordered = sorted(self.replicas, key=lambda each: each is not home)
        failure = None
        for replica in sorted(ordered, key=self._is_suspect):  # stable: home first among its like
            try:
                answer = await replica.generate(served, prompt, images, parameters)
            except CallError as error:
                failure = self._note_failure(replica, error)
                continue
            self._trust.pop(replica.url, None)
            return Reply(Sampled(answer, replica), None)
        return Reply(None, failure)

    async def look(self) -> None:
        """Takes in replicas that are new, and leaves out those that are gone, some seconds after the last look.

        A new replica that does not respond yet is taken in by a later look.

        Raises:
            UserError: a new replica serves something else.
        """
        if self.names is None or self.clock() < self._looked + vllm_names.LOOK_SECONDS:
            return
        self._looked = self.clock()
        urls = await self.names.replicas()
        known = {each.url: each for each in self.replicas}
        found = []
        for url in urls:
            try:
                found.append(known.get(url) or await self._joined(url))
            except CallError:
                continue
        self.replicas = found or self.replicas

    async def _joined(self, url: str) -> Replica:
        assert self.join is not None
        made = self.join(url)
        await made.admit()
        return made

    async def require(self, served: Served) -> Reply[bool]:
        """Checks every replica that responds, and loads and verifies an adapter there. Others follow before they sample.

        Raises:
            UserError: a replica cannot be the policy or load the adapter, or computes something else.
        """
        await self.look()
        trusted = [each for each in self.replicas if not self._is_suspect(each)]
        return await self._on_all([(each, each.require(served)) for each in trusted or self.replicas])

    async def _on_all(self, work: Sequence[tuple[Replica, Coroutine[Any, Any, None]]]) -> Reply[bool]:
        """Does something on replicas, which turns may look up anew meanwhile. It succeeds if one of them does."""
        results = await asyncio.gather(*(each for _, each in work), return_exceptions=True)
        failure = None
        for (replica, _), result in zip(work, results, strict=True):
            if isinstance(result, CallError):
                failure = self._note_failure(replica, result)
            elif isinstance(result, BaseException):
                raise result
        succeeded = any(not isinstance(result, BaseException) for result in results)
        return Reply(True, None) if succeeded else Reply(None, failure)

    async def health(self) -> Reply[bool]:
        """Whether a replica says that it is well."""
        return await self._on_all([(each, each.health()) for each in self.replicas])

    async def unload(self, served: Served) -> None:
        """Unloads an adapter everywhere."""
        await asyncio.gather(*(each.unload(served) for each in self.replicas))

    def _note_failure(self, replica: Replica, error: CallError) -> ToolFailure:
        if error.kind is not FailureKind.RATE_LIMITED:  # it responds, and asks for patience
            trust = self._trust.setdefault(replica.url, _Trust())
            trust.until = self.clock() + trust.pause
            trust.pause = min(2 * trust.pause, LONGEST_PAUSE)
        return ToolFailure(SERVICE, error.kind, f"{replica.url}: {error.message}", error.retry_after)

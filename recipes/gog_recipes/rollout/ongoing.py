"""A play that has begun: what this rank has of it, and what still runs.

Several may run at once, of one step each; each has a journal and images of its own. Those of earlier steps have the first
claim to the engine's places, because their steps are due first.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from gog.dataset import Question
from gog.images import Image
from gog.trajectory import Trajectory
from gog_recipes.rollout.journals import PlayJournal, Resumed
from gog_recipes.rollout.played import Skipped

T = TypeVar("T")


@dataclass
class Ongoing:
    """One play on one rank."""

    own: list[Question]
    """The questions of this rank."""
    samples: int
    """Trajectories per question."""
    step: int
    """Number of the rollout, counted from 1 in training."""
    policy: str
    """Name of the policy."""
    journal: PlayJournal
    """What an earlier attempt left, and where finished turns go."""
    begun: float
    """When it began, in seconds."""
    adds: bool = False
    """Whether it adds to the play before."""
    oldest: int = 0
    """Version of the weights; what an earlier attempt sampled with older ones is played anew."""
    closing: contextlib.AsyncExitStack = field(default_factory=contextlib.AsyncExitStack)
    """Closes its journal."""
    work: asyncio.Task[list[None]] | None = None
    """What still plays; None before it begins."""
    found: dict[str, list[Trajectory] | Skipped] = field(default_factory=dict)
    """What became of its questions so far, by id."""
    images: dict[str, Image] = field(default_factory=dict)
    """The images that its whole trajectories show, by content hash."""
    too_old: int = 0
    """Trajectories of an earlier attempt that are played anew because older weights sampled them."""

    @property
    def is_done(self) -> bool:
        """Whether all of its questions are played."""
        return len(self.found) == len(self.own)

    def within_bound(self, resumed: list[Resumed | None]) -> list[Resumed | None]:
        """What an earlier attempt left of a question's samples, without those that older weights sampled."""
        kept = [each if each is not None and each.oldest >= self.oldest else None for each in resumed]
        self.too_old += sum(one is not other for one, other in zip(kept, resumed, strict=True))
        return kept

    def outcome(self, weights: Mapping[int, str]) -> list[list[Trajectory] | Skipped]:
        """What became of its questions, once it is done, in their order. weights: as in `Rollouts`."""
        found = (self.found[question.id] for question in self.own)
        return [each if isinstance(each, Skipped) else [item.attributed(weights) for item in each] for each in found]

    async def abandon(self) -> None:
        """Ends what still plays. What its episodes have finished is durable afterwards."""
        if self.work is not None:
            self.work.cancel()
            await asyncio.gather(self.work, return_exceptions=True)
        await self.closing.aclose()


async def all_or_none(coroutines: Iterable[Coroutine[object, object, T]]) -> list[T]:
    """The results of all, in order. The first that raises cancels the others, and all of them have ended by then."""
    tasks = [asyncio.ensure_future(coroutine) for coroutine in coroutines]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

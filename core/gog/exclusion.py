"""Whether a step of RL may be learned from although tools or the judge failed, and the wait until it may.

Excluded trajectories are mostly long ones: an episode that calls no tool meets no tool failure. A step that loses many
of them is learned from the survivors, and teaches the policy not to call tools. So the excluded share is reported by
episode length, and a step above a bound is not learned from: its questions are played again after a pause, and when the
patience of the manifest is used up, the stage's attempt fails and is retried. Groups whose rewards are all equal have
no signal either, but that is the policy's doing: such a step counts.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from gog import outage
from gog.errors import ServiceDown
from gog.trajectory import Failure, Trajectory

LONGEST = 6
"""Turns from which on episodes are counted together."""


Played = TypeVar("Played")


@dataclass(frozen=True)
class Cause:
    """What spoiled trajectories."""

    service: str
    """What failed most often: name of a tool, or `judge`; empty if nothing did."""
    reason: str
    """Its most frequent failure."""


@dataclass(frozen=True)
class Exclusions:
    """The trajectories of a step that do not count."""

    trajectories: int
    """All of them."""
    excluded: int
    """Those that take no part in their group's statistics."""
    by_turns: dict[str, float]
    """Excluded share by number of turns: `1`, `2`, … `6+`; only lengths that occur."""
    comparable: int
    """Groups with at least two counted members, from which a difference can be learned."""
    cause: Cause
    """What failed most often."""

    @property
    def share(self) -> float:
        """Excluded share of all trajectories."""
        return self.excluded / self.trajectories if self.trajectories else 0.0

    def allow(self, limit: float) -> bool:
        """Whether the step may be learned from.

        Args:
            limit: largest excluded share.
        """
        return not self.excluded or (self.share <= limit and self.comparable > 0)


def count(groups: Sequence[Sequence[Trajectory]]) -> Exclusions:
    """Counts what failures cost a step.

    Args:
        groups: the trajectories of a step with their advantages, which are None for those that do not count.
    """
    everything = [item for group in groups for item in group]
    lengths: defaultdict[str, list[bool]] = defaultdict(list)
    for item in everything:
        lengths[_length(item)].append(item.advantage is None)
    return Exclusions(
        trajectories=len(everything),
        excluded=sum(item.advantage is None for item in everything),
        by_turns={name: round(sum(lengths[name]) / len(lengths[name]), 4) for name in sorted(lengths)},
        comparable=sum(1 for group in groups if sum(item.advantage is not None for item in group) > 1),
        cause=cause(everything),
    )


def cause(trajectories: Iterable[Trajectory]) -> Cause:
    """What failed most often in these trajectories, and how."""
    failures = [failure for item in trajectories for failure in _failures(item)]
    if not failures:
        return Cause("", "")
    service = Counter(failure.tool for failure in failures).most_common(1)[0][0]
    words = Counter(_words(failure) for failure in failures if failure.tool == service)
    return Cause(service, words.most_common(1)[0][0])


def _length(item: Trajectory) -> str:
    turns = len(item.turns)
    return f"{LONGEST}+" if turns >= LONGEST else str(turns)


def _failures(item: Trajectory) -> tuple[Failure, ...]:
    return item.failures if item.judge_failure is None else (*item.failures, item.judge_failure)


def _words(failure: Failure) -> str:
    return f"{failure.kind}: {failure.message}" if failure.message else failure.kind


@dataclass
class Replay:
    """Plays again what failures spoiled, at growing intervals, until the patience is used up.

    Example:
        groups = await replay.until_learnable(play, spoiled)
    """

    patience_seconds: float
    """Seconds from the first play that was spoiled."""
    report: Callable[[outage.Waiting | None], None] = lambda _: None
    """Called before each pause, and with None when a later play was not spoiled."""
    clock: Callable[[], float] = time.monotonic
    """Seconds; only differences matter. Where several ranks decide, it must be the clock of one of them."""
    sleep: Callable[[float], Awaitable[Any]] = asyncio.sleep
    """Waits for so many seconds."""
    plays: int = 0
    """Plays that were spoiled so far."""
    _since: float = 0.0

    async def until_learnable(
        self, play: Callable[[], Awaitable[Played]], spoiled: Callable[[Played], Cause | None]
    ) -> Played:
        """The first play that is not spoiled.

        Args:
            play: plays once.
            spoiled: why a play cannot be learned from; None if it can.

        Raises:
            ServiceDown: the patience is used up.
        """
        while True:
            played = await play()
            cause = spoiled(played)
            if cause is None:
                if self.plays:
                    self.report(None)
                return played
            self.report(self._wait(cause))
            await self.sleep(self._pause)

    @property
    def _pause(self) -> float:
        """Seconds until the next play."""
        return min(outage.FIRST_PROBE * 2.0 ** min(self.plays - 1, 30), outage.LONGEST_PROBE)

    def _wait(self, cause: Cause) -> outage.Waiting:
        now = self.clock()
        self._since = now if not self.plays else self._since
        self.plays += 1
        seconds = now - self._since
        if seconds + self._pause > self.patience_seconds:
            raise ServiceDown(cause.service, f"{cause.reason}, in {self.plays} plays over {seconds:.0f} s")
        return outage.Waiting(cause.service, cause.reason, seconds, self.patience_seconds - seconds)

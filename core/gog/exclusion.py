"""Decides whether an RL step with tool or judge failures may train the policy, and repeats steps that may not.

Failures exclude mostly long trajectories, because an episode without tool calls has no tool failures. A step that loses
many of them would train on the remaining ones and teach the policy not to call tools. The excluded fraction is
therefore reported by episode length, and a step above a limit is discarded: its questions are played again after a
pause. When the patience set in the manifest is exhausted, the stage's attempt fails and is retried. Groups with equal
rewards have no signal either, but the policy is the cause, so such a step counts.
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
"""Number of turns, or of calls, from which episodes share one bin."""


Played = TypeVar("Played")


@dataclass(frozen=True)
class Cause:
    """The most frequent cause of exclusions."""

    service: str
    """Service that failed most often: name of a tool, or `judge`; empty if none failed."""
    reason: str
    """Its most frequent failure."""


@dataclass(frozen=True)
class Lengths:
    """Trajectories by length: `0`, `1`, … `6+`; only lengths that occur."""

    trajectories: dict[str, int]
    """Number of all trajectories."""
    shares: dict[str, float]
    """Excluded fraction of them."""


@dataclass(frozen=True)
class Exclusions:
    """Excluded trajectories of a step."""

    trajectories: int
    """Number of all trajectories."""
    excluded: int
    """Number of trajectories that are excluded from their group's statistics."""
    by_turns: Lengths
    """By number of turns."""
    by_calls: Lengths
    """By number of tool calls."""
    comparable: int
    """Number of groups with at least two counted members, which a relative advantage requires."""
    cause: Cause
    """Most frequent cause."""

    @property
    def share(self) -> float:
        """Excluded fraction of all trajectories."""
        return self.excluded / self.trajectories if self.trajectories else 0.0

    def allow(self, limit: float) -> bool:
        """Whether the step may train the policy.

        Args:
            limit: Largest excluded fraction.
        """
        return not self.excluded or (self.share <= limit and self.comparable > 0)


def count(groups: Sequence[Sequence[Trajectory]]) -> Exclusions:
    """Counts the exclusions of a step.

    Args:
        groups: The trajectories of a step with their advantages, which are None for excluded ones.
    """
    everything = [item for group in groups for item in group]
    return Exclusions(
        trajectories=len(everything),
        excluded=sum(item.advantage is None for item in everything),
        by_turns=_lengths(everything, lambda item: len(item.turns)),
        by_calls=_lengths(everything, lambda item: item.tool_calls),
        comparable=sum(1 for group in groups if sum(item.advantage is not None for item in group) > 1),
        cause=cause(everything),
    )


def by_length(found: Exclusions) -> dict[str, dict[str, Any]]:
    """Step metrics of the exclusions by episode length."""
    return {
        "excluded_by_turns": found.by_turns.shares,
        "trajectories_by_turns": found.by_turns.trajectories,
        "excluded_by_calls": found.by_calls.shares,
        "trajectories_by_calls": found.by_calls.trajectories,
    }


def cause(trajectories: Iterable[Trajectory]) -> Cause:
    """The most frequent failure in these trajectories."""
    failures = [failure for item in trajectories for failure in _failures(item)]
    if not failures:
        return Cause("", "")
    service = Counter(failure.tool for failure in failures).most_common(1)[0][0]
    words = Counter(_words(failure) for failure in failures if failure.tool == service)
    return Cause(service, words.most_common(1)[0][0])


def _lengths(trajectories: Iterable[Trajectory], length: Callable[[Trajectory], int]) -> Lengths:
    excluded: defaultdict[str, list[bool]] = defaultdict(list)
    for item in trajectories:
        number = length(item)
        excluded[f"{LONGEST}+" if number >= LONGEST else str(number)].append(item.advantage is None)
    found = sorted(excluded.items())
    return Lengths(
        {name: len(each) for name, each in found}, {name: round(sum(each) / len(each), 4) for name, each in found}
    )


def _failures(item: Trajectory) -> tuple[Failure, ...]:
    return item.failures if item.judge_failure is None else (*item.failures, item.judge_failure)


def _words(failure: Failure) -> str:
    return f"{failure.kind}: {failure.message}" if failure.message else failure.kind


@dataclass
class Replay:
    """Repeats a step that failures spoiled, at growing intervals, until the patience is exhausted.

    Example:
        groups = await replay.until_learnable(play, spoiled)
    """

    patience_seconds: float
    """Seconds since the first spoiled play, after which the attempt fails."""
    report: Callable[[outage.Waiting | None], None] = lambda _: None
    """Called before each pause, and with None after a later play that is not spoiled."""
    clock: Callable[[], float] = time.monotonic
    """Seconds; only differences matter. Where several ranks decide, it must be the clock of one of them."""
    sleep: Callable[[float], Awaitable[Any]] = asyncio.sleep
    """Waits for so many seconds."""
    plays: int = 0
    """Number of spoiled plays so far."""
    _since: float = 0.0

    async def until_learnable(
        self, play: Callable[[], Awaitable[Played]], spoiled: Callable[[Played], Cause | None]
    ) -> Played:
        """Plays until a play is not spoiled, and returns that play.

        Args:
            play: Plays once.
            spoiled: Returns why a play may not train the policy; None if it may.

        Raises:
            ServiceDown: the patience is exhausted.
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

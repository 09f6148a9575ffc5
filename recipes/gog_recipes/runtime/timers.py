"""Where the wall time of a step goes.

Rollouts, tools and training overlap, so their durations do not add up to anything. This timer divides the wall time
instead: at any moment the process is in exactly one part (step_metrics.PARTS), so the parts add up to the step. What the
trainer does comes first; while it waits, the rollouts are looked at: the time is theirs if any episode can proceed, else it
is spent waiting for a tool, else for the judge. So a part is the time that the step would have saved at most without it,
and tools that are hidden behind other work count for nothing.

Not here: utilisation (`flops`), and what happens inside a part (`profiler`).
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Literal, Protocol

from gog import stats, step_metrics

TRAINER = frozenset(part.name for part in step_metrics.PARTS if part.trains)
"""Parts in which the trainer works."""
WAITING = ""
"""On the trainer's stack: it waits."""


@dataclass(frozen=True)
class StepTimes:
    """The wall time of a step of one rank."""

    parts: Mapping[str, float]
    """Seconds by part; parts without time are left out."""
    engine: float = 0.0
    """Seconds in which an episode could proceed, whatever the trainer did."""
    tools_overlapped: float = 0.0
    """Seconds in which an episode waited for a tool and the time was another part's."""
    play: float = 0.0
    """Seconds in which questions were played, whatever the trainer did."""

    @property
    def total(self) -> float:
        """Seconds of the step."""
        return sum(self.parts.values())

    @property
    def trainer(self) -> float:
        """Seconds in which the trainer worked."""
        return sum(seconds for part, seconds in self.parts.items() if part in TRAINER)

    @property
    def busy(self) -> float:
        """Seconds in which the process was not idle."""
        return self.total - self.parts.get("idle", 0.0)


class Spans(Protocol):
    """Takes spans for a trace."""

    def begin(self, track: str, name: str) -> object:
        """A span begins, on the track of the trainer or of an episode."""
        ...

    def end(self, span: object) -> None:
        """A span that `begin` returned ends."""
        ...


class StepTimer:
    """Attributes wall time to parts. Its methods take a microsecond or two, and may be called from any thread.

    Args:
        clock: seconds; only differences matter
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._lock = clock, threading.Lock()
        self._trainer: list[list[str]] = []
        self._plays = 0
        self._active = 0
        self._waiting = {"tools": 0, "judge": 0}
        self._last = clock()
        self.spans: Spans | None = None
        """Takes what trainer and episodes do, while a step is traced."""
        self._reset()

    def _reset(self) -> None:
        self._parts: defaultdict[str, float] = defaultdict(float)
        self._engine = self._overlapped = self._playing = 0.0

    @contextlib.contextmanager
    def part(self, name: str) -> Iterator[None]:
        """The trainer works on a part, or on one within a part, which the time is then of."""
        entry = [name]
        with self._lock:
            self._charge()
            self._trainer.append(entry)
        spans = self.spans
        span = spans.begin("trainer", name or "waiting") if spans is not None else None
        try:
            yield
        finally:
            if spans is not None:
                spans.end(span)
            with self._lock:
                self._charge()
                # By identity, because the parts of two threads need not be nested.
                self._trainer = [each for each in self._trainer if each is not entry]

    def waiting(self) -> AbstractContextManager[None]:
        """The trainer waits: for rollouts, or for other ranks."""
        return self.part(WAITING)

    @contextlib.contextmanager
    def play(self) -> Iterator[None]:
        """Questions are played; without this the time of a waiting trainer is idle."""
        with self._lock:
            self._charge()
            self._plays += 1
        try:
            yield
        finally:
            with self._lock:
                self._charge()
                self._plays -= 1

    @contextlib.contextmanager
    def episode(self, name: str = "episode") -> Iterator[None]:
        """Something of a play can proceed: an episode, or the opening of some. name: in traces."""
        with self._lock:
            self._charge()
            self._active += 1
        spans = self.spans
        span = spans.begin("episode", name) if spans is not None else None
        try:
            yield
        finally:
            if spans is not None:
                spans.end(span)
            with self._lock:
                self._charge()
                self._active -= 1

    @contextlib.contextmanager
    def episode_waits(self, service: Literal["tools", "judge"]) -> Iterator[None]:
        """An episode cannot proceed before a tool or the judge has answered."""
        with self._lock:
            self._charge()
            self._active -= 1
            self._waiting[service] += 1
        spans = self.spans
        span = spans.begin("episode", service) if spans is not None else None
        try:
            yield
        finally:
            if spans is not None:
                spans.end(span)
            with self._lock:
                self._charge()
                self._active += 1
                self._waiting[service] -= 1

    def take(self) -> StepTimes:
        """The time since the last call, or since the beginning."""
        with self._lock:
            self._charge()
            found = StepTimes(dict(self._parts), self._engine, self._overlapped, self._playing)
            self._reset()
        return found

    def _charge(self) -> None:
        """Attributes the time since the last change to the state that ends now. The lock is held."""
        now = self._clock()
        seconds, self._last = now - self._last, now
        rollouts = self._rollouts()
        part = (self._trainer[-1][0] if self._trainer else WAITING) or rollouts
        self._parts[part] += seconds
        if self._plays:
            self._playing += seconds
        if rollouts == "rollout":
            self._engine += seconds
        if self._waiting["tools"] and part != "tools":
            self._overlapped += seconds

    def _rollouts(self) -> str:
        """The part whose time it is while the trainer waits."""
        if not self._plays:
            return "idle"
        if self._active > 0 or not any(self._waiting.values()):
            return "rollout"
        return "tools" if self._waiting["tools"] else "judge"


def figures(ranks: Sequence[StepTimes]) -> dict[str, float]:
    """Step metrics of the times of all ranks: means, and the parts of the slowest rank where there are several."""
    total = stats.mean([each.total for each in ranks])
    found = {"seconds": total} | _by_part("seconds_", ranks)
    if len(ranks) > 1:
        slowest = max(range(len(ranks)), key=lambda rank: ranks[rank].busy)
        found |= {"slowest_rank": slowest} | _by_part("slowest_", [ranks[slowest]])
    return found


def idle(ranks: Sequence[StepTimes]) -> dict[str, float]:
    """Step metrics of what rollouts and training wait for, means over all ranks."""
    total = max(stats.mean([each.total for each in ranks]), 1e-9)
    return {
        "trainer_idle": 1 - stats.mean([each.trainer for each in ranks]) / total,
        "engine_idle": 1 - stats.mean([each.engine for each in ranks]) / total,
        "tools_overlapped_seconds": stats.mean([each.tools_overlapped for each in ranks]),
    }


def _by_part(prefix: str, ranks: Sequence[StepTimes]) -> dict[str, float]:
    names = [part.name for part in step_metrics.PARTS if any(part.name in each.parts for each in ranks)]
    return {f"{prefix}{name}": stats.mean([each.parts.get(name, 0.0) for each in ranks]) for name in names}


def largest(figures: Mapping[str, float], count: int = 3) -> dict[str, float]:
    """The largest parts of a step, as shares of it, by its step metrics."""
    seconds = {part.name: figures.get(f"seconds_{part.name}", 0.0) for part in step_metrics.PARTS}
    names = sorted(seconds, key=lambda name: -seconds[name])[:count]
    return {name: round(seconds[name] / max(figures["seconds"], 1e-9), 3) for name in names}


def played(figures: Mapping[str, float]) -> float:
    """Seconds of a step that rollouts took while the trainer waited, by its step metrics."""
    return sum(figures.get(f"seconds_{part}", 0.0) for part in ("rollout", "tools", "judge"))


def updated(figures: Mapping[str, float]) -> float:
    """Seconds of a step's update, passes of the reference included, by its step metrics."""
    return sum(figures.get(f"seconds_{part}", 0.0) for part in ("reference", "train"))

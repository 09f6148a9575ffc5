"""Traces of chosen steps, which a person opens in Perfetto (docs/profiling.md).

A trace of every operation of a step would be gigabytes, because rollouts make thousands of small forward passes. So
operations are recorded for some seconds at the beginning of each window (the rollouts, the update), by torch.profiler;
what each episode and the trainer do is recorded for the whole step, by the timer that measures the parts. Both are in
one file per window and rank. Its size is bounded: what exceeds MAX_BYTES is cut off at an event.

Steps that are not chosen cost one comparison per change of the timer.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import gzip
import heapq
import json
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gog import profiles
from gog.errors import UserError
from gog.spec import ProfileSettings
from gog_recipes.runtime.stage import Stage
from gog_recipes.runtime.timers import StepTimer

MAX_BYTES = 50_000_000
"""Bytes of a compressed trace at most."""
MAX_SPANS = 100_000
"""Spans of a step at most; later ones are left out."""
GOG = 1_000_000_000
"""Number of the process under which a trace shows gog's own spans: above those of real processes."""
TRAINER = "trainer"
"""Track of what the trainer does; episodes have numbered tracks."""


@dataclass
class OpenSpan:
    """A span that has begun."""

    lane: int
    """Its track: 0 for the trainer."""
    name: str
    """As the trace shows it."""
    begun: int
    """Nanoseconds since 1970."""
    owns_lane: bool
    """Whether the track is free again at its end."""


class SpanLog:
    """Spans of one step. Episodes that run at the same time are on tracks of their own.

    Args:
        tick: called at each begin and end
        clock: nanoseconds since 1970
    """

    def __init__(self, tick: Callable[[], None] = lambda: None, clock: Callable[[], int] = time.time_ns) -> None:
        self._tick, self._clock = tick, clock
        self._lane: contextvars.ContextVar[int] = contextvars.ContextVar("lane", default=0)
        self._free: list[int] = []
        self._lanes = 0
        self._spans: list[tuple[int, str, int, int]] = []

    def begin(self, track: str, name: str) -> OpenSpan:
        """A span begins; within one of an episode it is on the track of that."""
        self._tick()
        if track == TRAINER:
            return OpenSpan(0, name, self._clock(), owns_lane=False)
        lane = self._lane.get()
        owns = not lane
        if owns:
            if not self._free:
                self._lanes += 1
                self._free.append(self._lanes)
            lane = heapq.heappop(self._free)
            self._lane.set(lane)
        return OpenSpan(lane, name, self._clock(), owns)

    def end(self, span: Any) -> None:
        """A span ends."""
        self._tick()
        if span.owns_lane:
            self._lane.set(0)
            heapq.heappush(self._free, span.lane)
        if len(self._spans) < MAX_SPANS:
            self._spans.append((span.lane, span.name, span.begun, self._clock()))

    def events(self, base: int, rank: int) -> Iterator[dict[str, Any]]:
        """The spans in Chrome's trace format.

        Args:
            base: nanoseconds since 1970 from which the trace counts
            rank: of this process
        """
        yield _metadata("process_name", 0, f"gog, rank {rank}")
        for lane in range(self._lanes + 1):
            yield _metadata("thread_name", lane, f"episode {lane}" if lane else TRAINER)
        for lane, name, begun, ended in self._spans:
            place = {"ph": "X", "cat": "gog", "name": name, "pid": GOG, "tid": lane}
            yield {**place, "ts": (begun - base) / 1e3, "dur": (ended - begun) / 1e3}


def _metadata(kind: str, lane: int, name: str) -> dict[str, Any]:
    return {"ph": "M", "name": kind, "pid": GOG, "tid": lane, "args": {"name": name}}


class Profiler:
    """Records the steps that the settings name, into the stage's work folder and its store.

    Args:
        settings: which steps; None for none
        stage: whose steps they are
        timer: that reports what trainer and episodes do
        clock: seconds; only differences matter
    """

    def __init__(
        self,
        settings: ProfileSettings | None,
        stage: Stage,
        timer: StepTimer,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.settings, self.stage, self.timer, self._clock = settings, stage, timer, clock
        self._step = 0
        self._spans = SpanLog()
        self._windows: dict[str, Any] = {}
        self._running: Any = None
        self._deadline = 0.0

    def begin(self, step: int) -> None:
        """A step begins; its number counts from 1."""
        if self.settings is not None and step in self.settings.steps:
            self._step, self._spans, self._windows = step, SpanLog(self._tick), {}
            self.timer.spans = self._spans

    @contextlib.contextmanager
    def window(self, name: str) -> Iterator[None]:
        """Records operations inside, for the configured seconds; the first time only in a step."""
        if not self._step or name in self._windows or self._running is not None:
            yield
            return
        import torch

        self._windows[name] = self._running = torch.profiler.profile()
        assert self.settings is not None
        self._deadline = self._clock() + self.settings.seconds
        self._running.start()
        alarm = _call_later(self.settings.seconds, self._tick)
        try:
            yield
        finally:
            if alarm is not None:
                alarm.cancel()
            self._stop()

    def _tick(self) -> None:
        if self._running is not None and self._clock() >= self._deadline:
            self._stop()

    def _stop(self) -> None:
        running, self._running = self._running, None
        if running is not None:
            running.stop()

    def end(self) -> None:
        """The step ends: writes its traces. What cannot be written is logged, because the stage goes before its profile."""
        if not self._step:
            return
        step, self._step, self.timer.spans = self._step, 0, None
        for window, recorded in self._windows.items():
            name = profiles.name(step, self.stage.ranks.rank, window)
            path = self.stage.common / profiles.FOLDER / name
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                whole = path.with_suffix(".raw")
                recorded.export_chrome_trace(str(whole))
                size = write(whole, path, lambda base: self._spans.events(base, self.stage.ranks.rank))
                whole.unlink()
                where = self.stage.store.put_object(
                    profiles.key(self.stage.key, name), path.read_bytes(), "application/gzip"
                )
            except (OSError, UserError) as error:
                self.stage.log(f"step {step}: the trace of {window} could not be written: {error}")
                continue
            self.stage.log(f"step {step}: trace of {window} ({size / 1e6:.1f} MB, for ui.perfetto.dev) in {where}")
        self._windows = {}


def _call_later(seconds: float, call: Callable[[], None]) -> asyncio.TimerHandle | None:
    """Has the running event loop call later; None without one."""
    try:
        return asyncio.get_running_loop().call_later(seconds, call)
    except RuntimeError:
        return None


def write(whole: Path, target: Path, spans: Callable[[int], Iterable[dict[str, Any]]], limit: int = MAX_BYTES) -> int:
    """Compresses a trace of torch.profiler, with further events at its beginning.

    Args:
        whole: the trace, one line per value, whose events are indented by two spaces
        target: the file to write
        spans: the further events, given the nanoseconds since 1970 from which the trace counts
        limit: bytes of the file, about; later events are cut off

    Returns:
        Its bytes.
    """
    base = 0
    with (
        whole.open(encoding="utf-8", errors="replace") as lines,
        target.open("wb") as out,
        gzip.GzipFile("", "wb", 6, out, mtime=0) as stream,
    ):
        for line in lines:
            stream.write(line.encode())
            if line.strip().startswith('"baseTimeNanoseconds"'):  # stands before the events
                base = int(line.partition(":")[2].strip().rstrip(","))
            if line.strip() == '"traceEvents": [':
                for event in spans(base):
                    stream.write(json.dumps(event).encode() + b",\n")
            if line.startswith("  },") and out.tell() > limit:
                stream.write(b'  {"ph": "M", "name": "cut off", "pid": 0}\n  ]\n}\n')
                break
    return target.stat().st_size

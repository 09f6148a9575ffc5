"""A stage's `metrics.jsonl` as it grows, for whoever draws it again and again.

A look reads what was appended since the last one. Where that is much (a long training, seen for the first time) it reads
blocks spread over it instead of all of it: a sparkline of twenty bars needs no hundred thousand lines. A stage that
starts again writes its file anew, which is noticed by the file's length or by what stands before the place that was
reached; a half-written last line is left for the next look.
"""

from __future__ import annotations

import json
import os
import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from gog_console import formatting
from gog_operator.plan.summary import is_number

BLOCK = 16 * 1024
BLOCKS = 32
WHOLE = BLOCK * BLOCKS
"""Bytes: the most that one look reads."""
MARK = 64
"""Bytes before the place that was reached by which a file is known again."""
KEPT = 4096
"""Points that stay in memory; beyond it every second of the older ones goes."""
RECENT = 20
"""Steps whose durations say how fast a stage is at the moment."""


class Point(NamedTuple):
    step: int
    figures: dict[str, Any]


class Curve:
    """points: by step, ascending; of a long file a sample of them, with the newest among it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._forget()

    def _forget(self) -> None:
        self.points: list[Point] = []
        self.changed = 0.0
        self._reached = 0
        self._mark = b""

    def update(self) -> None:
        try:
            with self.path.open("rb") as stream:
                self._look(stream.fileno())
        except OSError:
            self._forget()

    def _look(self, handle: int) -> None:
        seen = os.fstat(handle)
        if os.pread(handle, len(self._mark), self._reached - len(self._mark)) != self._mark:
            self._forget()
        fresh = seen.st_size - self._reached
        if fresh <= 0:
            return
        self.changed = seen.st_mtime
        for at, size in _blocks(self._reached, fresh):
            self._take(os.pread(handle, size, at), at)
        if len(self.points) > KEPT:
            self.points[1:-RECENT] = self.points[1:-RECENT:2]

    def _take(self, data: bytes, at: int) -> None:
        """Lines that lie in a block as a whole; what is left of a line cut at its front is no JSON. at: the block's
        place in the file."""
        end = data.rfind(b"\n") + 1
        for step, figures in _lines(data[:end]):
            while self.points and self.points[-1].step >= step:
                self.points.pop()
            self.points.append(Point(step, figures))
        if end:
            self._reached, self._mark = at + end, data[max(end - MARK, 0) : end]

    def values(self, name: str) -> list[float]:
        return [value for _, value in self._of(name)]

    def stretches(self, name: str, width: int) -> list[float | None]:
        """Mean of each of `width` equal stretches of steps; None where no point lies, NaN where one is not finite."""
        points = self._of(name)
        if not points:
            return []
        first, span = points[0][0], points[-1][0] - points[0][0] + 1
        width = min(width, len(points))
        stretches: list[list[float]] = [[] for _ in range(width)]
        for step, value in points:
            stretches[(step - first) * width // span].append(value)
        return [formatting.mean(each) if each else None for each in stretches]

    def _of(self, name: str) -> list[tuple[int, float]]:
        found = ((point.step, point.figures.get(name)) for point in self.points)
        return [(step, float(value)) for step, value in found if is_number(value)]

    @property
    def pace(self) -> float | None:
        """Seconds a step, the median of the last ones: one slow step (a checkpoint, a tool that hangs) moves it little."""
        recent = [value for value in self.values("seconds")[-RECENT:] if 0 < value < float("inf")]
        return statistics.median(recent) if recent else None


def _blocks(start: int, size: int) -> Iterator[tuple[int, int]]:
    """(place, bytes): all of it, or blocks spread evenly, of which the last reaches the end."""
    if size <= WHOLE:
        yield start, size
        return
    for index in range(BLOCKS):
        yield start + index * (size - BLOCK) // (BLOCKS - 1), BLOCK


def _lines(data: bytes) -> Iterator[Point]:
    for line in data.splitlines():
        try:
            figures = json.loads(line)
        except ValueError:
            continue
        if isinstance(figures, dict) and isinstance(figures.get("step"), int):
            yield Point(figures["step"], figures)

"""Incremental reader of a stage's `metrics.jsonl`, for displays that redraw every second.

Each update reads what was appended since the last one. A large backlog (a long training, read for the first time) is
sampled: blocks spread over it are read, because a sparkline of twenty bars does not need 100,000 lines. A stage that
starts again truncates its file; that is detected by the file's length or by the bytes before the position that was
reached. An incomplete last line is left for the next update.
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
"""Bytes of a sampled block."""
BLOCKS = 32
"""Blocks sampled from a large backlog."""
WHOLE = BLOCK * BLOCKS
"""Bytes that one update reads at most."""
MARK = 64
"""Bytes before the reached position that identify the file."""
KEPT = 4096
"""Points kept in memory; beyond this every second one of the older points is dropped."""
RECENT = 20
"""Steps from whose durations the current pace is taken."""


class Point(NamedTuple):
    """One line of the log."""

    step: int
    """Optimizer step."""
    figures: dict[str, Any]
    """Metrics by key, `step` included."""


class Curve:
    """Points of a metric log by ascending step. Of a long log it holds a sample that includes the newest point."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._forget()

    def _forget(self) -> None:
        self.points: list[Point] = []
        self.changed = 0.0
        self._reached = 0
        self._mark = b""

    def update(self) -> None:
        """Reads what was appended since the last update; a file that disappeared empties the curve."""
        try:
            with self.path.open("rb") as stream:
                self._read(stream.fileno())
        except OSError:
            self._forget()

    def _read(self, handle: int) -> None:
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
        """Adds the complete lines of a block; the rest of a line cut at its front is not valid JSON.

        at: offset of the block in the file.
        """
        end = data.rfind(b"\n") + 1
        for step, figures in _lines(data[:end]):
            while self.points and self.points[-1].step >= step:
                self.points.pop()
            self.points.append(Point(step, figures))
        if end:
            self._reached, self._mark = at + end, data[max(end - MARK, 0) : end]

    def values(self, name: str) -> list[float]:
        """Values of a metric, by step."""
        return [value for _, value in self._of(name)]

    def stretches(self, name: str, width: int) -> list[float | None]:
        """Means of `width` equal ranges of steps; None for a range without points, NaN where a value is not finite."""
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
        """Seconds per step: the median of the last steps, which one slow step (a checkpoint, a slow tool) hardly changes."""
        recent = [value for value in self.values("seconds")[-RECENT:] if 0 < value < float("inf")]
        return statistics.median(recent) if recent else None


def _blocks(start: int, size: int) -> Iterator[tuple[int, int]]:
    """(offset, bytes) of everything, or of blocks spread evenly whose last one reaches the end."""
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

"""The paper's table of results, recomputed: which of its printed figures cannot be right.

A mean must be that of its row, and a score over n questions must be k / n for a whole k. Rows that fail are quoted with
a mark, never corrected in silence. Marks of ablation rows say that they come from a third-party reading note.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from gog import benchmarks, stats

ROUNDING = 0.005
"""Half a unit of the last printed digit."""


@dataclass(frozen=True)
class Printed:
    """A row as printed, in per cent."""

    group: str
    """How these policies answer: directly, prompted, …"""
    policy: str
    """Name of the policy."""
    mean: float
    """The printed average."""
    scores: tuple[float, ...]
    """The printed score of each benchmark, in the order of `benchmarks.SIZES`."""
    noted: bool = False
    """Whether the row is known from a reading note only."""


@dataclass(frozen=True)
class Fault:
    """A printed figure that cannot be right."""

    column: str
    """Its benchmark, or "mean"."""
    printed: float
    """What is printed."""
    possible: float
    """The mean of the row's scores, or the nearest score that is possible."""


ROWS = (
    Printed("direct", "Qwen2.5-VL-7B", 20.31, (25.33, 13.90, 41.26, 14.62, 10.30, 16.43)),
    Printed("direct", "Qwen2.5-VL-32B", 22.79, (26.89, 16.95, 42.84, 16.37, 12.70, 20.96)),
    Printed("direct", "Qwen3-VL-8B-Instruct", 21.13, (23.94, 13.80, 40.18, 15.20, 11.40, 22.24)),
    Printed("direct", "Qwen3-VL-8B-Thinking", 23.84, (24.56, 16.05, 41.76, 15.20, 15.15, 30.31)),
    Printed("direct", "Qwen3-VL-30B-A3B-Instruct", 23.80, (26.11, 16.70, 42.35, 18.13, 12.60, 26.91)),
    Printed("direct", "Qwen3-VL-30B-A3B-Thinking", 27.26, (31.11, 22.80, 43.73, 17.54, 15.40, 33.00)),
    Printed("direct", "GPT-4o", 30.68, (42.00, 30.60, 43.44, 21.64, 14.80, 31.59)),
    Printed("prompted GoG", "Qwen2.5-VL-7B", 22.31, (24.50, 17.40, 41.66, 20.47, 10.40, 19.41)),
    Printed("prompted GoG", "Qwen3-VL-8B-Thinking", 41.70, (51.33, 32.00, 62.69, 36.84, 25.95, 41.36)),
    Printed("full search", "Qwen2.5-VL-7B", 44.36, (61.06, 38.15, 59.13, 36.26, 31.05, 40.51)),
    Printed("full search", "Qwen3-VL-8B-Thinking", 46.99, (57.33, 32.25, 61.90, 63.84, 23.55, 39.09)),
    Printed("trained", "MMSearch-R1 (rerun)", 36.91, (42.39, 24.65, 54.79, 40.94, 23.85, 34.84)),
    Printed("trained", "GoG-2.5 SFT without gaze", 41.76, (53.39, 40.10, 59.53, 40.94, 22.30, 34.28), noted=True),
    Printed("trained", "GoG-2.5 SFT", 43.28, (53.72, 41.90, 60.61, 40.35, 24.55, 38.53)),
    Printed("trained", "GoG-3 SFT without gaze", 48.34, (60.17, 40.55, 64.86, 46.20, 32.80, 45.47), noted=True),
    Printed("trained", "GoG-3 SFT", 50.17, (62.17, 40.55, 65.65, 53.80, 32.40, 46.46)),
    Printed("trained", "GoG-2.5 RL, level 1", 47.28, (64.00, 50.35, 64.66, 50.88, 32.95, 39.94), noted=True),
    Printed("trained", "GoG-2.5 RL, level 2", 53.22, (66.78, 51.05, 64.86, 56.73, 37.70, 42.21)),
    Printed("trained", "GoG-3 RL, level 1", 48.89, (66.39, 44.95, 64.86, 61.99, 39.55, 45.61), noted=True),
    Printed("trained", "GoG-3 RL, level 2", 56.88, (68.44, 49.05, 66.44, 65.50, 43.85, 48.02)),
)
"""Source: arXiv 2601.13942, the main table; rows with `noted`: a reading note of 2026-05-08."""


def faults(row: Printed) -> Iterator[Fault]:
    """What of a printed row cannot be right: first scores, then the mean."""
    for (name, n), score in zip(benchmarks.SIZES.items(), row.scores, strict=True):
        nearest = round(score * n / 100) * 100 / n
        if abs(nearest - score) > ROUNDING + 1e-9:
            yield Fault(name, score, nearest)
    mean = stats.mean(row.scores)
    if abs(mean - row.mean) > 2 * ROUNDING + 1e-9:  # the scores are rounded, too
        yield Fault("mean", row.mean, mean)


def gain(after: Printed, before: Printed) -> float:
    """Difference of two rows' recomputed means, in points."""
    return stats.mean(after.scores) - stats.mean(before.scores)

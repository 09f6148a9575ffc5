"""Key metrics of a stage, each with its course over the steps."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from gog import step_metrics
from gog_console import formatting
from gog_console.status import phrases
from gog_console.status.metric_log import Curve
from gog_operator.api.objects import Progress
from gog_operator.plan.summary import is_number

SHOWN = 0.03
"""Share of a step's time from which a part is shown."""
WIDTH = 16
"""Bars in the sparkline of a course."""


FORMATS: Mapping[str, Callable[[float], str]] = {
    "share": formatting.short_percent,
    "seconds": formatting.clock,
    "tokens per second": "{:,.0f}".format,
    "bytes": lambda value: f"{value / 1e9:.2f} GB",
}
"""Form of a value by its unit; other units are shown as plain numbers."""


@dataclass(frozen=True)
class Figure:
    """A metric as it is shown."""

    name: str
    """Title."""
    last: str
    """Mean of the last few steps."""
    first: str = ""
    """Mean of the first few steps; empty for a single value."""
    course: str = ""
    """Sparkline; empty for a single value."""


def of_stage(kind: str, progress: Progress | None, curve: Curve) -> list[Figure]:
    """Metrics of a stage of this kind; empty when it has reported none."""
    metrics = progress.metrics if progress is not None else {}
    if kind == "evaluate":
        return _accuracies(metrics.get("accuracy"))
    made = []
    for row in step_metrics.of_stage(kind):
        if kind not in row.status_of:
            continue
        values, bars = curve.values(row.key), formatting.bars(curve.stretches(row.key, WIDTH))
        if not values:  # the log is gone, but the progress report has the course
            values = formatting.series(metrics.get(row.series, metrics.get(row.key)))
            bars = formatting.sparkline(values, WIDTH)
        made += [_figure(row, values, bars)] if row.is_shown(values) else []
    return [*made, *_parts(kind, curve)]


def _parts(kind: str, curve: Curve) -> list[Figure]:
    """The share of each part of a step in the last few steps; small parts are left out."""
    recent = [point.figures for point in curve.points[-phrases.RECENT :]]
    seconds = {
        part.title: sum(value for row in recent if is_number(value := row.get(f"seconds_{part.name}")))
        for part in step_metrics.PARTS
        if kind in part.stages
    }
    whole = sum(seconds.values())
    shares = {title: value / whole for title, value in seconds.items()} if whole else {}
    return [
        Figure(f"time: {title}", formatting.short_percent(share)) for title, share in shares.items() if share >= SHOWN
    ]


def _figure(row: step_metrics.StepMetric, values: list[float], bars: str) -> Figure:
    name, format_ = row.short or row.title, FORMATS.get(row.unit, formatting.short_number)
    few = max(1, min(phrases.RECENT, len(values) // 2))
    last = format_(formatting.mean(values[-few:]))
    if len(values) == 1:
        return Figure(name, last)
    return Figure(name, last, format_(formatting.mean(values[:few])), bars)


def _accuracies(accuracy: Any) -> list[Figure]:
    by_policy = accuracy if isinstance(accuracy, Mapping) else {}
    return [
        Figure(str(policy), formatting.short_percent(value)) for policy, value in by_policy.items() if is_number(value)
    ]

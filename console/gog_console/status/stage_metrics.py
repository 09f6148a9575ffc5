"""The key figures of a stage, each with its course: what tells whether a training goes well."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from gog_console import formatting
from gog_console.status import phrases
from gog_console.status.metric_log import Curve
from gog_operator.api.objects import Progress
from gog_operator.plan.summary import is_number

WIDTH = 16
"""Bars of a course."""


@dataclass(frozen=True)
class Series:
    """key: in a line of the stage's log; told: where its progress has the course, of a stage whose log is gone."""

    name: str
    key: str
    format: Callable[[float], str] = formatting.short_number
    told: str = ""


SERIES: Mapping[str, tuple[Series, ...]] = {
    "sft": (
        Series("loss", "loss", told="losses"),
        Series("tokens/s", "tokens_per_second", "{:,.0f}".format),
    ),
    "grpo": (
        Series("reward", "reward_mean", told="rewards"),
        Series("KL", "kl"),
        Series("tool failures", "tool_failure_ratio", formatting.short_percent),
        Series("zero-variance groups", "frac_reward_zero_std", formatting.short_percent),
        Series("time per step", "seconds", formatting.clock),
    ),
}
"""By stage. Tokens and seconds are of one step."""


@dataclass(frozen=True)
class Figure:
    """first, last: means of a few steps at either end, as text; course: a sparkline. One value has no first and no
    course."""

    name: str
    last: str
    first: str = ""
    course: str = ""


def of_stage(kind: str, progress: Progress | None, curve: Curve) -> list[Figure]:
    """None for a stage that has told none. kind: of the stage."""
    metrics = progress.metrics if progress is not None else {}
    if kind == "evaluate":
        return _accuracies(metrics.get("accuracy"))
    made = []
    for series in SERIES.get(kind, ()):
        values, bars = curve.values(series.key), formatting.bars(curve.stretches(series.key, WIDTH))
        if not values:
            values = formatting.series(metrics.get(series.told, metrics.get(series.key)))
            bars = formatting.sparkline(values, WIDTH)
        made += [_figure(series, values, bars)] if values else []
    return made


def _figure(series: Series, values: list[float], bars: str) -> Figure:
    few = max(1, min(phrases.RECENT, len(values) // 2))
    last = series.format(formatting.mean(values[-few:]))
    if len(values) == 1:
        return Figure(series.name, last)
    return Figure(series.name, last, series.format(formatting.mean(values[:few])), bars)


def _accuracies(accuracy: Any) -> list[Figure]:
    told = accuracy if isinstance(accuracy, Mapping) else {}
    return [Figure(str(policy), formatting.short_percent(value)) for policy, value in told.items() if is_number(value)]

"""A stage, an endpoint, a duration, in a few words: pure functions that every display shares.

What a stage has to tell is in its progress metrics. A number is shown as it is, a list of numbers as its first and
last value and its course between; which of them matter, and what they are called, is a table here.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from gog_operator.api.meta import Reason
from gog_operator.api.objects import Object, Progress, Stage, Status

BARS = "▁▂▃▄▅▆▇█"
SHOWN: dict[str, tuple[tuple[str, str], ...]] = {
    "curate": (("trajectories", "{} trajectories"), ("without_search", "{:%} without search")),
    "sft": (("loss", "loss {}"),),
    "stratify": (
        ("easy", "easy {}"),
        ("level1", "level 1 {}"),
        ("level2", "level 2 {}"),
        ("unsolved", "{} never solved"),
    ),
    "grpo": (
        ("reward_mean", "reward {}"),
        ("reward", "reward {}"),
        ("accuracy_mean", "accuracy {}"),
        ("tool_failure_ratio", "tool failures {:%}"),
    ),
    "evaluate": (("questions", "{} questions"), ("accuracy", "accuracy {}")),
}
"""Per kind of stage: metric and how it reads. Metrics that are not reported are left out."""


def summary(stage: Stage) -> str:
    """`loss 2.31 → 0.42 ▇▅▃▂▁`"""
    if stage.status.progress is None:
        return ""
    metrics = stage.status.progress.metrics
    known = [phrase(metrics[name], form) for name, form in SHOWN[stage.stage] if name in metrics]
    told = known or [phrase(value, f"{name} {{}}") for name, value in list(metrics.items())[:4]]
    return " · ".join(each for each in told if each)


def phrase(value: Any, form: str) -> str:
    if isinstance(value, Mapping):
        return " ".join(f"{name} {number(each)}" for name, each in value.items())
    if isinstance(value, Sequence) and not isinstance(value, str):
        values = [float(each) for each in value if isinstance(each, int | float)]
        return course(values, form) if values else ""
    if "{:%}" in form and isinstance(value, int | float):
        return form.replace("{:%}", f"{100 * value:.1f} %")
    return form.format(number(value) if isinstance(value, int | float) else value)


def course(values: Sequence[float], form: str) -> str:
    """First and last value of a series, and a sparkline."""
    if "{:%}" in form:
        return form.replace("{:%}", f"{100 * values[-1]:.1f} %")
    if len(values) == 1:
        return form.format(number(values[0]))
    return f"{form.format(f'{number(values[0])} → {number(values[-1])}')} {sparkline(values)}"


def sparkline(values: Sequence[float], width: int = 8) -> str:
    """Means of `width` stretches as bars."""
    width = min(width, len(values))
    cuts = [round(index * len(values) / width) for index in range(width + 1)]
    means = [sum(values[a:b]) / (b - a) for a, b in itertools.pairwise(cuts)]
    low, high = min(means), max(means)
    scale = (len(BARS) - 1) / (high - low) if high > low else 0
    return "".join(BARS[round((mean - low) * scale)] for mean in means)


def number(value: float) -> str:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    if isinstance(value, int) or (value == int(value) and abs(value) >= 100):
        return f"{int(value):,}"
    return f"{value:.2f}" if abs(value) >= 0.01 or value == 0 else f"{value:.1e}"


def duration(seconds: float) -> str:
    """`11.4 s`, `1:52`, `2:03:10`"""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def seconds(status: Status, now: datetime) -> float:
    """How long an object has been at work, or was."""
    if status.start_time is None:
        return 0.0
    return max(((status.completion_time or now) - status.start_time) / timedelta(seconds=1), 0.0)


def steps(progress: Progress | None) -> str:
    return f"{progress.step}/{progress.total}" if progress is not None and progress.total else ""


def state(thing: Object) -> str:
    """One word: the reason of what holds most."""
    for type_ in ("Failed", "Complete", "Suspended", "Ready"):
        condition = thing.condition(type_)
        if condition is not None and (condition.status == "True" or type_ == "Ready"):
            return str(condition.reason)
    return "Pending"


def failure(thing: Object) -> str:
    """Why an object failed; nothing when it did not."""
    failed = thing.condition("Failed")
    return failed.message if failed is not None and failed.status == "True" else ""


def is_cancelled(thing: Object) -> bool:
    failed = thing.condition("Failed")
    return failed is not None and failed.status == "True" and failed.reason == Reason.CANCELLED

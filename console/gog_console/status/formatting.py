"""A stage, an endpoint, a duration, in a few words: pure functions that every display shares.

What a stage has to tell is in its progress metrics; each kind has a phrase of its own here, made of what it reported,
and metrics that nobody has a phrase for are shown by name.
"""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from gog_operator.api.meta import Reason
from gog_operator.api.objects import Object, Progress, Stage, Status

BARS = "▁▂▃▄▅▆▇█"
RECENT = 5
"""Steps over which a noisy series' last value is taken."""


def summary(stage: Stage) -> str:
    """`reward 0.33 → 0.47 ▁▂▂▃▄▄▅▆ · tool failures 3.1 %`"""
    if stage.status.progress is None:
        return ""
    metrics = stage.status.progress.metrics
    phrases = PHRASES[stage.stage](metrics) or [f"{name} {number(value)}" for name, value in _numbers(metrics).items()]
    return " · ".join(phrases[:5])


def _curate(metrics: Mapping[str, Any]) -> list[str]:
    phrases = [f"{number(metrics['trajectories'])} trajectories"] if "trajectories" in metrics else []
    behaviour = metrics.get("behaviour")
    if isinstance(behaviour, Mapping) and "none" in behaviour:
        phrases.append(f"{percent(behaviour['none'])} without search")
    return phrases


def _sft(metrics: Mapping[str, Any]) -> list[str]:
    losses = series(metrics.get("losses", metrics.get("loss")))
    if not losses:
        return []
    last = metrics["loss"] if isinstance(metrics.get("loss"), int | float) else losses[-1]
    return [f"loss {number(losses[0])} → {number(last)}" if len(losses) > 1 else f"loss {number(last)}"]


def _stratify(metrics: Mapping[str, Any]) -> list[str]:
    levels = metrics.get("levels")
    if not isinstance(levels, Mapping):
        return []
    phrases = [f"{name if name == 'easy' else f'level {name}'} {number(count)}" for name, count in levels.items()]
    if metrics.get("unsolved"):
        phrases[-1] += f" ({number(metrics['unsolved'])} never solved)"
    return phrases


def _grpo(metrics: Mapping[str, Any]) -> list[str]:
    rewards = series(metrics.get("rewards", metrics.get("reward")))
    phrases = []
    if rewards:
        first = metrics.get("reward_first", rewards[0])
        recent = metrics.get("reward_recent", mean(rewards[-RECENT:]))
        phrases.append(f"reward {number(first)} → {number(recent)} {sparkline(rewards)}")
    if isinstance(metrics.get("tool_failure_ratio"), int | float):
        phrases.append(f"tool failures {percent(metrics['tool_failure_ratio'])}")
    return phrases


def _evaluate(metrics: Mapping[str, Any]) -> list[str]:
    accuracy = metrics.get("accuracy")
    if not isinstance(accuracy, Mapping):
        return []
    return [f"{policy} {percent(value)}" for policy, value in accuracy.items() if isinstance(value, int | float)]


PHRASES = {"curate": _curate, "sft": _sft, "stratify": _stratify, "grpo": _grpo, "evaluate": _evaluate}


def series(value: Any) -> list[float]:
    """A metric that may be one number or a list of them."""
    values = value if isinstance(value, Sequence) and not isinstance(value, str) else [value]
    return [float(each) for each in values if isinstance(each, int | float)]


def _numbers(metrics: Mapping[str, Any]) -> dict[str, float]:
    return {name: value for name, value in metrics.items() if isinstance(value, int | float)}


def percent(value: float) -> str:
    return f"{100 * value:.1f} %" if value < 0.1 else f"{100 * value:.0f} %"


def sparkline(values: Sequence[float], width: int = 8) -> str:
    """Means of `width` stretches as bars; `!` is a stretch that holds a value that is not finite."""
    width = min(width, len(values))
    cuts = [round(index * len(values) / width) for index in range(width + 1)] if width else []
    return bars([mean(values[a:b]) for a, b in itertools.pairwise(cuts)])


def bars(values: Sequence[float | None]) -> str:
    """A bar each, the lowest value at the bottom; None is a gap, what is not finite is `!`."""
    finite = [value for value in values if value is not None and math.isfinite(value)]
    low, high = (min(finite), max(finite)) if finite else (0.0, 0.0)
    return "".join(_bar(value, low, high - low) for value in values)


def _bar(value: float | None, low: float, spread: float) -> str:
    if value is None:
        return " "
    if not math.isfinite(value):
        return "!"
    share = (value - low) / spread if 0 < spread < math.inf else 0.0
    return BARS[round(share * (len(BARS) - 1))]


def mean(values: Sequence[float]) -> float:
    """NaN when a value is not finite: an average would hide what a person has to see."""
    return statistics.fmean(values) if all(map(math.isfinite, values)) else math.nan


def number(value: float) -> str:
    if not math.isfinite(value):
        return str(value)
    if isinstance(value, int) or (value == int(value) and abs(value) >= 100):
        return f"{int(value):,}"
    return f"{value:.2f}" if abs(value) >= 0.01 or value == 0 else f"{value:.1e}"


def age(seconds: float) -> str:
    """How long ago in one figure, as kubectl tells it: `45s`, `12m`, `9h`, `3d`."""
    minutes, hours, days = seconds // 60, seconds // 3600, seconds // 86400
    if minutes < 2:
        return f"{max(int(seconds), 0)}s"
    return f"{int(minutes)}m" if minutes < 120 else f"{int(hours)}h" if hours < 48 else f"{int(days)}d"


def rough(seconds: float) -> str:
    """An estimate, without tenths: `48 s`, `1:52`."""
    return f"{seconds:.0f} s" if seconds < 59.5 else duration(seconds)


def printable(text: str) -> str:
    """In one line, and nothing in it that a terminal would obey."""
    return "".join(each if each.isprintable() else "\N{REPLACEMENT CHARACTER}" for each in " ".join(text.split()))


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
    return max(since(status.start_time, status.completion_time or now), 0.0)


def since(moment: datetime, now: datetime) -> float:
    """Seconds between two moments; one that a hand wrote without its zone is taken for UTC."""
    first, last = (each if each.tzinfo is not None else each.replace(tzinfo=UTC) for each in (moment, now))
    return (last - first).total_seconds()


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


def mark(stage: Stage) -> str:
    """✓ done, ✗ failed, ▸ at work or waiting."""
    return "✓" if stage.holds("Complete") else "✗" if stage.holds("Failed") else "▸"

"""A stage, an endpoint, a duration, in a few words: pure functions that every display shares.

What a stage has to tell is in its progress metrics; each kind has a phrase of its own here, made of what it reported,
and metrics that nobody has a phrase for are shown by name.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
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
        recent = rewards[-RECENT:]
        phrases.append(f"reward {number(first)} → {number(sum(recent) / len(recent))} {sparkline(rewards)}")
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
    """Means of `width` stretches as bars."""
    width = min(width, len(values))
    cuts = [round(index * len(values) / width) for index in range(width + 1)]
    means = [sum(values[a:b]) / (b - a) for a, b in itertools.pairwise(cuts)]
    low, high = min(means), max(means)
    scale = (len(BARS) - 1) / (high - low) if high > low else 0
    return "".join(BARS[round((mean - low) * scale)] for mean in means)


def number(value: float) -> str:
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

"""The state and results of a stage in a few words. Pure; shared by every display.

A stage reports its results as progress metrics. Each kind of stage has its own phrase; metrics without a phrase are
listed by name.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from gog_console import formatting
from gog_console.formatting import short_number, short_percent
from gog_operator.api.meta import Reason
from gog_operator.api.objects import Object, Progress, Stage, Status

TOOLS = ("ToolsChecked", str(Reason.TOOLS_DOWN))
"""Reasons of a run's events about its tools."""
RECENT = 5
"""Steps over which the last value of a noisy series is averaged."""


def summary(stage: Stage) -> str:
    """Results of a stage: `reward 0.33 → 0.47 ▁▂▂▃▄▄▅▆ · tool failures 3.1 %`."""
    if stage.status.progress is None:
        return ""
    metrics = stage.status.progress.metrics
    phrases = PHRASES[stage.stage](metrics) or [f"{name} {short_number(value)}" for name, value in _numbers(metrics)]
    return " · ".join(phrases[:5])


def _curate(metrics: Mapping[str, Any]) -> list[str]:
    phrases = [f"{short_number(metrics['trajectories'])} trajectories"] if "trajectories" in metrics else []
    behaviour = metrics.get("behaviour")
    if isinstance(behaviour, Mapping) and "none" in behaviour:
        phrases.append(f"{short_percent(behaviour['none'])} without search")
    dropped = metrics.get("dropped")
    if isinstance(dropped, Mapping) and dropped:
        counts = [(name, count) for name, count in dropped.items() if isinstance(count, int)]
        reasons = ", ".join(f"{name} {short_number(count)}" for name, count in counts)
        phrases.append(f"{short_number(sum(count for _, count in counts))} left out: {reasons}")
    return phrases


def _sft(metrics: Mapping[str, Any]) -> list[str]:
    losses = formatting.series(metrics.get("losses", metrics.get("loss")))
    if not losses:
        return []
    last = metrics["loss"] if isinstance(metrics.get("loss"), int | float) else losses[-1]
    return [
        f"loss {short_number(losses[0])} → {short_number(last)}" if len(losses) > 1 else f"loss {short_number(last)}"
    ]


def _stratify(metrics: Mapping[str, Any]) -> list[str]:
    levels = metrics.get("levels")
    if not isinstance(levels, Mapping):
        return []
    phrases = [f"{name if name == 'easy' else f'level {name}'} {short_number(count)}" for name, count in levels.items()]
    if metrics.get("unsolved"):
        phrases[-1] += f" ({short_number(metrics['unsolved'])} never solved)"
    return phrases


def _grpo(metrics: Mapping[str, Any]) -> list[str]:
    rewards = formatting.series(metrics.get("rewards", metrics.get("reward")))
    phrases = []
    if rewards:
        first = metrics.get("reward_first", rewards[0])
        recent = metrics.get("reward_recent", formatting.mean(rewards[-RECENT:]))
        phrases.append(f"reward {short_number(first)} → {short_number(recent)} {formatting.sparkline(rewards)}")
    if isinstance(metrics.get("tool_failure_ratio"), int | float):
        phrases.append(f"tool failures {short_percent(metrics['tool_failure_ratio'])}")
    if count := metrics.get("no_signal_steps"):
        row = metrics.get("no_signal_in_a_row") or 0
        last = f", the last {short_number(row)} in a row" if row > 1 else ""
        phrases.append(f"{short_number(count)} step{'' if count == 1 else 's'} without signal{last}")
    return phrases + _step(metrics)


def _step(metrics: Mapping[str, Any]) -> list[str]:
    """`2.1 s a step: rollout 48 %, tools 31 %`: the duration of the last step, and its largest parts."""
    seconds, parts = metrics.get("step_seconds"), metrics.get("step_parts")
    if not isinstance(seconds, int | float) or not isinstance(parts, Mapping):
        return []
    shares = ", ".join(f"{name} {short_percent(share)}" for name, share in _numbers(parts))
    return [f"{formatting.clock(seconds)} a step: {shares}"]


def _evaluate(metrics: Mapping[str, Any]) -> list[str]:
    accuracy = metrics.get("accuracy")
    if not isinstance(accuracy, Mapping):
        return []
    return [f"{policy} {short_percent(value)}" for policy, value in accuracy.items() if isinstance(value, int | float)]


PHRASES = {"curate": _curate, "sft": _sft, "stratify": _stratify, "grpo": _grpo, "evaluate": _evaluate}


def _numbers(metrics: Mapping[str, Any]) -> list[tuple[str, float]]:
    return [(name, value) for name, value in metrics.items() if isinstance(value, int | float)]


def seconds(status: Status, now: datetime) -> float:
    """Seconds from an object's start to its end, or to `now` while it is active."""
    if status.start_time is None:
        return 0.0
    return max(formatting.since(status.start_time, status.completion_time or now), 0.0)


def steps(progress: Progress | None) -> str:
    """`42/60`; empty while the total is unknown."""
    return f"{progress.step}/{progress.total}" if progress is not None and progress.total else ""


def state(thing: Object) -> str:
    """The reason of the condition that describes the object best, in one word."""
    for type_ in ("Failed", "Complete", "Suspended", "Ready"):
        condition = thing.condition(type_)
        if condition is not None and (condition.status == "True" or type_ == "Ready"):
            return str(condition.reason)
    return "Pending"


def failure(thing: Object) -> str:
    """Why the object failed; empty when it did not fail."""
    failed = thing.condition("Failed")
    return failed.message if failed is not None and failed.status == "True" else ""


def is_cancelled(thing: Object) -> bool:
    """Whether the object ended because a user cancelled it."""
    failed = thing.condition("Failed")
    return failed is not None and failed.status == "True" and failed.reason == Reason.CANCELLED


def mark(stage: Stage) -> str:
    """✓ complete, ✗ failed, ▸ active or waiting."""
    return "✓" if stage.holds("Complete") else "✗" if stage.holds("Failed") else "▸"

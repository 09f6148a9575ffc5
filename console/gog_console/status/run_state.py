"""State of a run, derived from its objects, its lock and its metrics. Pure.

A run is *interrupted* when it has not ended and no process drives it, because its process died or was stopped.

The remaining time is that of the current stage: the median duration of its last steps times the number of steps to
come, less the time already spent in the current step. For a stage that logs no steps it is extrapolated from the mean
pace of the attempt, which is known only for a first attempt: a later one started from a checkpoint.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from gog_console import formatting
from gog_console.status import phrases
from gog_console.status.metric_log import Curve
from gog_operator import hints
from gog_operator.api.objects import Object, Progress, Stage, ToolServer

INTERRUPTED = "Interrupted"
DAMAGED = "Damaged"
COLOURS = {"Complete": "green", INTERRUPTED: "yellow", "Suspended": "yellow", DAMAGED: "red"}


def state(root: Object, driver: int | None) -> str:
    """State in one word. driver: process that drives the run; None when there is none."""
    return INTERRUPTED if is_interrupted(root, driver) else phrases.state(root)


def is_interrupted(root: Object, driver: int | None) -> bool:
    """Whether the run is unfinished and no process drives it."""
    return driver is None and not root.finished and not root.holds("Suspended")


def colour(thing: Object | None, shown: str) -> str:
    """Colour in which a state is shown; empty for the default."""
    if thing is not None and thing.holds("Failed"):
        return "red"
    return COLOURS.get(shown, "cyan" if thing is not None and thing.status.start_time else "")


def waits_for(thing: Object) -> str:
    """What blocks an unfinished object, in a sentence; empty when it makes progress."""
    ready = thing.condition("Ready")
    return ready.message if ready is not None and ready.status == "False" and not thing.holds("Complete") else ""


def note(root: Object, driver: int | None, folder: Path) -> str:
    """What a user should know about a run, or do."""
    if is_interrupted(root, driver) or root.holds("Suspended"):
        return f"`{hints.call('resume', folder)}` resumes it"
    return formatting.printable(phrases.failure(root) or waits_for(root))


def seconds_left(
    curve: Curve, progress: Progress | None, attempt: int, since: datetime | None, now: datetime
) -> float | None:
    """Estimated seconds until an active stage is done.

    Args:
        curve: metric log of the stage.
        progress: its newest progress report.
        attempt: number of the attempt, from 1.
        since: start of the attempt.
        now: the current time.

    Returns:
        Seconds, or None when there is nothing to estimate from.
    """
    if progress is None or progress.total <= progress.step:
        return None
    remaining = progress.total - progress.step
    if curve.pace is not None:
        current = min(max(now.timestamp() - curve.changed, 0.0), curve.pace)
        return curve.pace * remaining - current
    if curve.points or attempt != 1 or since is None or not progress.step:
        return None
    return max(formatting.since(since, now), 0.0) / progress.step * remaining


def current(stages: Sequence[Stage]) -> Stage | None:
    """The first stage that is not complete, else the last one."""
    unfinished = [each for each in stages if not each.holds("Complete")]
    return unfinished[0] if unfinished else stages[-1] if stages else None


def next_step(root: Object, driver: int | None, stages: Sequence[Stage], folder: Path) -> list[tuple[str, str]]:
    """Commands that are useful next, each with its effect: (command, effect)."""
    stage = current(stages)
    part = f"/{stage.store_key}" if stage is not None else ""
    logs = hints.call("logs", folder, part)
    if root.holds("Complete"):
        return [(hints.call("view", folder), "shows its trajectories"), (hints.call("report", folder), "its report")]
    if root.finished:
        return [
            (logs, "shows the log"),
            (hints.call("resume", folder), "tries again from the last checkpoint"),
        ]
    if driver is None:
        step = stage.status.checkpoint.rpartition("/")[2] if stage is not None else ""
        reached = f" from step {step}" if step else ""
        return [(hints.call("resume", folder), f"resumes{reached}")]
    return [] if isinstance(root, ToolServer) else [(f"{logs} -f", "follows the log")]

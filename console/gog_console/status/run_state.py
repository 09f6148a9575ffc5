"""How a run stands: what its objects, its lock and its figures say together. Pure.

A run is *interrupted* when it has not ended and nobody drives it: its process died, or was stopped. The time that is
left is the current stage's: the median of its last steps' durations times the steps to come, less what the step at work
has taken; a stage that logs no steps goes on as fast as it went so far, in an attempt that began at its beginning.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from gog_console import formatting
from gog_console.status import phrases
from gog_console.status.metric_log import Curve
from gog_operator import hints
from gog_operator.api.objects import Endpoint, Object, Progress, Stage

INTERRUPTED = "Interrupted"
DAMAGED = "Damaged"
COLOURS = {"Complete": "green", INTERRUPTED: "yellow", "Suspended": "yellow", DAMAGED: "red"}


def state(root: Object, driver: int | None) -> str:
    return INTERRUPTED if is_interrupted(root, driver) else phrases.state(root)


def is_interrupted(root: Object, driver: int | None) -> bool:
    return driver is None and not root.finished and not root.holds("Suspended")


def colour(thing: Object | None, shown: str) -> str:
    """Style of a state."""
    if thing is not None and thing.holds("Failed"):
        return "red"
    return COLOURS.get(shown, "cyan" if thing is not None and thing.status.start_time else "")


def waits_for(thing: Object) -> str:
    """What an unfinished object waits for, in a sentence; nothing when it is at work."""
    ready = thing.condition("Ready")
    return ready.message if ready is not None and ready.status == "False" and not thing.holds("Complete") else ""


def note(root: Object, driver: int | None, folder: Path) -> str:
    """What a person has to know of a run, or to do."""
    if is_interrupted(root, driver) or root.holds("Suspended"):
        return f"`{hints.call('resume', folder)}` goes on"
    return formatting.printable(phrases.failure(root) or waits_for(root))


def seconds_left(
    curve: Curve, progress: Progress | None, attempt: int, since: datetime | None, now: datetime
) -> float | None:
    """Until a stage at work is done; None when nothing is known. since: when the attempt began."""
    if progress is None or progress.total <= progress.step:
        return None
    to_come = progress.total - progress.step
    if curve.pace is not None:
        under_way = min(max(now.timestamp() - curve.changed, 0.0), curve.pace)
        return curve.pace * to_come - under_way
    if curve.points or attempt != 1 or since is None or not progress.step:
        return None
    return max(formatting.since(since, now), 0.0) / progress.step * to_come


def current(stages: Sequence[Stage]) -> Stage | None:
    """The first that is not done, else the last."""
    unfinished = [each for each in stages if not each.holds("Complete")]
    return unfinished[0] if unfinished else stages[-1] if stages else None


def next_step(root: Object, driver: int | None, stages: Sequence[Stage], folder: Path) -> list[tuple[str, str]]:
    """(command, what it does): what one would want to type next."""
    stage = current(stages)
    part = f"/{stage.store_key}" if stage is not None else ""
    logs = hints.call("logs", folder, part)
    if root.holds("Complete"):
        return [(hints.call("view", folder), "shows its trajectories"), (hints.call("report", folder), "its report")]
    if root.finished:
        return [
            (logs, "shows what was written"),
            (hints.call("resume", folder), "tries again from the last checkpoint"),
        ]
    if driver is None:
        step = stage.status.checkpoint.rpartition("/")[2] if stage is not None else ""
        reached = f" from step {step}" if step else ""
        return [(hints.call("resume", folder), f"goes on{reached}")]
    return [] if isinstance(root, Endpoint) else [(f"{logs} -f", "shows what it writes")]

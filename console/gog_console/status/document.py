"""`gog status --json`: the status of runs for scripts.

Keys are those of the report's summary.json where they mean the same. Unknown values and numbers that are not finite are
null.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from gog_console.report import stages, summary
from gog_console.status import phrases, run_state
from gog_console.status.overview import Line
from gog_console.status.run_page import RunPage, StageLine
from gog_operator.api.objects import Object, Progress, Stage


def of_runs(lines: Sequence[Line], now: datetime) -> dict[str, Any]:
    """All runs of a folder."""
    return {"written": now.isoformat(timespec="seconds"), "runs": [_run(line) for line in lines]}


def of_run(board: RunPage, now: datetime) -> dict[str, Any]:
    """One run, with its stages, ToolServers and events."""
    return {
        "run": board.name,
        **_condition(board.root, board.driver),
        "written": now.isoformat(timespec="seconds"),
        "problems": list(board.problems),
        "stages": [_stage(line, now) for line in board.stages],
        "endpoints": [
            {
                "role": each.spec.role,
                "url": each.status.url or None,
                "ready": each.holds("Ready"),
                "restarts": each.status.restarts,
            }
            for each in board.tool_servers
        ],
        "spend": summary.spent(board.spend),
        "events": list(board.events),
        "next": [command for command, _ in board.next],
    }


def _run(line: Line) -> dict[str, Any]:
    return {
        "run": line.name,
        **_condition(line.root, line.driver),
        **({"message": line.note} if line.root is None else {}),
        "created": line.created.isoformat(timespec="seconds"),
        "stage": line.figures.stage or None,
        **_progress(line.progress),
        "attempts": line.attempt,
        "left_seconds": _rounded(line.left),
    }


def _condition(thing: Object | None, driver: int | None) -> dict[str, Any]:
    """condition and message as in the report; the condition of a damaged run is `Damaged`."""
    if thing is None:
        return {"condition": run_state.DAMAGED, "message": "", "interrupted": False, "process": None}
    condition, message = stages.condition(thing)
    interrupted = run_state.is_interrupted(thing, driver)
    return {"condition": condition, "message": message, "interrupted": interrupted, "process": driver}


def _stage(line: StageLine, now: datetime) -> dict[str, Any]:
    """One stage; a planned stage has the same keys."""
    stage = line.stage
    kind, _, arm = line.key.partition("-")
    condition, message = stages.condition(stage)
    return {
        "name": line.key,
        "kind": kind,
        "arm": arm,
        "condition": condition,
        "message": message,
        "attempts": stage.status.attempt if stage is not None else 0,
        "seconds": _seconds(stage, now) if stage is not None else None,
        "checkpoint": (stage.status.checkpoint if stage is not None else "") or None,
        **_progress(line.progress),
        "left_seconds": _rounded(line.left),
    }


def _seconds(stage: Stage, now: datetime) -> float | None:
    return _rounded(phrases.seconds(stage.status, now)) if stage.status.start_time else None


def _progress(progress: Progress | None) -> dict[str, Any]:
    """Step, total and scalar metrics; series are in metrics.jsonl."""
    if progress is None:
        return {"step": None, "total": None, "metrics": {}}
    metrics = {name: summary.finite(value) for name, value in progress.metrics.items() if not isinstance(value, list)}
    return {"step": progress.step, "total": progress.total or None, "metrics": metrics}


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 3)

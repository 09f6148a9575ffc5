"""`summary.json`: the report for programs. Pure.

The shape is always the same: data that a run has not produced is an empty list, zero or null, never a missing key.
Numbers that are not finite become null, because JSON cannot represent them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gog import step_metrics
from gog.calls.spend import Spend
from gog.levels import Graded
from gog_console.report import curation
from gog_console.report.model import Data, Evaluation, Row, Stage, column, number

ENDS = 10
"""Steps at either end of training over which rewards are averaged."""


def summarise(data: Data) -> dict[str, Any]:
    """The run as JSON values. Keys are only ever added, because other programs depend on them."""
    main = _line(data, "")
    return finite(
        {
            "run": data.name,
            "condition": data.condition,
            "message": data.message,
            "written": data.now.isoformat(timespec="seconds"),
            "stages": [_stage(stage, data) for stage in data.stages],
            **main,
            "arms": {arm: _line(data, arm) for arm in sorted({stage.arm for stage in data.stages} - {""})},
            "spend": spent(data.spend),
            "trajectories": {"recorded": data.recorded, "shown": len(data.samples)},
            "problems": [{"where": problem.where, "what": problem.what} for problem in data.problems],
        }
    )


def spent(spend: Spend) -> dict[str, Any]:
    """Calls and cost in US dollars, in all and by tool; no calls where nothing was charged and nothing limited."""
    whole = spend.total()
    tools = {tool: spend.total(tool) for tool in sorted(spend.tools)}
    return {
        "calls": whole.calls,
        "usd": round(whole.usd, 6),
        "tools": {tool: {"calls": each.calls, "usd": round(each.usd, 6)} for tool, each in tools.items()},
    }


def level_counts(graded: Sequence[Graded], meta: Mapping[str, Any] | None = None) -> dict[str, int]:
    """Questions by level; from the checkpoint's meta data when the graded questions cannot be read."""
    if graded:
        return {level: sum(line.level == level for line in graded) for level in ("easy", "1", "2")}
    noted = (meta or {}).get("levels")
    kept = noted if isinstance(noted, Mapping) else {}
    return {level: int(number(kept.get(level)) or 0) for level in ("easy", "1", "2")}


def unsolved(graded: Sequence[Graded], meta: Mapping[str, Any] | None = None) -> int:
    """Questions that no sample solved."""
    return sum(line.unsolved for line in graded) if graded else int(number((meta or {}).get("unsolved")) or 0)


def ends(rows: Sequence[Row], name: str) -> tuple[float | None, float | None, int]:
    """Mean of a metric over the first and the last steps, and how many steps each mean takes.

    >>> ends([{"r": 0.0}, {"r": 1.0}, {"r": 2.0}], "r")
    (0.0, 2.0, 1)
    """
    values = [value for value in column(rows, name) if value is not None]
    if not values:
        return None, None, 0
    size = max(1, min(ENDS, len(values) // 2))
    return sum(values[:size]) / size, sum(values[-size:]) / size, size


def interval(value: object) -> tuple[float, float] | None:
    """[low, high] as two numbers; None for anything else."""
    if not isinstance(value, list | tuple) or len(value) != 2:
        return None
    low, high = number(value[0]), number(value[1])
    return None if low is None or high is None else (low, high)


def _line(data: Data, arm: str) -> dict[str, Any]:
    """Results of the main line (empty arm) or of an arm."""
    sft = data.by_arm("sft", data.curves).get(arm, ())
    grpo = data.by_arm("grpo", data.curves).get(arm, ())
    evaluation = data.by_arm("evaluate", data.evaluations).get(arm, Evaluation(()))
    stage = next((stage for stage in data.stages if stage.kind == "stratify" and stage.arm == arm), None)
    graded = data.by_arm("stratify", data.levels).get(arm, ())
    first, last, size = ends(grpo, "reward_mean")
    return {
        "curation": curation.dropped(data) if not arm else {},
        "levels": level_counts(graded, stage.meta if stage else None),
        "unsolved": unsolved(graded, stage.meta if stage else None),
        "sft": [_step(row, "sft") for row in sft],
        "grpo": [_step(row, "grpo") for row in grpo],
        "reward": {"first": first, "last": last, "steps": size},
        "evaluation": [_evaluated(row) for row in evaluation.rows],
        "comparisons": [dict(row) for row in evaluation.comparisons],
    }


def _step(row: Row, kind: str) -> dict[str, Any]:
    """A step with the metrics whose rows list it for the summary."""
    keys = [metric.key for metric in step_metrics.METRICS if kind in metric.summary_of]
    return {key: row.get(key) for key in ("step", *keys)}


def _stage(stage: Stage, data: Data) -> dict[str, Any]:
    seconds = stage.seconds(data.now)
    return {
        "name": stage.key,
        "kind": stage.kind,
        "arm": stage.arm,
        "condition": stage.condition,
        "message": stage.message,
        "attempts": stage.attempts,
        "seconds": None if seconds is None else round(seconds, 3),
        "checkpoint": stage.checkpoint or None,
        "image": stage.image or None,
    }


def _evaluated(row: Row) -> dict[str, Any]:
    """A row of the evaluation: documented keys are always present, others are passed through."""
    documented = ("policy", "benchmark", "n", "accuracy", "ci95", "tool_calls_mean", "latency_p50_s")
    return {**{name: row.get(name) for name in documented}, **row}


def finite(value: Any) -> Any:
    """The value as JSON can represent it: numbers that are not finite become None."""
    if isinstance(value, float):
        return number(value)
    if isinstance(value, Mapping):
        return {str(key): finite(kept) for key, kept in value.items()}
    if isinstance(value, list | tuple):
        return [finite(kept) for kept in value]
    return value if isinstance(value, str | int | None) else str(value)

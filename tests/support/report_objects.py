"""The objects of a run that has a report: the run, its stages, its endpoints, its events."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import yaml

BEGAN = datetime(2026, 3, 14, 9, 26, 53, tzinfo=UTC)


NOW = BEGAN + timedelta(minutes=9)


ALL = ("curate", "sft", "stratify", "grpo", "evaluate")


EVENTS = (
    {
        "time": "2026-03-14T09:28:01+00:00",
        "type": "Normal",
        "reason": "Ready",
        "message": "judge answers at http://127.0.0.1:41",
    },
    {
        "time": "2026-03-14T09:31:07+00:00",
        "type": "Warning",
        "reason": "Retrying",
        "message": "world-grpo: attempt 1 failed: exit 1; tried again in 2 s, see http://127.0.0.1:41",
    },
)


OBJECT_KINDS = {
    "curate": "CurateStage", "sft": "SFTStage", "stratify": "StratifyStage", "grpo": "GRPOStage", "evaluate": "EvaluateStage",
}  # fmt: skip


def run_objects(
    folder: Path,
    name: str,
    stages: Sequence[str],
    failed: str,
    running: str,
    arms: Sequence[str],
    spec: Mapping[str, Any],
    steps: int,
) -> None:
    folder.mkdir(parents=True)
    given = {"model": {"base": "tiny"}, "data": {"world": {}}, "seed": 3, **spec}
    state = "Failed" if failed else "" if running or len(stages) < len(ALL) else "Complete"
    run = _object(
        "GoGRun",
        name,
        given,
        0,
        None if running else 380,
        state or "Running",
        "stage grpo failed 4 times" if failed else "",
    )
    _write(folder, run)
    keys = [(stage, stage) for stage in stages] + [
        (f"{kind}-{arm}", kind) for arm in arms for kind in ("grpo", "evaluate")
    ]
    for place, (key, kind) in enumerate(keys):
        condition = "Failed" if key == failed else "Running" if key == running else "Complete"
        message = "attempt 4 failed: the judge decided only 31 of 80 answers" if condition == "Failed" else ""
        start, end = 4 + 70 * place, None if condition == "Running" else 70 + 70 * place
        body = _object(
            OBJECT_KINDS[kind], f"{name}-{key}", {"stage": key} if key != kind else {}, start, end, condition, message
        )
        body["status"] |= {"attempt": 4 if condition == "Failed" else 2 if kind == "grpo" else 1}
        body["status"] |= {"progress": {"step": steps, "total": steps, "metrics": {}}}
        _write(folder, body)


def _object(
    kind: str, name: str, spec: Mapping[str, Any], start: float, end: float | None, condition: str, message: str
) -> dict[str, Any]:
    moment = (BEGAN + timedelta(seconds=start)).isoformat()
    final = condition in ("Complete", "Failed", "Suspended")
    listed = {
        "type": condition if final else "Ready",
        "status": "True" if final else "False",
        "reason": condition,
        "message": message,
        "lastTransitionTime": moment,
    }
    status: dict[str, Any] = {"conditions": [listed], "startTime": moment}
    if end is not None:
        status["completionTime"] = (BEGAN + timedelta(seconds=end)).isoformat()
    metadata = {"name": name, "creationTimestamp": moment}
    return {"apiVersion": "gog.dev/v1alpha1", "kind": kind, "metadata": metadata, "spec": dict(spec), "status": status}


def _write(folder: Path, body: Mapping[str, Any]) -> None:
    path = folder / f"{str(body['kind']).lower()}-{body['metadata']['name']}.yaml"
    path.write_text(yaml.safe_dump(body))

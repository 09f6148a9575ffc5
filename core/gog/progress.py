"""How far a stage has come: one small file that the stage writes and the control plane reads.

`progress.json` in the stage's work folder: {"step", "total", "metrics", "checkpoint"}; replaced whole, so that a reader
never sees half of it. checkpoint: {"ref": "grpo/40", "complete": false}, the newest that is committed, or null. In a pod
the same is served over HTTP, and left behind as the pod's last words, which Kubernetes cuts at 4096 bytes (`brief`).
The lasting record is `metrics.jsonl` inside checkpoints: one line per step.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

FILE = "progress.json"
LAST_WORDS_BYTES = 4096


def told(
    step: int, total: int, metrics: Mapping[str, Any] | None = None, checkpoint: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    return {
        "step": step,
        "total": total,
        "metrics": dict(metrics or {}),
        "checkpoint": None if checkpoint is None else dict(checkpoint),
    }


def report(
    workdir: Path,
    step: int,
    total: int,
    metrics: Mapping[str, Any] | None = None,
    checkpoint: Mapping[str, Any] | None = None,
) -> None:
    workdir.mkdir(parents=True, exist_ok=True)
    temporary = workdir / f"{FILE}.tmp"
    temporary.write_text(json.dumps(told(step, total, metrics, checkpoint)))
    temporary.replace(workdir / FILE)


def read(workdir: Path) -> dict[str, Any] | None:
    """The last report, None when there is none yet."""
    try:
        return json.loads((workdir / FILE).read_text())
    except (FileNotFoundError, ValueError):
        return None


def brief(report: Mapping[str, Any], limit: int = LAST_WORDS_BYTES) -> str:
    """A report as JSON of at most `limit` bytes: long metrics (series) are left out, the longest first."""
    metrics = dict(report["metrics"])
    while True:
        text = json.dumps({**report, "metrics": metrics})
        if len(text.encode()) <= limit or not metrics:
            return text
        metrics.pop(max(metrics, key=lambda name: len(json.dumps(metrics[name]))))

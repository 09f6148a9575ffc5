"""How far a stage has come: one small file that the stage writes and the control plane reads.

`progress.json` in the stage's work folder: {"step", "total", "metrics", "checkpoint"}; replaced whole, so that a reader
never sees half of it. checkpoint: {"ref": "grpo/40", "complete": false}, the newest that is committed, or null. While
the stage waits for a service that is down there is also waiting: {"reason", "message", "since", "until"}, a condition's
reason and message, and the times (RFC 3339, UTC) when the wait began and when the stage gives up. In a pod the same is
served over HTTP, and left behind as the pod's last words, which Kubernetes cuts at 4096 bytes (`brief`).
The lasting record is `metrics.jsonl` inside checkpoints: one line per step.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

FILE = "progress.json"
LAST_WORDS_BYTES = 4096
POINTS = 40
"""Of a series in a report, which becomes the status of an object: that must stay small however long the stage is."""


def told(
    step: int,
    total: int,
    metrics: Mapping[str, Any] | None = None,
    checkpoint: Mapping[str, Any] | None = None,
    waiting: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    return {
        "step": step,
        "total": total,
        "metrics": dict(metrics or {}),
        "checkpoint": None if checkpoint is None else dict(checkpoint),
        **({} if waiting is None else {"waiting": dict(waiting)}),
    }


def course(values: Sequence[float]) -> list[float]:
    """A series' course in few points: the means of stretches of equal length, to four digits.

    >>> course([0.0, 1.0])
    [0.0, 1.0]
    """
    count = min(POINTS, len(values))
    cuts = [round(index * len(values) / count) for index in range(count + 1)] if count else []
    return [float(f"{fmean(values[a:b]):.4g}") for a, b in itertools.pairwise(cuts)]


def report(
    workdir: Path,
    step: int,
    total: int,
    metrics: Mapping[str, Any] | None = None,
    checkpoint: Mapping[str, Any] | None = None,
    waiting: Mapping[str, str] | None = None,
) -> None:
    workdir.mkdir(parents=True, exist_ok=True)
    temporary = workdir / f"{FILE}.tmp"
    temporary.write_text(json.dumps(told(step, total, metrics, checkpoint, waiting)))
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

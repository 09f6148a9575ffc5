"""The progress of a stage: one small file that the stage writes and the control plane reads.

`progress.json` in the stage's work folder holds {"step", "total", "metrics", "checkpoint"} and is replaced as a whole, so
that a reader never sees half of it. checkpoint is the newest that is committed, {"ref": "grpo/40", "complete": false}, or
null. While the stage waits for a service that is down there is also waiting: {"reason", "message", "since", "until"}, a
condition's reason and message, and the times (RFC 3339, UTC) when the wait began and when the stage gives up. A figure
that is NaN or infinite is null.

In a pod the same document is served over HTTP and is left behind as the termination message (`shorten`). The lasting
record is `metrics.jsonl` inside checkpoints, one line per step.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from gog import finite_json

FILE = "progress.json"
MESSAGE_BYTES = 4096
"""Kubernetes cuts termination messages at this size."""
POINTS = 40
"""Maximum points per series; series are stored in an object's status, which must stay small."""


def document(
    step: int,
    total: int,
    metrics: Mapping[str, Any] | None = None,
    checkpoint: Mapping[str, Any] | None = None,
    waiting: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """The progress of a stage as JSON holds it.

    Args:
        step: steps done.
        total: steps planned.
        metrics: newest figures by name, and downsampled series.
        checkpoint: the newest that is committed.
        waiting: the outage that the stage waits for, if it does.
    """
    return {
        "step": step,
        "total": total,
        "metrics": finite_json.with_nulls(dict(metrics or {})),
        "checkpoint": None if checkpoint is None else dict(checkpoint),
        **({} if waiting is None else {"waiting": dict(waiting)}),
    }


def downsample(values: Sequence[float]) -> list[float]:
    """A series in at most POINTS points: the means of equal stretches, to four digits.

    >>> downsample([0.0, 1.0])
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
    """Replaces the progress file of a work folder; see `document` for the arguments."""
    workdir.mkdir(parents=True, exist_ok=True)
    temporary = workdir / f"{FILE}.tmp"
    temporary.write_text(finite_json.dumps(document(step, total, metrics, checkpoint, waiting)))
    temporary.replace(workdir / FILE)


def read(workdir: Path) -> dict[str, Any] | None:
    """The newest progress; None if there is none yet."""
    try:
        return json.loads((workdir / FILE).read_text())
    except (FileNotFoundError, ValueError):
        return None


def shorten(report: Mapping[str, Any], limit: int = MESSAGE_BYTES) -> str:
    """A progress document as JSON of at most `limit` bytes; the longest metrics (series) are left out first."""
    metrics = dict(report["metrics"])
    while True:
        text = finite_json.dumps({**report, "metrics": metrics})
        if len(text.encode()) <= limit or not metrics:
            return text
        metrics.pop(max(metrics, key=lambda name: len(finite_json.dumps(metrics[name]))))

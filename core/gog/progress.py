"""How far a stage has come: one small file that the stage writes and the control plane reads.

`progress.json` in the stage's work folder: {"step", "total", "metrics"}; replaced whole, so that a reader never sees
half of it. The lasting record is `metrics.jsonl` inside checkpoints: one line per step.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

FILE = "progress.json"


def report(workdir: Path, step: int, total: int, metrics: Mapping[str, Any] | None = None) -> None:
    workdir.mkdir(parents=True, exist_ok=True)
    temporary = workdir / f"{FILE}.tmp"
    temporary.write_text(json.dumps({"step": step, "total": total, "metrics": dict(metrics or {})}))
    temporary.replace(workdir / FILE)


def read(workdir: Path) -> dict[str, Any] | None:
    """The last report, None when there is none yet."""
    try:
        return json.loads((workdir / FILE).read_text())
    except (FileNotFoundError, ValueError):
        return None

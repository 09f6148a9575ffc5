"""The lasting record of a training stage: one JSON line per step, in every checkpoint. A figure without a value is null."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from gog import finite_json


class MetricLog:
    """One JSON line per step. A resumed stage continues after the lines of its checkpoint: no gap, no repeat.

    Args:
        path: the file, which is emptied
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lines: list[dict[str, Any]] = []
        path.write_text("")

    def resume(self, checkpoint: Path) -> None:
        """Takes over the lines of a checkpoint's log."""
        self.lines = [finite_json.with_nulls(json.loads(line)) for line in checkpoint.read_text().splitlines()]
        self.path.write_text("".join(finite_json.dumps(line) + "\n" for line in self.lines))

    def append(self, **values: Any) -> None:
        """Adds a step's line; numbers are rounded to 7 decimals, figures that are None are left out, and those that are
        NaN or infinite are null."""
        line = {
            name: finite_json.with_nulls(round(value, 7) if isinstance(value, float) else value)
            for name, value in values.items()
            if value is not None
        }
        self.lines.append(line)
        with self.path.open("a") as stream:
            stream.write(finite_json.dumps(line) + "\n")

"""How a benchmark ends: its figures in results/NAME.json, one line of goals, and its exit code."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"


def finish(name: str, found: Mapping[str, Any], goals: Mapping[str, bool]) -> int:
    """Writes the figures, prints which goals were reached, and returns the exit code: 0 if all were.

    Args:
        name: of the benchmark, as its file is called.
        found: figures that JSON can hold.
        goals: what was to be reached, and whether it was.
    """
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps({**found, "goals": goals}, indent=1) + "\n")
    print(f"{name}: " + "; ".join(f"{goal}: {'reached' if met else 'MISSED'}" for goal, met in goals.items()))
    return 0 if all(goals.values()) else 1

"""Evaluation table, from the report's summary.json."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

HEAD = ("policy", "benchmark", "n", "accuracy", "95 % interval", "tool calls", "p50 latency")


def rows(summary: Path) -> list[tuple[str, ...]]:
    """One row per policy and benchmark; empty without a summary or an evaluation."""
    try:
        evaluation = json.loads(summary.read_text(encoding="utf-8")).get("evaluation") or []
    except FileNotFoundError:
        return []
    return [_row(each) for each in evaluation]


def _row(one: dict[str, Any]) -> tuple[str, ...]:
    low, high = one.get("ci95") or (None, None)
    return (
        str(one.get("policy", "")),
        str(one.get("benchmark", "")),
        str(one.get("n", "")),
        _percent(one.get("accuracy")),
        f"{_percent(low)} – {_percent(high)}" if low is not None else "",
        _number(one.get("tool_calls_mean"), ""),
        _number(one.get("latency_p50_s"), " s"),
    )


def _percent(value: Any) -> str:
    return f"{100 * value:.1f} %" if isinstance(value, int | float) else ""


def _number(value: Any, unit: str) -> str:
    return f"{value:.2f}{unit}" if isinstance(value, int | float) else ""


def plain(table: list[tuple[str, ...]]) -> list[str]:
    """Aligned lines: text to the left, numbers to the right."""
    lines = [HEAD, *table]
    widths = [max(len(line[column]) for line in lines) for column in range(len(HEAD))]
    return [
        "  ".join(
            cell.ljust(width) if column < 2 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths))
        ).rstrip()
        for line in lines
    ]

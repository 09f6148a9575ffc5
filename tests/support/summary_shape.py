"""The shape of `summary.json`: keys and kinds of value, the same wherever a run ran."""

from __future__ import annotations

from typing import Any

SHAPE = {
    "stages": {"name", "kind", "condition", "attempts", "seconds", "checkpoint"},
    "levels": {"easy", "1", "2"},
    "grpo": {"step", "reward_mean", "accuracy_mean", "format_mean", "kl", "tool_failure_ratio", "seconds"},
    "evaluation": {"policy", "benchmark", "n", "accuracy", "ci95", "tool_calls_mean", "latency_p50_s"},
    "comparisons": {"a", "b", "n", "difference", "ci95"},
}
"""Keys that each part has at least."""


def missing(summary: dict[str, Any]) -> dict[str, set[str]]:
    """What a summary lacks, by part; an empty list lacks everything."""
    lacking = {}
    for part, keys in SHAPE.items():
        found = summary.get(part) or {}
        rows = found if isinstance(found, list) else [found]
        absent = set().union(*(keys - set(row) for row in rows)) if rows else keys
        if absent:
            lacking[part] = absent
    return lacking

"""The keys of `summary.json`, which are the same on one machine and on a cluster."""

from __future__ import annotations

from typing import Any

SHAPE = {
    "stages": {"name", "kind", "condition", "attempts", "seconds", "checkpoint"},
    "levels": {"easy", "1", "2"},
    "grpo": {"step", "reward_mean", "accuracy_mean", "format_mean", "kl", "tool_failure_ratio", "seconds"},
    "evaluation": {"policy", "benchmark", "n", "accuracy", "ci95", "tool_calls_mean", "latency_p50_s"},
    "comparisons": {"a", "b", "n", "difference", "ci95"},
}
"""Keys that every part must have."""


def missing(summary: dict[str, Any]) -> dict[str, set[str]]:
    """Keys that are missing from a summary, by part; an empty list lacks all of them."""
    lacking = {}
    for part, keys in SHAPE.items():
        found = summary.get(part) or {}
        rows = found if isinstance(found, list) else [found]
        absent = set().union(*(keys - set(row) for row in rows)) if rows else keys
        if absent:
            lacking[part] = absent
    return lacking

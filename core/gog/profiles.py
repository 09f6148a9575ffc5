"""Where a stage's traces are: `profiles/<stage>/step-3-rank-0-update.json.gz` in the store, beside the checkpoints."""

from __future__ import annotations

FOLDER = "profiles"
"""Folder of the store, and of a stage's work folder."""


def name(step: int, rank: int, window: str) -> str:
    """Name of a trace's file. window: `rollout` or `update`."""
    return f"step-{step}-rank-{rank}-{window}.json.gz"


def key(stage: str, name: str) -> str:
    """Key in the store of a stage's trace."""
    return f"{FOLDER}/{stage}/{name}"

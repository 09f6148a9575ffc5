"""What a check of the store has found, read from its result, which a tenant's image wrote. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gog_operator.plan.actions import Checkpoint, StoreView

STEPS = 10**9
"""Steps have nine digits in the store."""


def found(result: Mapping[str, Any]) -> StoreView:
    """The newest checkpoint of each key that has one; a failure where the result is of another form."""
    try:
        listed = (result.get("checkpoints") or {}).items()
        return StoreView("known", {key: _checkpoint(key, each) for key, each in listed if each})
    except (AttributeError, KeyError, TypeError, ValueError):
        return StoreView("failed", message=f"the check's result names no checkpoints: {str(result)[:100]}")


def _checkpoint(key: str, given: Mapping[str, Any]) -> Checkpoint:
    """Raises AttributeError, KeyError, TypeError, ValueError."""
    step, complete = given["step"], given.get("complete")
    if not isinstance(step, int) or not 0 <= step < STEPS or not isinstance(complete, bool | None):
        raise ValueError(f"{key}: no checkpoint")
    return Checkpoint(key, int(step), complete)

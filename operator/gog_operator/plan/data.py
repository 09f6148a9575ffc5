"""A dataset that must be made first (the embedded world) is made before anything that reads it starts."""

from __future__ import annotations

from gog import spec as settings
from gog_operator.plan.actions import Action, DataView, PrepareData


def ready(data: settings.DataSpec | None, seen: DataView) -> bool:
    return data is None or data.world is None or seen.state == "ready"


def preparation(data: settings.DataSpec | None, seen: DataView) -> tuple[Action, ...]:
    """The action that brings the dataset about, where one is called for."""
    if data is None or data.world is None or seen.state != "absent":
        return ()
    return (PrepareData(),)


def failure(seen: DataView) -> str:
    """Why the dataset will not be had, or nothing."""
    return f"the dataset cannot be made: {seen.message}" if seen.state == "failed" else ""

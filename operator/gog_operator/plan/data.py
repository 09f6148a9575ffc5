"""A dataset that gog generates (the embedded world) must be complete before its readers start. Pure."""

from __future__ import annotations

from gog import spec as settings
from gog_operator.plan.actions import Action, DataView, PrepareData


def ready(data: settings.DataSpec | None, view: DataView) -> bool:
    """Whether the dataset can be read; a dataset that gog does not make always can."""
    return data is None or data.world is None or view.state == "ready"


def preparation(data: settings.DataSpec | None, view: DataView) -> tuple[Action, ...]:
    """The action that starts the preparation, where it has not started."""
    if data is None or data.world is None or view.state != "absent":
        return ()
    return (PrepareData(),)


def failure(view: DataView) -> str:
    """Why the dataset cannot be made; empty if it can."""
    return f"the dataset cannot be made: {view.message}" if view.state == "failed" else ""

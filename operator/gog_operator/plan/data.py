"""A dataset that gog generates (the embedded world) must be complete before its readers start. Pure."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from gog import spec as settings
from gog_operator.api.meta import Reason
from gog_operator.plan import changes, preparation
from gog_operator.plan.actions import DataView, Decision, PrepareData
from gog_operator.plan.changes import Thing


def ready(data: settings.DataSpec | None, view: DataView) -> bool:
    """Whether the dataset can be read; a dataset that gog does not make always can."""
    return data is None or data.world is None or view.state == "ready"


def failure(view: DataView) -> str:
    """Why the dataset cannot be made; empty if it can, or may be later."""
    return _failed(view) if view.state == "failed" else ""


def plan(thing: Thing, view: DataView, message: str, now: datetime) -> Decision[Any]:
    """What to do until the dataset can be read.

    Args:
        thing: What waits for it.
        view: The dataset, which is neither ready nor refused.
        message: Message of the Ready condition while it is made.
        now: The time.
    """
    if view.state == "unavailable":
        return preparation.retry(thing, Reason.DATA_FAILED, _failed(view), PrepareData(), now)
    thing, events = changes.with_ready(preparation.begun(thing), (False, Reason.PREPARING, message), view.blocked, now)
    return Decision(thing.status, (PrepareData(),) if view.state == "absent" else (), events)


def _failed(view: DataView) -> str:
    return f"the dataset cannot be made: {view.message}"

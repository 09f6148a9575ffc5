"""An object with parts of its status changed: what every plan does with what it has decided. Pure."""

from __future__ import annotations

from datetime import datetime
from typing import Any, TypeVar

from gog_operator.api import conditions
from gog_operator.api.meta import Reason
from gog_operator.api.objects import GoGRun, Stage
from gog_operator.plan.actions import Blocked, Event

Thing = TypeVar("Thing", GoGRun, Stage)


def update(thing: Thing, **fields: Any) -> Thing:
    """The object with fields of its status set."""
    return thing.model_copy(update={"status": thing.status.model_copy(update=fields)})


def with_conditions(thing: Thing, *, now: datetime, **changes: tuple[bool, Reason, str]) -> Thing:
    """The object with conditions set: `Ready=(True, reason, message)`."""
    kept = thing.status.conditions
    for type_, (holds, reason, message) in changes.items():
        kept = conditions.put(
            kept,
            type_,  # type: ignore[arg-type]
            holds,
            reason,
            message,
            now=now,
            generation=thing.metadata.generation,
        )
    return update(thing, conditions=kept)


def waiting(
    thing: Thing, holds: bool, reason: Reason, message: str, blocked: Blocked | None, now: datetime
) -> tuple[Thing, tuple[Event, ...]]:
    """The object while it waits for somebody's work; blocked: why that does not get on, told as an event once."""
    if blocked is None:
        return with_conditions(thing, Ready=(holds, reason, message), now=now), ()
    told = next((each for each in thing.status.conditions if each.type == "Ready"), None)
    stuck = with_conditions(thing, Ready=(False, blocked.reason, blocked.message), now=now)
    known = told is not None and told.reason == blocked.reason
    return stuck, () if known else (Event(str(blocked.reason), f"{thing.name}: {blocked.message}", warning=True),)

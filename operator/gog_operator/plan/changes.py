"""Copies of an object with parts of its status changed, and the events that follow from such a change. Pure."""

from __future__ import annotations

from datetime import datetime
from typing import Any, TypeVar

from gog_operator.api import conditions
from gog_operator.api.meta import Reason
from gog_operator.api.objects import GoGRun, Object, Stage, ToolServer
from gog_operator.plan.actions import Blocked, Event

Thing = TypeVar("Thing", GoGRun, Stage, ToolServer)


def update(thing: Thing, **fields: Any) -> Thing:
    """The object with fields of its status set."""
    return thing.model_copy(update={"status": thing.status.model_copy(update=fields)})


def with_conditions(thing: Thing, *, now: datetime, **changes: tuple[bool, Reason, str]) -> Thing:
    """The object with conditions set: `Ready=(True, reason, message)`."""
    updated = thing.status.conditions
    for type_, (holds, reason, message) in changes.items():
        updated = conditions.put(
            updated,
            type_,  # type: ignore[arg-type]
            holds,
            reason,
            message,
            now=now,
            generation=thing.metadata.generation,
        )
    return update(thing, conditions=updated)


def with_ready(
    thing: Thing, ready: tuple[bool, Reason, str], blocked: Blocked | None, now: datetime
) -> tuple[Thing, tuple[Event, ...]]:
    """The object with its Ready condition set, and the event where it has just become blocked.

    Args:
        thing: The object.
        ready: Status, reason and message while nothing blocks it.
        blocked: Why it makes no progress; takes the place of `ready`.
        now: The time.
    """
    if blocked is None:
        return with_conditions(thing, Ready=ready, now=now), ()
    return with_conditions(thing, Ready=(False, blocked.reason, blocked.message), now=now), blocked_event(
        thing, blocked
    )


def blocked_event(thing: Object, blocked: Blocked | None) -> tuple[Event, ...]:
    """The event that an object is blocked; none where its Ready condition has that reason already."""
    ready = thing.condition("Ready")
    if blocked is None or (ready is not None and ready.reason == blocked.reason):
        return ()
    return (Event(str(blocked.reason), f"{thing.name}: {blocked.message}", warning=blocked.is_fault),)

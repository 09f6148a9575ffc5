"""Conditions: facts about an object, each with its own history, instead of a phase.

`lastTransitionTime` changes only with the status, so that it shows how long an object has been ready; reason and
message may change in between. plan/ decides which conditions hold.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Literal

from gog_operator.api.meta import Condition, ConditionType, Reason

Conditions = tuple[Condition, ...]


def find(conditions: Iterable[Condition], type_: str) -> Condition | None:
    """The condition of a type, None where there is none."""
    return next((each for each in conditions if each.type == type_), None)


def holds(conditions: Iterable[Condition], type_: str) -> bool:
    """Whether the condition of a type is True."""
    found = find(conditions, type_)
    return found is not None and found.status == "True"


def finished(conditions: Conditions) -> bool:
    """Whether an object is Complete or Failed, so that only its clean-up remains."""
    return holds(conditions, "Complete") or holds(conditions, "Failed")


def put(
    conditions: Conditions,
    type_: ConditionType,
    status: bool,
    reason: Reason,
    message: str = "",
    *,
    now: datetime,
    generation: int = 1,
) -> Conditions:
    """The conditions with one of them set, in its place; the others are unchanged.

    Args:
        conditions: The conditions.
        type_: Type of the one to set.
        status: Whether it holds.
        reason: Its reason.
        message: Its message.
        now: Its transition time, where its status changes.
        generation: The metadata.generation that it refers to.
    """
    word: Literal["True", "False"] = "True" if status else "False"
    old = find(conditions, type_)
    new = Condition(
        type=type_,
        status=word,
        reason=reason,
        message=message,
        observed_generation=generation,
        last_transition_time=old.last_transition_time if old and old.status == word else now,
    )
    if old is None:
        return (*conditions, new)
    return tuple(new if each.type == type_ else each for each in conditions)


def without(conditions: Conditions, *types: str) -> Conditions:
    return tuple(each for each in conditions if each.type not in types)

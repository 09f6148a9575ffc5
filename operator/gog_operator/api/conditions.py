"""Conditions: facts about an object, each with its own history, instead of a phase.

`lastTransitionTime` moves only when the status does, so that "how long has it been ready" has an answer; reason and
message may change in between. Nothing here decides anything: plan/ says which conditions hold.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Literal

from gog_operator.api.meta import Condition, Reason

Conditions = tuple[Condition, ...]
Type = Literal["Ready", "Suspended", "Complete", "Failed", "Progressing"]


def find(conditions: Iterable[Condition], type_: str) -> Condition | None:
    return next((each for each in conditions if each.type == type_), None)


def holds(conditions: Iterable[Condition], type_: str) -> bool:
    found = find(conditions, type_)
    return found is not None and found.status == "True"


def finished(conditions: Conditions) -> bool:
    """Complete or Failed: nothing but cleaning up happens to the object any more."""
    return holds(conditions, "Complete") or holds(conditions, "Failed")


def put(
    conditions: Conditions,
    type_: Type,
    status: bool,
    reason: Reason,
    message: str = "",
    *,
    now: datetime,
    generation: int = 1,
) -> Conditions:
    """The conditions with one of them set; unchanged ones keep their place and their time."""
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

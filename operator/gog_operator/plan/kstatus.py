"""What generic tools read of every object: Reconciling, Stalled and observedGeneration. Pure.

Problem: Flux, Argo CD, Helm and `kubectl wait` know none of our kinds. They follow the conventions of kstatus: an object is
current once its Ready condition is True and its status refers to the present spec, in progress while Reconciling is True,
and failed while Stalled is True. Decision: the plans decide Ready, Complete and Failed; the other two conditions follow
from those here, for every kind alike, and so does FieldsIgnored, which names what an operator ignores of a newer object.
All are present only while they are True.

A running stage is Ready and Reconciling: it works, and it is not done. A tool that waits for an object to be current
therefore waits for the end of the training, as it does for a Job.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from gog_operator.api import conditions
from gog_operator.api.conditions import Conditions
from gog_operator.api.meta import ConditionType, Reason
from gog_operator.api.objects import Object, ToolServer
from gog_operator.plan.actions import AnyStatus

DERIVED: tuple[ConditionType, ...] = ("Reconciling", "Stalled", "FieldsIgnored")
"""Conditions that follow from the others."""
State = tuple[Reason, str]
"""Reason and message of a condition that is True."""


def summarized(thing: Object, status: AnyStatus, now: datetime) -> AnyStatus:
    """The status with the derived conditions.

    Args:
        thing: The object; its metadata and its kind are read.
        status: Its new status, as its plan or a refusal gives it.
        now: Transition time of conditions that change.
    """
    stalled = _stalled(thing, status.conditions)
    states = {
        "Stalled": stalled,
        "Reconciling": None if stalled else _reconciling(thing, status.conditions),
        "FieldsIgnored": _ignored(thing),
    }
    found = status.conditions
    for type_ in DERIVED:
        state = states[type_]
        if state is None:
            found = conditions.without(found, type_)
        else:
            found = conditions.put(found, type_, True, *state, now=now, generation=thing.metadata.generation)
    changes: dict[str, Any] = {"conditions": found, "observed_generation": thing.metadata.generation}
    return status.model_copy(update=changes)


def _stalled(thing: Object, found: Conditions) -> State | None:
    """Why the object makes no progress until someone changes it; None if it does."""
    decisive = "Progressing" if isinstance(thing, ToolServer) else "Failed"
    condition = conditions.find(found, decisive)
    if condition is None:
        return None
    if isinstance(thing, ToolServer):
        return (condition.reason, condition.message) if condition.reason == Reason.SERVER_FAILED else None
    return (condition.reason, condition.message) if condition.status == "True" else None


def _ignored(thing: Object) -> State | None:
    """What of the spec this operator ignores; None if it knows all of it."""
    if not thing.ignored:
        return None
    what = f"this operator does not know {', '.join(thing.ignored)}"
    return Reason.UNKNOWN_FIELDS, f"{what}, and ignores it; install the operator of these custom resource definitions"


def _reconciling(thing: Object, found: Conditions) -> State | None:
    """What the object works on or waits for; None once it is as its spec wants it."""
    if conditions.holds(found, "Complete") or _is_held(thing, found):
        return None
    ready = conditions.find(found, "Ready")
    if ready is None:
        return Reason.STARTING, ""
    if (
        isinstance(thing, ToolServer)
        and ready.status == "True"
        and ready.reason not in (Reason.SERVING, Reason.REPLICAS)
    ):
        return None
    return ready.reason, ready.message


def _is_held(thing: Object, found: Conditions) -> bool:
    """Whether the object is suspended, and has stopped."""
    ready = conditions.find(found, "Ready")
    if isinstance(thing, ToolServer):
        return thing.spec.suspend and ready is not None and ready.reason == Reason.SUSPENDED
    return conditions.holds(found, "Suspended")

"""Decisions of the plan of a run, and its stages as they would end."""

from __future__ import annotations

from gog_operator.api.meta import Reason
from gog_operator.plan import run as rule
from gog_operator.plan.actions import CreateObject
from support.operator_builders import NOW, READY_DATA, STORE, holding


def decide(
    run, *, stages=(), servers=(), data=READY_DATA, store_state=rule.KNOWN, report=rule.REPORTED, is_persistent=False
):
    named = [{each.name: each for each in things} for things in (stages, servers)]
    facts = rule.Facts(*named, data, STORE, store_state, report, is_persistent)
    return rule.plan(run, facts, NOW)


def created(decision):
    return [action.thing for action in decision.actions if isinstance(action, CreateObject)]


def complete(stage, checkpoint=""):
    status = {"conditions": holding("Complete"), "checkpoint": checkpoint or f"{stage.store_key}/1"}
    return stage.model_copy(update={"status": stage.status.model_copy(update=status)})


def failed(stage, message="attempt 4 failed: exit 1"):
    conditions = holding("Failed", Reason.BACKOFF_LIMIT, message)
    return stage.model_copy(update={"status": stage.status.model_copy(update={"conditions": conditions})})


def walk(run, *, until=99):
    """Completes every stage as it is created; the stages, in order."""
    stages = []
    while len(stages) < until:
        new = [each for each in created(decide(run, stages=stages)) if each.kind != "ToolServer"]
        if not new:
            break
        (stage,) = new
        stages.append(complete(stage))
    return stages

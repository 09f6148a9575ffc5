"""What a suspension costs an attempt, which is nothing of its deadlines; and which values of an annotation cancel."""

from __future__ import annotations

import pytest
from support.operator_builders import NOW, READY_DATA, later, make_stage

from gog_operator.api.meta import CANCEL
from gog_operator.plan import stage as rule
from gog_operator.plan.actions import JobView, StoreView

CANCELLED = JobView("cancelled", -15)


def decide(stage, now):
    return rule.plan(stage, rule.Facts(CANCELLED, StoreView("known"), None, READY_DATA), now)


def after(stage, decision):
    return stage.model_copy(update={"status": decision.status})


@pytest.mark.parametrize(
    ("deadline", "ran"),
    [({"activeDeadlineSeconds": 60}, NOW), ({"queueDeadlineSeconds": 60}, None)],
    ids=["of the attempt", "of the queue"],
)
def test_the_time_for_which_a_stage_is_suspended_is_none_of_its_attempt_s(deadline, ran):
    stage = make_stage(
        suspend=True, backoffLimit=0, status={"attempt": 1, "attempt_time": NOW, "running_time": ran}, **deadline
    )
    held = after(stage, decide(stage, later(30)))
    resumed = held.model_copy(update={"spec": held.spec.model_copy(update={"suspend": False})})
    decision = decide(resumed, later(3600))
    assert (decision.status.attempt, decision.status.failures) == (2, 0)
    assert not after(stage, decision).holds("Failed") and decision.status.running_time is None


@pytest.mark.parametrize(("value", "cancels"), [
    ("yes", True), ("true", True), ("True", True), (" YES ", True), ("false", False), ("no", False), ("", False), ("1", False),
])  # fmt: skip
def test_only_true_and_yes_cancel(value, cancels):
    assert make_stage(annotations={CANCEL: value}).cancelled is cancels

"""What generic tools (Flux, Argo CD, `kubectl wait`) conclude from an object's conditions."""

from __future__ import annotations

import re
from pathlib import Path

import lupa
import pytest
from support.kstatus import status_of
from support.operator_builders import NOW, holding, later, make_run, make_stage, make_tool_server

from gog_operator.api import conditions
from gog_operator.api.meta import Reason
from gog_operator.api.objects import document
from gog_operator.cluster import invalid_object
from gog_operator.plan import kstatus

ROOT = Path(__file__).parents[2]
COMPLETE = (*holding("Complete", Reason.COMPLETE), *holding("Ready", Reason.COMPLETE))
FAILED = (
    *holding("Failed", Reason.BACKOFF_LIMIT, "attempt 4 failed"),
    *holding("Ready", Reason.BACKOFF_LIMIT, status=False),
)
SUSPENDED = (*holding("Suspended", Reason.SUSPENDED), *holding("Ready", Reason.SUSPENDED, status=False))
CRASHED = (
    *holding("Ready", Reason.SERVER_FAILED, "no such model", status=False),
    *holding("Progressing", Reason.SERVER_FAILED, "no such model", status=False),
)
SERVES = (*holding("Ready", Reason.READY), *holding("Progressing", Reason.READY, status=False))
RELOADS = (*holding("Ready", Reason.SERVING), *holding("Progressing", Reason.SERVING, status=False))

CASES = {
    "a new run": (make_run(), (), "InProgress"),
    "a stage that waits": (make_stage(), holding("Ready", Reason.WAITING, status=False), "InProgress"),
    "a stage that trains": (make_stage(), holding("Ready", Reason.RUNNING), "InProgress"),
    "a complete stage": (make_stage(), COMPLETE, "Current"),
    "a complete run": (make_run(), COMPLETE, "Current"),
    "a failed stage": (make_stage(), FAILED, "Failed"),
    "a failed run": (make_run(), FAILED, "Failed"),
    "a run that is about to fail": (make_run(), holding("Ready", Reason.CANCELLED, status=False), "InProgress"),
    "a suspended stage": (make_stage(suspend=True), SUSPENDED, "InProgress"),
    "a server that starts": (make_tool_server(), holding("Ready", Reason.STARTING, status=False), "InProgress"),
    "a server that serves": (make_tool_server(), SERVES, "Current"),
    "a server that loads another checkpoint": (make_tool_server("policy", base="tiny"), RELOADS, "InProgress"),
    "a server that failed": (make_tool_server(), CRASHED, "Failed"),
}


def summarized(thing, found, now=NOW):
    status = kstatus.summarized(thing, thing.status.model_copy(update={"conditions": found}), now)
    return thing.model_copy(update={"status": status})


def argo_health(body):
    """The health that the check in docs/cluster.md gives an object. Lists of Argo CD's Lua start at 1, as lupa's do."""
    (script,) = re.findall(r"```lua\n(.*?)```", (ROOT / "docs/cluster.md").read_text(), re.DOTALL)
    lua = lupa.LuaRuntime()
    body.setdefault("metadata", {}).setdefault("generation", 1)
    lua.globals().obj = lua.table_from(body, recursive=True)
    return lua.execute(script).status


@pytest.mark.parametrize(("thing", "found", "expected"), CASES.values(), ids=CASES.keys())
def test_generic_tools_see_the_state_of_every_object(thing, found, expected):
    assert status_of(document(summarized(thing, found))) == expected


@pytest.mark.parametrize(("thing", "found", "expected"), CASES.values(), ids=CASES.keys())
def test_the_documented_health_check_of_argo_cd_agrees(thing, found, expected):
    health = argo_health(document(summarized(thing, found)))
    words = {"Current": "Healthy", "Failed": "Degraded", "InProgress": "Progressing"}
    assert health == ("Suspended" if found == SUSPENDED else words[expected])


def test_argo_cd_waits_for_a_changed_spec():
    body = document(summarized(make_stage(), COMPLETE))
    body["metadata"]["generation"] = 2
    assert argo_health(body) == "Progressing"


def test_a_suspended_object_does_not_claim_to_work():
    assert summarized(make_stage(suspend=True), SUSPENDED).condition("Reconciling") is None


def test_a_failure_says_why_and_since_when():
    first = summarized(make_stage(), FAILED)
    again = summarized(first, first.status.conditions, later(60))
    stalled = again.condition("Stalled")
    assert (stalled.reason, stalled.message) == (Reason.BACKOFF_LIMIT, "attempt 4 failed")
    assert again.status == first.status, "a pass that changes nothing writes nothing"


def test_a_server_that_was_corrected_is_no_longer_stalled():
    failed = summarized(make_tool_server(), CRASHED)
    starting = conditions.put(failed.status.conditions, "Progressing", True, Reason.STARTING, now=later(5))
    again = summarized(failed, starting, later(5))
    assert again.condition("Stalled") is None and status_of(document(again)) == "InProgress"


def test_a_changed_spec_is_in_progress_until_the_operator_has_read_it():
    thing = summarized(make_stage(), COMPLETE)
    metadata = thing.metadata.model_copy(update={"generation": 2})
    changed = thing.model_copy(update={"metadata": metadata})
    assert status_of(document(changed)) == "InProgress"
    assert status_of(document(summarized(changed, changed.status.conditions))) == "Current"


def test_an_object_that_cannot_be_read_is_failed_and_not_in_progress():
    before = summarized(make_stage(), holding("Ready", Reason.RUNNING))
    body = document(before)
    patch = invalid_object.report_patch(body, "spec.sft: unknown field", NOW)
    assert status_of({**body, "status": {**body["status"], **patch["status"]}}) == "Failed"

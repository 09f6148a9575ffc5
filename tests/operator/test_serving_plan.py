"""How a complete run offers its policy to its agent."""

from __future__ import annotations

from typing import Any

import pytest
from support.operator_builders import NOW, READY_DATA, STORE, holding, later, make_run
from support.run_plans import complete, decide, walk

from gog.offers import Published
from gog_operator.api.conditions import find
from gog_operator.api.meta import Reason
from gog_operator.api.objects import GoGRun, ToolServer
from gog_operator.api.records import CanaryStatus
from gog_operator.build import agents
from gog_operator.plan import serving
from gog_operator.plan.actions import CreateObject, Decision, DeleteObject, PatchObject, PublicationView, Publish

PASSED = Published("assistant/2", "grpo/4 of world answers 71.0%", {"maxTurns": 6}, {"cropSide": 28})
DONE = PublicationView("done", PASSED)
CHECKPOINTS = ("grpo/4", "evaluate/1")


def offering(**serve: Any) -> GoGRun:
    """A complete run that serves its policy as the agent `assistant`."""
    run = make_run(serve={"agent": {"name": "assistant"}, **serve})
    return run.model_copy(update={"status": run.status.model_copy(update={"conditions": holding("Complete")})})


def agent(offered: str = "assistant/1", **status: Any) -> ToolServer:
    made = agents.agent(offering(), STORE, READY_DATA.spec, Published(offered, ""))
    status = {"version": offered, "conditions": holding("Ready"), **status}
    return made.model_copy(update={"status": made.status.model_copy(update=status)})


def plan(run: GoGRun, there: ToolServer | None, view: PublicationView = DONE) -> Decision[Any]:
    return serving.plan(run, serving.Facts(there, view, STORE), READY_DATA, CHECKPOINTS, (), NOW)


def after(run: GoGRun, decision: Decision[Any]) -> GoGRun:
    return run.model_copy(update={"status": decision.status})


def state(decision: Decision[Any], type_: str) -> tuple[str, str]:
    found = find(decision.status.conditions, type_)
    return (found.status, found.reason) if found is not None else ("", "")


def promoted() -> GoGRun:
    """A run whose version was published."""
    return after(offering(), plan(offering(), None))


def test_a_complete_run_publishes_its_policy_against_what_is_served_now():
    decision = plan(offering(gate={"minAccuracy": 0.5}), agent("assistant/7"), PublicationView("absent"))
    (publish,) = decision.actions
    assert isinstance(publish, Publish) and publish.store == STORE
    asked = publish.asked
    assert (asked.agent, asked.checkpoint, asked.policy, asked.evaluation) == (
        "assistant",
        "grpo/4",
        "grpo",
        "evaluate/1",
    )
    assert (asked.served, asked.gate.min_accuracy) == ("assistant/7", 0.5)
    assert state(decision, "Promoted") == ("False", "CheckingGate")


@pytest.mark.parametrize(
    ("view", "reason"),
    [
        (PublicationView("done", Published("", "answers 40.0%, less than 50.0%")), "GateFailed"),
        (PublicationView("failed", message="no bucket"), "StoreFailed"),
    ],
)
def test_a_policy_that_does_not_pass_is_not_offered_and_what_is_served_stays(view, reason):
    decision = plan(offering(), agent(), view)
    assert state(decision, "Promoted") == ("False", reason) and decision.actions == ()
    assert [event.reason for event in decision.events] == ["NotPromoted"]
    again = plan(after(offering(), decision), agent(), view)
    assert again.actions == () and again.events == () and again.requeue_after is None


def test_the_first_version_creates_an_agent_with_the_caps_of_the_evaluation():
    run = promoted()
    assert run.status.version == "assistant/2"
    decision = plan(run, None)
    (create,) = decision.actions
    assert isinstance(create, CreateObject) and isinstance(create.thing, ToolServer)
    made = create.thing
    assert (made.name, made.spec.role, made.spec.version) == ("assistant", "agent", "assistant/2")
    assert made.spec.agent.settings.max_turns == 6 and made.spec.agent.tools.crop_side == 28
    assert made.metadata.owner_references == (), "it outlives the run"
    assert {each.spec.role for each in agents.servers(made, "assistant/2")} == {
        "grounding", "imageSearch", "textSearch", "policy",
    }  # fmt: skip


def test_an_agent_that_is_there_is_asked_once():
    decision = plan(promoted(), agent("assistant/1"))
    assert decision.actions == (PatchObject("ToolServer", "assistant", spec={"version": "assistant/2"}),)
    asked = agent("assistant/1")
    asked = asked.model_copy(update={"spec": asked.spec.model_copy(update={"version": "assistant/2"})})
    assert plan(after(promoted(), decision), asked).actions == ()


@pytest.mark.parametrize(
    ("wanted", "status", "served"),
    [
        ("assistant/2", {"version": "assistant/2"}, ("True", "Ready")),
        ("assistant/2", {"canary": CanaryStatus(version="assistant/2")}, ("False", "Canary")),
        ("assistant/2", {"canary": CanaryStatus(rejected="assistant/2")}, ("False", "RolledBack")),
        ("assistant/3", {}, ("False", "Replaced")),
    ],
)
def test_the_run_reports_what_the_agent_does_with_its_version_and_never_asks_against_a_later_one(
    wanted, status, served
):
    there = agent("assistant/1", **status)
    there = there.model_copy(update={"spec": there.spec.model_copy(update={"version": wanted})})
    decision = plan(promoted(), there)
    assert state(decision, "Served") == served and decision.actions == ()
    waits = served[1] == "Canary"
    assert (decision.requeue_after is not None) == waits
    assert serving.is_due(after(promoted(), decision)) == waits


def test_a_run_whose_version_was_decided_leaves_the_agent_alone():
    run = after(promoted(), plan(promoted(), agent("assistant/2")))
    assert state(plan(run, agent("assistant/1")), "Served") == ("True", "Ready")
    assert plan(run, None).actions == (), "a user deleted the agent"


def test_a_name_that_another_server_has_is_reported():
    other = agent()
    other = other.model_copy(update={"spec": other.spec.model_copy(update={"role": "judge"})})
    assert state(plan(offering(), other), "Promoted") == ("False", Reason.NAME_TAKEN)


def test_the_servers_of_the_run_are_deleted_because_the_agent_has_its_own():
    run = make_run(serve={}, endpoints={"policy": {}})
    stages = [complete(each) for each in walk(run)]
    tools = agents.servers(agent(), "")[:1]
    done = decide(run, stages=stages, servers=tools, is_persistent=True)
    assert [type(each) for each in done.actions] == [DeleteObject] and done.requeue_after == 0
    assert {each.type for each in done.status.conditions if each.status == "True"} == {"Complete", "Ready"}


def test_a_run_without_a_name_for_its_agent_names_it_after_itself():
    assert agents.name_of(make_run(serve={})) == "world-agent"
    assert agents.name_of(make_run()) == ""
    assert later(0) == NOW

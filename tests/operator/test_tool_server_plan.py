"""The plan of one ToolServer, as a table of situations."""

from __future__ import annotations

from dataclasses import replace

import pytest
from support.operator_builders import NOW, READY_DATA, holding, later, make_tool_server

from gog_operator.api.meta import Reason
from gog_operator.cluster import kserve
from gog_operator.plan import tool_server as rule
from gog_operator.plan.actions import Blocked, DataView, PrepareData, ServerView, StartServer, StopServer

URL = "http://127.0.0.1:4711"
READY = ServerView("ready", URL, 4711, NOW, True)
DEAD = ServerView("exited", URL, 4711, NOW, True, -9, ("Segmentation fault",))
STUCK = Blocked(Reason.IMAGE_MISSING, "pod data: image gog-tools cannot be pulled: not found")
NEVER_READY = ServerView("exited", "", 0, NOW, False, 1, ("OSError: no weights",))


def decide(tool_server, now=NOW, *, server=None, data=READY_DATA, wakes=False):
    return rule.plan(tool_server, rule.Facts(server, data, wakes), now)


def after(tool_server, decision):
    return tool_server.model_copy(update={"status": decision.status})


def reason(decision, type_="Ready"):
    return next(each.reason for each in decision.status.conditions if each.type == type_)


def test_an_existing_server_is_ready_without_being_started():
    decision = decide(make_tool_server(url="http://judge.internal/v1"))
    assert (decision.status.url, decision.actions, reason(decision)) == (
        "http://judge.internal/v1",
        (),
        Reason.EXTERNAL,
    )


def test_a_server_starts_when_its_dataset_is_ready():
    tool_server = make_tool_server(data={"world": {}})
    assert decide(tool_server, data=DataView("absent")).actions == (PrepareData(),)
    assert decide(tool_server).actions == (StartServer(0),)


@pytest.mark.parametrize(
    ("view", "why", "sentence"),
    [
        (
            DataView("failed", message="seed: negative"),
            Reason.DATA_FAILED,
            "the dataset cannot be made: seed: negative",
        ),
        (DataView("preparing", blocked=STUCK), STUCK.reason, STUCK.message),
    ],
)
def test_a_tool_server_without_its_dataset_reports_the_cause_once(view, why, sentence):
    tool_server = make_tool_server(data={"world": {}})
    first = decide(tool_server, data=view)
    assert (reason(first), first.status.conditions[0].message, first.actions) == (why, sentence, ())
    assert [event.message for event in first.events] == [f"world-grounding: {sentence}"]
    assert decide(after(tool_server, first), later(5), data=view).events == ()


def test_a_dataset_that_cannot_be_made_for_a_while_is_made_later():
    tool_server, down = make_tool_server(data={"world": {}}), DataView("unavailable", message="s3://b: does not answer")
    waits = decide(tool_server, data=down)
    assert (reason(waits), waits.actions, waits.requeue_after) == (Reason.DATA_FAILED, (), 2.0)
    assert decide(after(tool_server, waits), later(3), data=down).actions == (PrepareData(),)


def test_a_server_that_becomes_ready_is_announced_once():
    tool_server = make_tool_server()
    ready = decide(tool_server, server=READY)
    assert (ready.status.url, ready.status.port) == (URL, 4711) and after(tool_server, ready).holds("Ready")
    assert [event.message for event in ready.events] == [f"grounding server is ready at {URL}"]
    again = decide(after(tool_server, ready), later(60), server=READY)
    assert again.status == ready.status and again.events == ()


def test_a_server_stays_ready_while_replicas_are_missing_and_says_how_many_and_why():
    tool_server = after(make_tool_server(replicas=3), decide(make_tool_server(replicas=3), server=READY))
    message = "2 of 3 replicas serve: pod c: 0/12 nodes: insufficient cpu"
    partly = replace(READY, blocked=Blocked(Reason.REPLICAS, message), pods=("a", "b", "c"))
    decision = decide(tool_server, later(5), server=partly)
    lacking = after(tool_server, decision)
    assert lacking.holds("Ready") and lacking.holds("Progressing") and lacking.status.pods == ("a", "b", "c")
    assert (lacking.condition("Ready").reason, lacking.condition("Ready").message) == (Reason.REPLICAS, message)
    assert [event.message for event in decision.events] == [f"world-grounding: {message}"]
    assert decide(lacking, later(9), server=partly).events == ()
    whole = after(lacking, decide(lacking, later(12), server=READY))
    assert whole.condition("Ready").reason == Reason.READY and not whole.holds("Progressing")


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        ({"replicas": 3, "updatedReplicas": 3, "availableReplicas": 2}, 2),
        ({"replicas": 3, "updatedReplicas": 3}, 0),
        ({"replicas": 4, "updatedReplicas": 1, "availableReplicas": 3}, 0),
    ],
    ids=["one is missing", "none is available", "pods of an earlier spec are left"],
)
def test_replicas_count_once_no_pod_of_an_earlier_spec_is_left(status, expected):
    deployment = {"metadata": {"generation": 2}, "status": {"observedGeneration": 2, **status}}
    assert kserve.available(deployment) == expected
    assert kserve.available({**deployment, "metadata": {"generation": 3}}) == 0


def test_a_server_that_exits_is_restarted_on_its_port_at_once():
    tool_server = after(make_tool_server(), decide(make_tool_server(), server=READY))
    noted = decide(tool_server, server=DEAD)
    assert (noted.status.restarts, noted.requeue_after) == (1, 0) and reason(noted) == Reason.RESTARTING
    assert noted.events[0].message == (
        "grounding server exited (killed by SIGKILL, possibly out of memory); restarting on port 4711"
    )
    again = decide(after(tool_server, noted), server=DEAD)
    assert again.actions == (StartServer(4711),) and again.status.restarts == 1


def test_after_a_crash_of_the_control_plane_the_server_restarts_on_its_old_port():
    tool_server = after(make_tool_server(), decide(make_tool_server(), server=READY))
    restarted = decide(tool_server, server=None)
    assert restarted.actions == (StartServer(4711),)
    assert not after(tool_server, restarted).holds("Ready"), "otherwise a stage would call a server that does not exist"


def test_a_tool_server_fails_with_the_last_log_line_after_three_starts_that_never_became_ready():
    tool_server, now, starts = make_tool_server(), 0.0, 0
    while not rule.failed(tool_server):
        decision = decide(tool_server, later(now), server=NEVER_READY if starts else None)
        starts += any(isinstance(action, StartServer) for action in decision.actions)
        tool_server, now = after(tool_server, decision), now + 1
    assert starts == 3
    assert tool_server.condition("Progressing").message == (
        "grounding server exited before it was ready: exit 1: OSError: no weights"
    )
    assert decide(tool_server, later(now), server=NEVER_READY).actions == ()


def test_a_tool_server_that_failed_starts_anew_once_its_spec_has_changed():
    progressing = holding("Progressing", Reason.SERVER_FAILED, "no such image", status=False)
    broken = make_tool_server(status={"conditions": progressing, "failures": 3})
    assert decide(broken, server=None).actions == ()
    edited = broken.model_copy(update={"metadata": broken.metadata.model_copy(update={"generation": 2})})
    started = decide(edited, server=None)
    assert started.actions == (StartServer(0),) and started.status.failures == 0
    assert not rule.failed(after(edited, started))


def test_the_wait_for_a_node_uses_up_nothing_of_the_startup_time():
    unscheduled = ServerView(
        "starting", blocked=Blocked(Reason.UNSCHEDULABLE, "0/12 nodes: insufficient nvidia.com/gpu")
    )
    waiting = decide(make_tool_server(startupSeconds=60), later(3600), server=unscheduled)
    assert waiting.actions == () and reason(waiting) == Reason.UNSCHEDULABLE and waiting.requeue_after == 15
    assert decide(make_tool_server(), server=unscheduled, wakes=True).requeue_after is None
    running = ServerView("starting", "", 0, later(3600))
    assert decide(make_tool_server(startupSeconds=60), later(3659), server=running).actions == ()
    assert decide(make_tool_server(startupSeconds=60), later(3660), server=running).actions == (StopServer(),)


def test_a_restart_whose_status_was_not_written_is_not_taken_for_one_that_is_due():
    due = make_tool_server(status={"retry_time": later(2), "restarts": 1, "port": 4711})
    decision = decide(due, later(3), server=ServerView("starting", "", 4711, later(2)))
    assert decision.status.retry_time is None and decision.status.restarts == 1
    again = decide(after(due, decision), later(9), server=NEVER_READY)
    assert (again.status.failures, again.status.restarts, again.actions) == (1, 2, ())


def test_a_server_that_refuses_its_input_is_not_restarted():
    refused = ServerView("exited", "", 0, NOW, False, 2, ("gog serve grounding: --data: no such folder",))
    assert rule.failed(after(make_tool_server(), decide(make_tool_server(), server=refused)))


def test_a_server_that_does_not_become_ready_in_time_is_stopped_and_fails():
    starting = ServerView("starting", "", 0, NOW)
    tool_server = make_tool_server(startupSeconds=180)
    assert decide(tool_server, later(179), server=starting).actions == ()
    decision = decide(tool_server, later(180), server=starting)
    assert decision.actions == (StopServer(),) and reason(decision) == Reason.SERVER_FAILED
    assert decision.events[0].message == "grounding server did not become ready within 180 s; its log is empty"

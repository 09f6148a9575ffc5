"""The check of a run's tools before its first stage: in the plan, on one machine, and on a cluster."""

from __future__ import annotations

import dataclasses

import pytest
from support import operator_golden
from support.operator_builders import READY_DATA, FakeCluster, later, make_run

from gog_operator import reconcile
from gog_operator.api.meta import Reason
from gog_operator.api.objects import CurateStage, GoGRun, ToolServer
from gog_operator.build import store_jobs, tool_check
from gog_operator.plan.actions import Blocked, ToolCheckView

DOWN = ToolCheckView("unavailable", "endpoints.judge: it fails: HTTP 503")
WRONG = ToolCheckView("failed", "endpoints.judge: it refuses the key (replace the key)")


class Run:
    """A run on a cluster in memory, whose servers are ready."""

    def __init__(self, **spec):
        self.cluster = FakeCluster(is_persistent=True)
        self.cluster.made = READY_DATA
        self.cluster.create(make_run(**{"checkTools": True, "store": {"uri": "s3://b/p"}, **spec}))
        self.seconds = 0.0

    def work(self, seconds=0.0, passes=6):
        """Makes passes over the run and its servers; returns when the last one asks for another."""
        self.seconds += seconds
        after = None
        for _ in range(passes):
            after = reconcile.reconcile(self.cluster, "GoGRun", "world", later(self.seconds))
            for each in self.cluster.list(ToolServer):
                reconcile.reconcile(self.cluster, "ToolServer", each.name, later(self.seconds))
            self.cluster.answer()
        return after

    @property
    def now(self):
        return self.cluster.get(GoGRun, "world")

    def condition(self, type_="ToolsChecked"):
        return self.now.condition(type_)

    def answer(self, view):
        """Ends the newest check."""
        self.cluster.tool_checks[self.now.status.tool_check.number] = view

    @property
    def stages(self):
        return self.cluster.list(CurateStage)

    def reasons(self):
        return [event.reason for name, event in self.cluster.events if name == "world"]


@pytest.fixture
def checking():
    """A run whose tools are being checked."""
    run = Run()
    run.work()
    return run


def test_the_tools_are_called_when_their_servers_are_ready_and_before_the_first_stage(checking):
    assert checking.cluster.calls.count("tools 1") == 1 and not checking.stages
    assert set(checking.cluster.tool_urls) == {"grounding", "imageSearch", "textSearch", "judge"}
    assert all(checking.cluster.tool_urls.values())
    assert (checking.condition().status, checking.condition().reason) == ("False", Reason.CHECKING_TOOLS)
    assert checking.condition("Ready").message == "calling every tool once"


def test_the_number_of_a_check_is_written_before_its_job_is_created(checking):
    calls = checking.cluster.calls
    assert calls[calls.index("tools 1") - 1] == "status world"


def test_the_first_stage_follows_when_every_tool_answers(checking):
    checking.answer(ToolCheckView("passed", "4 servers answer"))
    checking.work()
    assert (checking.condition().status, checking.condition().reason) == ("True", Reason.TOOLS_ANSWER)
    assert checking.condition().message == "4 servers answer" and len(checking.stages) == 1
    assert checking.reasons().count("ToolsChecked") == 1
    checking.work()
    assert checking.cluster.calls.count("tools 1") == 1 and "tools 2" not in checking.cluster.calls


def test_a_user_s_fault_ends_the_run_without_a_stage_and_is_not_tried_again(checking):
    checking.answer(WRONG)
    checking.work()
    assert checking.now.finished and not checking.stages
    for type_ in ("ToolsChecked", "Failed", "Ready"):
        assert (checking.condition(type_).reason, checking.condition(type_).message) == (
            Reason.TOOLS_FAILED,
            WRONG.message,
        )
    assert not checking.cluster.list(ToolServer), "its servers are stopped"
    checking.work(3600)
    assert "tools 2" not in checking.cluster.calls


def test_a_fault_that_may_pass_is_shown_and_tried_again_after_a_growing_delay(checking):
    waits = []
    for number in (1, 2, 3):
        checking.answer(DOWN)
        waits.append(checking.work())
        assert (checking.condition().reason, checking.condition().message) == (Reason.TOOLS_DOWN, DOWN.message)
        assert checking.condition("Ready").reason == Reason.TOOLS_DOWN and not checking.stages
        checking.work(waits[-1])
        assert checking.cluster.calls.count(f"tools {number + 1}") == 1
    assert waits == [2, 4, 8] and checking.reasons().count("ToolsDown") == 3
    checking.answer(ToolCheckView("passed", "4 servers answer"))
    checking.work()
    assert checking.stages and checking.now.holds("ToolsChecked")


def test_a_tool_that_stays_down_ends_the_run_after_the_patience_of_all_attempts():
    run = Run(backoffLimit=1, tools={"outage": {"patienceSeconds": 30}})
    run.work()
    while not run.now.finished and run.seconds < 1_000:
        run.answer(DOWN)
        wait = run.work()
        run.work(wait or 0)
    assert run.condition("Failed").reason == Reason.TOOLS_DOWN and not run.stages
    assert 60 <= run.seconds < 130 and "(for 60 s)" in run.condition("Failed").message


def test_the_time_that_checks_take_is_patience_with_a_tool_too():
    run = Run(backoffLimit=0, tools={"outage": {"patienceSeconds": 600}})
    run.work()
    slow, checks = dataclasses.replace(DOWN, seconds=290.0), 0
    while not run.now.finished and checks < 10:
        run.answer(slow)
        checks += 1
        run.work(run.work() or 0)
    assert checks == 3 and run.condition("Failed").reason == Reason.TOOLS_DOWN
    assert 600 <= run.now.status.tool_check.waited_seconds + slow.seconds < 900


def test_a_check_that_ended_is_counted_once_however_often_the_run_is_looked_at(checking):
    checking.answer(dataclasses.replace(DOWN, seconds=7.0))
    for _ in range(3):
        checking.work()
    assert checking.now.status.tool_check.waited_seconds == 7.0


def test_the_time_in_which_no_control_loop_ran_is_not_patience_with_a_tool(checking):
    checking.answer(DOWN)
    checking.work()
    checking.work(100_000)
    checking.answer(DOWN)
    assert checking.work(100_000) is not None
    assert not checking.now.finished and checking.condition().reason == Reason.TOOLS_DOWN


def test_a_run_that_is_suspended_to_repair_a_tool_has_all_its_patience_when_it_resumes(checking):
    checking.answer(DOWN)
    checking.work()
    checking.cluster.patch("GoGRun", "world", spec={"suspend": True}, annotations={})
    checking.work(100_000)
    assert not checking.now.finished and checking.now.holds("Suspended")
    checking.cluster.patch("GoGRun", "world", spec={"suspend": False}, annotations={})
    for _ in range(3):
        checking.work()
    assert not checking.now.finished
    checking.answer(DOWN)
    wait = checking.work()
    assert not checking.now.finished and wait is not None


def test_a_check_that_does_not_start_says_why(checking):
    checking.answer(ToolCheckView("running", blocked=Blocked(Reason.IMAGE_MISSING, "pod x: image y cannot be pulled")))
    checking.work()
    assert checking.condition("Ready").reason == Reason.IMAGE_MISSING


def test_a_lost_check_is_started_again(checking):
    del checking.cluster.tool_checks[1]
    checking.work()
    assert checking.cluster.calls.count("tools 1") == 2


def test_a_cancelled_or_suspended_run_starts_no_check():
    run = Run(suspend=True)
    run.work()
    assert run.condition() is None and not run.cluster.tool_checks


@pytest.mark.parametrize(
    "spec",
    [
        {"checkTools": False},
        {"tools": {"cache": {"mode": "replay-strict", "path": "answers.sqlite"}}},
        {"stages": {"skip": ["curate", "stratify", "grpo", "evaluate"]}},
    ],
)
def test_a_run_that_calls_no_tool_or_wants_no_check_has_none(spec):
    run = Run(**spec)
    run.cluster.checked.add("world")
    run.work()
    assert run.condition() is None and not run.cluster.tool_checks


# ---- what is built


def job_of(run):
    body = tool_check.config(run, {"judge": "http://j"}, on_cluster=True).model_dump(mode="json", by_alias=True)
    return store_jobs.job("world-tools-1", run, "tools", body, None, operator_golden.PLATFORM)


def test_the_pod_of_a_check_has_no_credentials_of_the_store_and_its_own_component():
    configmap, job = job_of(make_run(store={"uri": "s3://b/p", "secretName": "s3"}))
    template = job["spec"]["template"]
    (container,) = template["spec"]["containers"]
    assert container["command"] == ["gog", "tools", "check", "--config", "/etc/gog/config.yaml"]
    assert "envFrom" not in container and "s3" not in str(template)
    assert template["metadata"]["labels"]["app.kubernetes.io/component"] == "tool-check"
    assert "nvidia.com/gpu" not in str(job) and "http://j" in configmap["data"]["config.yaml"]


def test_a_check_gets_the_keys_of_tools_fallbacks_and_the_compared_model():
    run = make_run(
        endpoints={"judge": {"url": "https://j", "secretName": "judge-key"}},
        tools={"textSearch": {"fallback": {"url": "https://f", "secretName": "other"}}},
        stages={
            "evaluate": {
                "policies": ["direct", "endpoint"],
                "endpoint": {"url": "https://e", "model": "m", "secretName": "vendor"},
            }
        },
    )
    assert tool_check.secrets(run) == {"judge": "judge-key", "textSearchFallback": "other", "endpoint": "vendor"}
    found = tool_check.config(run, {"judge": "https://j"}, on_cluster=True)
    assert found.endpoint is not None and found.endpoint.model == "m" and found.secrets["endpoint"] == "vendor"

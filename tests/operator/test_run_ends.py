"""The plan of a run that ends: its report, its policy, and what a failure leaves."""

from __future__ import annotations

import pytest
from support.operator_builders import holding, make_run, make_tool_server
from support.run_plans import complete, created, decide, failed, walk

from gog_operator.api.meta import Reason
from gog_operator.plan.actions import (
    Blocked,
    DeleteObject,
    Event,
    ReportView,
    WriteReport,
)


def ended(run):
    return [complete(each) for each in walk(run)]


def served(decision):
    """Status and reason of the condition Served."""
    found = next((each for each in decision.status.conditions if each.type == "Served"), None)
    return (found.status, found.reason) if found else None


def test_on_a_persistent_cluster_a_run_is_complete_once_its_report_is_written_and_then_serves_its_policy():
    run = make_run(endpoints={"policy": {}})
    stages = ended(run)
    grpo = next(each for each in stages if each.store_key == "grpo")

    def after(run, servers=(), report="done"):
        return decide(run, stages=stages, servers=servers, report=ReportView(report), is_persistent=True)

    (write,) = after(run, report="absent").actions
    assert isinstance(write, WriteReport) and write.run.holds("Complete")
    assert not after(run, report="writing").actions
    done = after(run)
    (policy,) = created(done)
    assert policy.spec.version == grpo.status.checkpoint and policy.spec.base == "tiny" and policy.spec.data is None
    assert any(each.type == "Complete" for each in done.status.conditions) and served(done) == (
        "False",
        "LoadingPolicy",
    )
    assert [event.reason for event in done.events] == ["Complete"]
    run = run.model_copy(update={"status": done.status})
    ready = {"version": grpo.status.checkpoint, "conditions": holding("Ready")}
    serving = after(run, [policy.model_copy(update={"status": policy.status.model_copy(update=ready)})])
    assert served(serving) == ("True", "Ready") and [event.reason for event in serving.events] == ["Served"]
    assert after(run.model_copy(update={"status": serving.status}), [policy]).events[0].reason == "Serving"


@pytest.mark.parametrize("deleted", [("grpo",), ("curate", "sft", "stratify", "grpo", "evaluate")])
def test_stages_that_are_deleted_after_the_run_leave_the_policy_as_it_is_served(deleted):
    run = make_run(endpoints={"policy": {}})
    stages = ended(run)
    version = next(each for each in stages if each.store_key == "grpo").status.checkpoint
    run = run.model_copy(update={"status": decide(run, stages=stages, is_persistent=True).status})
    left = [each for each in stages if each.store_key not in deleted]
    ready = {"version": version, "conditions": holding("Ready")}
    policy = make_tool_server("policy", version=version, status=ready)
    decision = decide(run, stages=left, servers=[policy], is_persistent=True)
    assert not decision.actions and served(decision) == ("True", "Ready")
    assert not created(decide(run, stages=left, is_persistent=True)), "SFT's policy does not take the place of GRPO's"


def test_a_policy_server_that_fails_leaves_a_trained_run_complete():
    run = make_run(endpoints={"policy": {}})
    stages = ended(run)
    version = next(each for each in stages if each.store_key == "grpo").status.checkpoint
    broken = holding("Progressing", Reason.SERVER_FAILED, "policy server did not become ready", status=False)
    policy = make_tool_server("policy", version=version, status={"conditions": broken})
    done = decide(run, stages=stages, servers=[policy], is_persistent=True)
    assert [each.type for each in done.status.conditions if each.status == "True"] == ["Complete", "Ready"]
    assert served(done) == ("False", "ServerFailed")
    assert Event("NotServed", "policy server did not become ready", warning=True) in done.events


def test_a_policy_at_an_address_of_the_user_is_never_reported_as_served():
    run = make_run(endpoints={"policy": {"url": "http://vllm:8000"}})
    stages = ended(run)
    version = next(each for each in stages if each.store_key == "grpo").status.checkpoint
    policy = make_tool_server(
        "policy", url="http://vllm:8000", version=version, status={"conditions": holding("Ready", Reason.EXTERNAL)}
    )
    for servers in ([], [policy]):
        done = decide(run, stages=stages, servers=servers, is_persistent=True)
        assert served(done) == ("False", "External")
    message = next(each.message for each in done.status.conditions if each.type == "Served")
    assert message.startswith(f"{version} is not loaded") and "load_lora_adapter" in message
    assert [each.reason for each in done.events] == ["Complete", "NotServed"] and not done.events[1].warning


def failing(report, **more):
    run = make_run(**more)
    curate, sft = walk(run, until=2)
    servers = [make_tool_server("grounding")]
    return decide(run, stages=[curate, failed(sft)], servers=servers, report=report, is_persistent=True)


def types(decision):
    return {each.type for each in decision.status.conditions if each.status == "True"}


def test_a_run_that_fails_on_a_cluster_is_failed_once_its_report_is_written():
    writing = failing(ReportView("absent"))
    (write,) = writing.actions
    assert isinstance(write, WriteReport) and write.run.holds("Failed") and write.run.status.completion_time
    assert "world-sft" in {each.name for each in write.children if each.holds("Failed")}
    for waiting in (writing, failing(ReportView("writing"))):
        assert types(waiting) == set() and waiting.status.completion_time is None and not waiting.events
    assert not failing(ReportView("writing")).actions, "the servers stay, because a failed one is why the run ends"
    ended = failing(ReportView("done"))
    assert types(ended) == {"Failed"} and [each.reason for each in ended.events] == ["StageFailed"]
    assert [each.name for each in ended.actions if isinstance(each, DeleteObject)] == ["world-grounding"]


def test_the_report_of_a_failed_run_that_is_blocked_or_fails_is_reported():
    blocked = failing(ReportView("writing", blocked=Blocked(Reason.SECRET_MISSING, "no Secret gog-s3")))
    assert [each.reason for each in blocked.events] == ["SecretMissing"]
    broken = failing(ReportView("failed", "disk"))
    assert types(broken) == {"Failed"}
    assert [each.reason for each in broken.events] == ["ReportFailed", "StageFailed"]


def test_the_report_of_a_failed_run_is_no_longer_running_when_its_jobs_are_removed():
    run = make_run(jobTtlSeconds=0)
    for state in ("absent", "writing", "done"):
        curate, sft = walk(run, until=2)
        ended = decide(run, stages=[curate, failed(sft)], report=ReportView(state), is_persistent=True)
        run = run.model_copy(update={"status": ended.status})
        assert (ended.status.completion_time is not None) == (state == "done")
        assert ended.status.jobs_removed_time is None


def test_the_failure_of_one_arm_does_not_end_the_others():
    arms = [{"name": "a", "set": {"stages.grpo.gaze": "off"}}, {"name": "b", "set": {"stages.grpo.klCoef": 0.01}}]
    run = make_run(arms=arms)
    stages = walk(run)
    keys = [each.store_key for each in stages]
    assert keys[5:] == ["grpo-a", "evaluate-a", "grpo-b", "evaluate-b"]
    broken = [failed(each) if each.store_key == "grpo-a" else each for each in stages[:6]]
    (next_,) = [each for each in created(decide(run, stages=broken)) if each.kind != "ToolServer"]
    assert next_.store_key == "grpo-b", "evaluate-a has nothing to evaluate"
    ended = decide(run, stages=[*broken, *stages[7:]])
    message = next(each for each in ended.status.conditions if each.type == "Failed").message
    assert message == "grpo-a: attempt 4 failed: exit 1"


def test_arms_go_on_when_a_stage_fails_that_they_do_not_start_from():
    run = make_run(arms=[{"name": "a", "set": {"stages.grpo.gaze": "off"}}])
    stages = walk(run)
    broken = [failed(each) if each.store_key == "grpo" else each for each in stages[:4]]
    (next_,) = [each for each in created(decide(run, stages=broken)) if each.kind != "ToolServer"]
    assert next_.store_key == "grpo-a"


def test_a_report_that_cannot_be_written_does_not_fail_the_run():
    run = make_run()
    done = decide(run, stages=ended(run), report=ReportView("failed", "disk"), is_persistent=True)
    assert any(each.type == "Complete" for each in done.status.conditions)
    assert Event("ReportFailed", "the report could not be written: disk", warning=True) in done.events


def test_after_a_complete_run_only_the_policy_is_still_served():
    run = make_run(endpoints={"policy": {}})
    run = run.model_copy(update={"status": run.status.model_copy(update={"conditions": holding("Complete")})})
    servers = [make_tool_server("grounding"), make_tool_server("policy")]
    decision = decide(run, stages=ended(make_run()), servers=servers, is_persistent=True)
    assert [each.name for each in decision.actions if isinstance(each, DeleteObject)] == ["world-grounding"]

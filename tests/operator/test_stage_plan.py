"""The plan of one stage, as a table of situations."""

from __future__ import annotations

import pytest
from support.operator_builders import NOW, READY_DATA, holding, later, make_stage, make_tool_server

from gog_operator.api.meta import CANCEL, Reason
from gog_operator.api.objects import Progress, WaitingFor
from gog_operator.api.records import Preparation
from gog_operator.plan import stage as rule
from gog_operator.plan.actions import (
    Blocked,
    CancelJob,
    Checkpoint,
    CheckStore,
    CreateJob,
    DataView,
    JobView,
    PrepareData,
    StoreView,
)

RUNNING = JobView("running")
GOOD = JobView("succeeded", 0)
BAD = JobView("failed", 1, ("Traceback …", "ValueError: no such column", ""))


def decide(stage, now=NOW, *, job=None, checkpoint=None, progress=None, data=READY_DATA, servers=None):
    store = StoreView("known", {stage.store_key: checkpoint} if checkpoint else {})
    return rule.plan(stage, rule.Facts(job, store, progress, data, servers or {}), now)


def after(stage, decision):
    return stage.model_copy(update={"status": decision.status})


def condition(decision, type_):
    return next((each for each in decision.status.conditions if each.type == type_), None)


def test_an_attempt_is_numbered_in_one_pass_and_its_job_created_in_the_next():
    first = decide(make_stage())
    assert first.status.attempt == 1 and first.actions == () and first.requeue_after == 0
    second = decide(make_stage(status={"attempt": 1}))
    assert second.actions == (CreateJob({}),) and second.status.attempt == 1


def test_the_dataset_is_made_before_the_first_attempt():
    decision = decide(make_stage(), data=DataView("absent"))
    assert decision.actions == (PrepareData(),) and decision.status.attempt == 0
    assert decide(make_stage(), data=DataView("preparing")).actions == ()


def test_a_dataset_that_cannot_be_made_fails_the_stage_with_its_cause():
    failed = condition(decide(make_stage(), data=DataView("failed", message="exit 2: seed")), "Failed")
    assert (failed.reason, failed.message) == (Reason.DATA_FAILED, "the dataset cannot be made: exit 2: seed")


def test_a_dataset_that_cannot_be_made_for_a_while_is_made_later():
    down = DataView("unavailable", message="s3://b: does not answer")
    waits = decide(make_stage(), data=down)
    assert condition(waits, "Ready").reason == Reason.DATA_FAILED and waits.requeue_after == 2.0
    assert condition(waits, "Failed") is None and waits.actions == ()
    stage = after(make_stage(), waits)
    assert decide(stage, later(3), data=down).actions == (PrepareData(),)
    assert decide(stage, later(3)).status.preparation == Preparation()


def test_a_stage_waits_for_the_tool_servers_that_its_spec_names_and_receives_their_urls():
    ready = make_tool_server("judge", status={"conditions": holding("Ready"), "url": "http://127.0.0.1:1"})
    stage = make_stage("CurateStage", endpoints={"judge": "world-judge", "textSearch": "http://mine"})
    waiting = decide(stage)
    assert waiting.status.attempt == 0 and condition(waiting, "Ready").message == "waiting for world-judge"
    assert decide(stage, servers={"world-judge": ready}).status.attempt == 1
    numbered = stage.model_copy(update={"status": stage.status.model_copy(update={"attempt": 1})})
    (create,) = decide(numbered, servers={"world-judge": ready}).actions
    assert create.endpoints == {"judge": "http://127.0.0.1:1", "textSearch": "http://mine"}


@pytest.mark.parametrize(
    ("own", "requested"),
    [({}, "qwen3-32b"), ({"judgeModel": "mine"}, "mine")],
    ids=["of the tool server", "of the stage"],
)
def test_a_stage_requests_the_judge_model_of_its_tool_server_unless_its_spec_names_one(own, requested):
    url = "http://judges"
    judge = make_tool_server("judge", url=url, model="qwen3-32b", status={"conditions": holding("Ready"), "url": url})
    stage = make_stage("CurateStage", endpoints={"judge": "world-judge"}, status={"attempt": 1}, **own)
    (create,) = decide(stage, servers={"world-judge": judge}).actions
    assert create == CreateJob({"judge": url}, requested)


def test_a_stage_without_tools_waits_for_none():
    assert decide(make_stage("SFTStage", endpoints={"judge": "world-judge"})).status.attempt == 1


@pytest.mark.parametrize(
    ("job", "checkpoint", "complete"),
    [
        (GOOD, Checkpoint("sft", 9), True),
        (GOOD, Checkpoint("sft", 9, True), True),
        (GOOD, Checkpoint("sft", 5, False), False),
        (GOOD, None, False),
        (BAD, Checkpoint("sft", 9), False),
        (BAD, Checkpoint("sft", 9, True), True),
        (JobView("lost"), Checkpoint("sft", 9), False),
        (JobView("lost"), Checkpoint("sft", 9, True), True),
        (JobView("cancelled", 0), Checkpoint("sft", 9, True), True),
    ],
)
def test_success_is_what_the_store_says(job, checkpoint, complete):
    decision = decide(make_stage(status={"attempt": 1}), job=job, checkpoint=checkpoint)
    assert (condition(decision, "Complete") is not None) == complete
    assert decision.status.checkpoint == (checkpoint.ref if checkpoint else "")


def test_exit_0_without_a_checkpoint_is_a_failure():
    decision = decide(make_stage(status={"attempt": 1}), job=GOOD)
    assert condition(decision, "Ready").message == "attempt 1 failed: exit 0, but the store holds no checkpoint 'sft'"


def test_a_failed_attempt_is_counted_once_and_retried_after_a_delay():
    stage = make_stage(status={"attempt": 1})
    counted = decide(stage, job=BAD)
    assert counted.status.failures == 1 and counted.status.retry_time == later(2)
    assert condition(counted, "Ready").message == "attempt 1 failed: exit 1: ValueError: no such column"
    waiting = stage.model_copy(update={"status": counted.status})
    assert decide(waiting, later(1), job=BAD).status == counted.status
    assert decide(waiting, later(1), job=BAD).requeue_after == 1
    again = decide(waiting, later(2), job=BAD)
    assert (again.status.attempt, again.status.failures, again.status.retry_time) == (2, 1, None)


def test_delays_double_up_to_five_minutes():
    def delay(failures):
        decided = decide(make_stage(backoffLimit=99, status={"attempt": 1, "failures": failures}), job=BAD)
        return decided.requeue_after

    assert [delay(n) for n in (0, 1, 2, 7, 50)] == [2, 4, 8, 256, 300]


def test_a_stage_fails_when_backoff_limit_is_exceeded():
    decision = decide(make_stage(backoffLimit=2, status={"attempt": 3, "failures": 2}), job=BAD)
    failed = condition(decision, "Failed")
    assert (failed.reason, decision.status.failures) == (Reason.BACKOFF_LIMIT, 3)
    assert failed.message == "attempt 3 failed: exit 1: ValueError: no such column"
    assert decision.status.completion_time == NOW


def test_invalid_input_is_not_retried():
    job = JobView("failed", 2, ("error: learning_rate: Input should be greater than 0",))
    failed = condition(decide(make_stage(status={"attempt": 1}), job=job), "Failed")
    assert failed.reason == Reason.INVALID_INPUT
    assert failed.message == "invalid input, not retried: error: learning_rate: Input should be greater than 0"


def test_a_checkpoint_of_another_run_does_not_complete_a_stage_whose_job_refused_it():
    job = JobView("failed", 2, ("error: checkpoint sft/4 was made by run 'other'",))
    failed = condition(
        decide(make_stage(status={"attempt": 1}), job=job, checkpoint=Checkpoint("sft", 4, True)), "Failed"
    )
    assert failed.message == "invalid input, not retried: error: checkpoint sft/4 was made by run 'other'"


def test_the_log_of_a_killed_job_is_not_quoted():
    job = JobView("failed", -9, ("some/file.py:3: UserWarning: deprecated", "  warnings.warn("))
    decision = decide(make_stage(status={"attempt": 1}), job=job)
    message = condition(decision, "Ready").message
    assert message == "attempt 1 failed: killed by SIGKILL, possibly out of memory"


def test_a_lost_attempt_is_continued_by_the_next_and_does_not_count_as_failed():
    decision = decide(make_stage(status={"attempt": 1}), job=JobView("lost"), checkpoint=Checkpoint("sft", 5))
    assert (decision.status.attempt, decision.status.failures) == (2, 0)
    assert decision.events[0].message == "world-stage: attempt 1 was interrupted; attempt 2 resumes from sft/5"


def test_a_suspended_stage_cancels_its_job_and_resumes_with_the_next_attempt():
    stage = make_stage(suspend=True, status={"attempt": 1})
    assert decide(stage, job=RUNNING).actions == (CancelJob(),)
    stopped = decide(stage, job=JobView("cancelled", -15), checkpoint=Checkpoint("sft", 5))
    assert condition(stopped, "Suspended").message == "suspended at checkpoint sft/5"
    resumed = make_stage(status={"attempt": 1, "conditions": stopped.status.conditions})
    next_attempt = decide(resumed, job=JobView("cancelled", -15))
    assert next_attempt.status.attempt == 2 and condition(next_attempt, "Suspended").status == "False"


def test_a_cancelled_stage_cancels_its_job_and_fails():
    stage = make_stage(status={"attempt": 1}, annotations={CANCEL: "yes"})
    assert decide(stage, job=RUNNING).actions == (CancelJob(),)
    assert condition(decide(stage, job=JobView("cancelled", -15)), "Failed").reason == Reason.CANCELLED
    assert condition(decide(stage), "Failed").reason == Reason.CANCELLED


def test_a_stage_that_completes_while_it_is_being_cancelled_is_complete():
    stage = make_stage(status={"attempt": 1}, annotations={CANCEL: "yes"})
    assert condition(decide(stage, job=GOOD, checkpoint=Checkpoint("sft", 9)), "Complete")


def test_an_attempt_that_exceeds_its_deadline_is_cancelled_and_counts_as_failed():
    stage = make_stage(activeDeadlineSeconds=60, status={"attempt": 1, "attempt_time": NOW, "running_time": NOW})
    assert decide(stage, later(59), job=RUNNING).actions == ()
    assert decide(stage, later(60), job=RUNNING).actions == (CancelJob(),)
    ended = decide(stage, later(61), job=JobView("cancelled", -15))
    assert ended.status.failures == 1
    assert condition(ended, "Ready").message == "attempt 1 failed: exceeded activeDeadlineSeconds: 60"


QUEUED = JobView("running", started=False, blocked=Blocked(Reason.QUEUED, "queue research: 8/8 tasks unschedulable"))


def test_the_time_in_a_queue_uses_up_nothing_of_the_deadline():
    stage = make_stage(activeDeadlineSeconds=60, status={"attempt": 1, "attempt_time": NOW})
    waiting = decide(stage, later(3600), job=QUEUED)
    assert waiting.actions == () and waiting.status.running_time is None
    started = decide(after(stage, waiting), later(4000), job=RUNNING)
    assert started.actions == () and started.status.running_time == later(4000)
    assert decide(after(stage, started), later(4059), job=RUNNING).actions == ()
    assert decide(after(stage, started), later(4060), job=RUNNING).actions == (CancelJob(),)


def test_a_stage_that_waits_in_a_queue_reports_that_in_the_cluster_s_words_without_a_warning():
    waiting = decide(make_stage(status={"attempt": 1, "attempt_time": NOW}), job=QUEUED)
    ready = condition(waiting, "Ready")
    assert (ready.status, ready.reason, ready.message) == ("False", "Queued", "queue research: 8/8 tasks unschedulable")
    assert [(event.reason, event.warning) for event in waiting.events] == [("Queued", False)]


def test_an_attempt_that_no_pod_runs_in_time_is_cancelled_and_counts_as_failed():
    stage = make_stage(queueDeadlineSeconds=600, status={"attempt": 1, "attempt_time": NOW})
    assert decide(stage, later(599), job=QUEUED).actions == ()
    assert decide(stage, later(600), job=QUEUED).actions == (CancelJob(),)
    ended = decide(stage, later(601), job=JobView("cancelled", started=False))
    assert condition(ended, "Ready").message == "attempt 1 failed: no pod ran within queueDeadlineSeconds: 600"
    ran = decide(stage, later(5), job=RUNNING)
    assert decide(after(stage, ran), later(9000), job=RUNNING).actions == ()


def looks(stage, now, state, message=""):
    """A pass after the attempt's job has succeeded."""
    store = StoreView(state, {stage.store_key: Checkpoint("sft", 180, True)} if state == "known" else {}, message)
    return rule.plan(stage, rule.Facts(GOOD, store, None, READY_DATA), now)


def test_a_store_that_cannot_be_read_after_an_attempt_is_looked_at_again_and_no_attempt_is_repeated():
    stage = make_stage(status={"attempt": 1, "attempt_time": NOW}, backoffLimit=0)
    for failures, delay in ((1, 2), (2, 4), (3, 8)):
        failed = looks(stage, NOW, "failed", "s3 answers 503")
        assert (failed.requeue_after, failed.actions) == (delay, ())
        assert failed.status.store_check.failures == failures and failed.status.failures == 0
        ready = condition(failed, "Ready")
        assert ready.reason == "StoreFailed" and "the store cannot be checked: s3 answers 503" in ready.message
        assert [event.reason for event in failed.events] == ["StoreFailed"]
        stage = after(stage, failed)
        assert looks(stage, later(delay - 1), "failed").actions == ()
        assert looks(stage, later(delay), "failed").actions == (CheckStore(),)
        again = looks(stage, later(delay), "unknown")
        assert again.actions == (CheckStore(),) and condition(again, "Ready").message == ready.message
        stage = after(stage, looks(after(stage, again), later(delay), "checking"))
    done = looks(stage, later(60), "known")
    assert condition(done, "Complete").status == "True" and done.status.attempt == 1
    assert done.status.store_check.failures == 0


@pytest.mark.parametrize("type_", ["Complete", "Failed"])
@pytest.mark.parametrize("job", [None, GOOD, BAD, JobView("lost")])
def test_terminal_is_terminal(type_, job):
    stage = make_stage(status={"attempt": 1, "conditions": holding(type_)}, annotations={CANCEL: "yes"})
    decision = decide(stage, job=job, checkpoint=Checkpoint("sft", 9))
    assert (decision.status, decision.actions, decision.events) == (stage.status, (), ())


def test_a_finished_stage_cancels_a_job_that_still_runs():
    stage = make_stage(status={"attempt": 1, "conditions": holding("Failed")})
    assert decide(stage, job=RUNNING).actions == (CancelJob(),)


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (1, "exit 1"),
        (-9, "killed by SIGKILL, possibly out of memory"),
        (-11, "killed by SIGSEGV"),
        (137, "killed by SIGKILL, possibly out of memory"),
        (143, "killed by SIGTERM"),
        (-99, "killed by signal 99"),
        (None, "ended without an exit code"),
    ],
)
def test_a_failure_without_a_log_line_is_described_by_its_exit_code(code, words):
    decision = decide(make_stage(status={"attempt": 1}), job=JobView("failed", code, ("", "----")))
    assert condition(decision, "Ready").message == f"attempt 1 failed: {words}"


def test_an_attempt_whose_pods_were_evicted_does_not_count_and_the_next_starts_after_a_delay():
    stage = make_stage(status={"attempt": 1, "checkpoint": "sft/40"})
    lost = JobView("lost", cause="pod trainer-1 evicted (preempted)")
    first = decide(stage, job=lost)
    assert (first.status.attempt, first.status.failures, first.requeue_after) == (1, 0, 2.0)
    message = "world-stage: attempt 1 was interrupted: pod trainer-1 evicted (preempted); attempt 2 resumes from sft/40"
    assert [event.message for event in first.events] == [message]
    waiting = stage.model_copy(update={"status": first.status})
    assert decide(waiting, later(2), job=lost).status.attempt == 2


def waiting(reason="JudgeDown", message="judge is down: connection: refused", **fields):
    until = {"until": later(600)} | fields
    return Progress(step=3, total=9, waiting=WaitingFor(reason=reason, message=message, since=NOW, **until))


def test_a_stage_that_waits_for_the_judge_is_not_ready_and_keeps_its_attempt():
    stage = make_stage("GRPOStage", status={"attempt": 2})
    first = decide(stage, job=RUNNING, progress=waiting())
    message = "judge is down: connection: refused; attempt 2 fails at 09:36:53 UTC unless it recovers"
    ready = condition(first, "Ready")
    assert (ready.status, ready.reason, ready.message) == ("False", Reason.JUDGE_DOWN, message)
    assert [(event.reason, event.message, event.warning) for event in first.events] == [
        ("JudgeDown", f"world-stage: {message}", True)
    ]
    assert (first.actions, first.status.attempt, first.status.failures) == ((), 2, 0)
    again = decide(after(stage, first), later(60), job=RUNNING, progress=waiting())
    assert again.status == first.status and again.events == (), "an outage is reported once"


def test_a_stage_whose_judge_answers_again_is_ready():
    stage = make_stage("GRPOStage", status={"attempt": 2})
    down = after(stage, decide(stage, job=RUNNING, progress=waiting()))
    recovered = decide(down, later(60), job=RUNNING, progress=Progress(step=4, total=9))
    assert condition(recovered, "Ready").reason == Reason.RUNNING
    message = "world-stage: the judge answers again; attempt 2 continues"
    assert [(event.reason, event.message, event.warning) for event in recovered.events] == [
        ("Recovered", message, False)
    ]
    assert decide(after(stage, recovered), later(65), job=RUNNING, progress=Progress(step=4, total=9)).events == ()


@pytest.mark.parametrize(
    ("progress", "reason", "message"),
    [
        (waiting("ToolDown", "grounding is down: timeout", until=None), "ToolDown", "grounding is down: timeout"),
        (waiting("SomethingNewer", "", until=None), "ToolDown", "a service is down"),
    ],
    ids=["without a limit", "a reason of a newer stage"],
)
def test_an_outage_is_described_by_what_the_stage_reports(progress, reason, message):
    ready = condition(decide(make_stage("GRPOStage", status={"attempt": 1}), job=RUNNING, progress=progress), "Ready")
    assert (ready.reason, ready.message) == (reason, message)


def test_an_attempt_that_gave_up_waiting_is_retried_and_never_invalid_input():
    stage = make_stage("GRPOStage", status={"attempt": 2})
    stage = after(stage, decide(stage, job=RUNNING, progress=waiting()))
    down = JobView("failed", 1, ("gog.errors.ServiceDown: judge: down for 600 s: connection: refused",))
    failed = decide(stage, later(600), job=down, progress=waiting())
    assert condition(failed, "Failed") is None and condition(failed, "Ready").reason == Reason.RETRYING
    assert "judge: down for 600 s: connection: refused" in condition(failed, "Ready").message
    assert failed.events[0].reason == "Retrying" and failed.events[0].message.endswith("; retry 1 of 3 in 2 s")
    retried = decide(after(stage, failed), later(602), job=down)
    assert retried.status.attempt == 3 and retried.status.progress.waiting is None


ENDS = {
    "invalid input": (
        JobView("failed", 2, ("error: steps: must be positive",)),
        {},
        "invalid input: error: steps: must be positive",
    ),
    "too many failures": (BAD, {"backoffLimit": 0}, "exit 1: ValueError: no such column"),
    "suspended": (JobView("cancelled", -15), {"suspend": True}, "suspended before its first checkpoint"),
}


@pytest.mark.parametrize(
    ("kind", "checkpoint", "follows"),
    [
        ("SFTStage", "", "starts from the beginning"),
        ("SFTStage", "sft/40", "resumes from sft/40"),
        ("StratifyStage", "", "takes over what its journal holds"),
        ("GRPOStage", "grpo/40", "resumes from grpo/40 and its journal"),
    ],
)
def test_an_event_names_what_the_attempt_after_a_lost_node_starts_from(kind, checkpoint, follows):
    stage = make_stage(kind, status={"attempt": 1, "checkpoint": checkpoint})
    decision = decide(stage, job=JobView("lost"))
    assert [event.message.rpartition("; ")[2] for event in decision.events] == [f"attempt 2 {follows}"]


@pytest.mark.parametrize(("job", "spec", "ending"), ENDS.values(), ids=ENDS)
def test_a_resumed_stage_reports_how_its_last_attempt_ended(job, spec, ending):
    ended = after(make_stage(**spec, status={"attempt": 1}), decide(make_stage(**spec, status={"attempt": 1}), job=job))
    open_again = {"conditions": (), "completion_time": None, "retry_time": None, "failures": 0}
    resumed = make_stage(status={**ended.status.__dict__, **open_again})
    decision = decide(resumed, job=JobView("lost"))
    message = f"world-stage: attempt 1 ended: {ending}; attempt 2 starts from the beginning"
    assert [(event.reason, event.message) for event in decision.events] == [("Resumed", message)]
    assert decision.status.attempt == 2 and decision.status.ended is None

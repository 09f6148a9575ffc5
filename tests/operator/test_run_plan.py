"""The plan of a run: what it creates and in which order, what stops it, and what it reports meanwhile."""

from __future__ import annotations

import pytest
from support.operator_builders import holding, make_run, make_tool_server
from support.run_plans import complete, created, decide, failed, walk

from gog import catalog
from gog_operator.api import sequence
from gog_operator.api.meta import CANCEL, Reason
from gog_operator.api.objects import GoGRun, Summary
from gog_operator.plan.actions import (
    Blocked,
    Checkpoint,
    CheckStore,
    DataView,
    DeleteObject,
    Event,
    PatchObject,
    PrepareData,
    StoreView,
)


def test_a_vllm_is_started_with_the_first_stage_that_samples_from_it():
    run = make_run(stages={"grpo": {"engine": "vllm"}}, endpoints={"policy": {"runtime": "vllm"}})
    stages, started = [], []
    for _ in range(5):
        new = created(decide(run, stages=stages))
        started.append([each.name for each in new if each.kind == "ToolServer" and each.spec.role == "policy"])
        stages += [complete(each) for each in new if each.kind != "ToolServer"]
    assert started == [[], [], [], ["world-policy"], []]
    (grpo,) = [each for each in stages if each.kind == "GRPOStage"]
    working = grpo.model_copy(update={"status": grpo.status.model_copy(update={"conditions": ()})})
    (again,) = [
        each
        for each in created(decide(run, stages=[*stages[:3], working]))
        if each.kind == "ToolServer" and each.spec.role == "policy"
    ]
    assert again.spec.runtime == "vllm", "also when the run is resumed"


def test_the_dataset_comes_first_then_servers_and_the_first_stage():
    run = make_run()
    assert decide(run, data=DataView("absent")).actions == (PrepareData(),)
    servers = [f"world-{tool.command}" for tool in catalog.TOOLS if not tool.optional]
    assert {"world-grounding", "world-image-search", "world-text-search", "world-judge"} <= set(servers)
    assert [each.name for each in created(decide(run))] == [*servers, "world-curate"]


def test_each_stage_starts_from_the_checkpoints_of_the_stages_before_it():
    stages = walk(make_run())
    assert [(each.name, each.spec.inputs) for each in stages] == [
        ("world-curate", {}),
        ("world-sft", {"curate": "curate/1"}),
        ("world-stratify", {"sft": "sft/1"}),
        ("world-grpo", {"sft": "sft/1", "stratify": "stratify/1"}),
        ("world-evaluate", {"sft": "sft/1", "grpo": "grpo/1"}),
    ]


def test_a_stage_is_not_created_before_the_one_before_it_is_complete():
    run = make_run()
    (curate,) = [each for each in created(decide(run)) if each.kind == "CurateStage"]
    decision = decide(run, stages=[curate])
    assert {each.kind for each in created(decision)} == {"ToolServer"}
    assert decision.status.stage == "world-curate"


def test_a_stage_receives_only_the_fields_that_the_user_set():
    run = make_run(stages={"sft": {"learningRate": 1e-3}}, seed=3, backoffLimit=1)
    sft = walk(run, until=2)[1]
    body = sft.spec.model_dump(exclude_unset=True)
    assert body["learning_rate"] == 1e-3 and body["seed"] == 3 and body["backoff_limit"] == 1
    assert "epochs" not in body and "lora" not in body


def test_a_complete_run_deletes_its_tool_servers():
    run = make_run()
    decision = decide(run, stages=walk(run), servers=[make_tool_server()])
    assert GoGRun.model_copy(run, update={"status": decision.status}).holds("Complete")
    assert DeleteObject("ToolServer", "world-grounding") in decision.actions


def test_a_complete_run_names_its_last_stage_and_its_figures_even_if_no_status_was_written_while_it_worked():
    run = make_run()
    *others, last = walk(run)
    worked = last.status.model_copy(update={"summary": Summary(progress="5/5", tool_failures="1.8%")})
    status = decide(run, stages=[*others, last.model_copy(update={"status": worked})]).status
    assert (status.stage, status.summary.stage) == ("world-evaluate", "evaluate")
    assert (status.summary.progress, status.summary.tool_failures) == ("5/5", "1.8%")


def test_an_arm_repeats_from_the_first_stage_that_it_changes_and_shares_the_rest():
    run = make_run(arms=[{"name": "no-gaze", "set": {"stages.grpo.gaze": "off", "stages.evaluate.gaze": False}}])
    arm = walk(run)[5:]
    assert [(each.name, each.store_key, each.spec.inputs) for each in arm] == [
        ("world-grpo-no-gaze", "grpo-no-gaze", {"sft": "sft/1", "stratify": "stratify/1"}),
        ("world-evaluate-no-gaze", "evaluate-no-gaze", {"sft": "sft/1", "grpo": "grpo-no-gaze/1"}),
    ]
    assert [each.spec.gaze for each in arm] == ["off", "off"]


@pytest.mark.parametrize(
    ("change", "repeated"),
    [
        ({"stages.evaluate.temperature": 1.0}, ["evaluate-x"]),
        ({"stages.sft.epochs": 1}, ["sft-x", "stratify-x", "grpo-x", "evaluate-x"]),
        ({"tools.maxCandidates": 2}, ["curate-x", "sft-x", "stratify-x", "grpo-x", "evaluate-x"]),
        ({"seed": 1}, ["curate-x", "sft-x", "stratify-x", "grpo-x", "evaluate-x"]),
    ],
)
def test_an_arm_repeats_every_stage_that_depends_on_its_change(change, repeated):
    run = make_run(arms=[{"name": "x", "set": change}])
    assert [step.key for step in sequence.steps(run)][5:] == repeated


def test_the_checkpoints_of_skipped_stages_are_taken_from_the_store():
    run = make_run(stages={"skip": ["curate", "sft"]}, store={"uri": "file:///old"})
    held = StoreView("known", {"sft": Checkpoint("sft", 180)})
    (stratify,) = [each for each in created(decide(run, store_state=held)) if each.kind != "ToolServer"]
    assert stratify.stage == "stratify" and stratify.spec.inputs == {"sft": "sft/180"}


def test_evaluate_leaves_out_the_policy_of_a_skipped_grpo():
    run = make_run(stages={"skip": ["stratify", "grpo"]})
    assert "grpo" not in walk(run)[-1].spec.policies


def test_a_failed_stage_fails_the_run_with_its_message():
    run = make_run()
    curate, sft = walk(run, until=2)
    decision = decide(run, stages=[curate, failed(sft)], servers=[make_tool_server()])
    condition = next(each for each in decision.status.conditions if each.type == "Failed")
    assert (condition.reason, condition.message) == (Reason.STAGE_FAILED, "sft: attempt 4 failed: exit 1")
    assert decision.actions == (DeleteObject("ToolServer", "world-grounding"),)


def test_a_cancelled_run_ends_its_stage_before_its_servers():
    run = make_run()
    run = run.model_copy(update={"metadata": run.metadata.model_copy(update={"annotations": {CANCEL: "yes"}})})
    (curate,) = [each for each in created(decide(make_run())) if each.kind == "CurateStage"]
    ending = decide(run, stages=[curate], servers=[make_tool_server()])
    assert ending.actions == (PatchObject("CurateStage", "world-curate", annotations={CANCEL: "yes"}),)
    assert not any(each.type == "Failed" for each in ending.status.conditions)
    ended = decide(run, stages=[failed(curate, "cancelled")], servers=[make_tool_server()])
    assert next(each for each in ended.status.conditions if each.type == "Failed").reason == Reason.CANCELLED


def test_a_failed_tool_server_fails_the_run():
    broken = make_tool_server(
        status={"conditions": holding("Progressing", Reason.SERVER_FAILED, "no weights", status=False)}
    )
    failed_condition = decide(make_run(), servers=[broken]).status.conditions
    assert [(each.reason, each.message) for each in failed_condition if each.type == "Failed"] == [
        (Reason.SERVER_FAILED, "no weights")
    ]


def test_a_run_that_failed_by_a_tool_server_does_not_blame_the_stage_that_it_cancelled():
    broken = make_tool_server(
        status={"conditions": holding("Progressing", Reason.SERVER_FAILED, "no weights", status=False)}
    )
    (curate,) = [each for each in created(decide(make_run())) if each.kind == "CurateStage"]
    decision = decide(make_run(), stages=[failed(curate, "cancelled")], servers=[broken])
    assert next(each for each in decision.status.conditions if each.type == "Failed").message == "no weights"


def test_a_suspended_run_suspends_its_stage_then_deletes_its_tool_servers_and_resumes():
    run = make_run(suspend=True)
    (curate,) = [each for each in created(decide(make_run())) if each.kind == "CurateStage"]
    stopping = decide(run, stages=[curate], servers=[make_tool_server()])
    assert stopping.actions == (PatchObject("CurateStage", "world-curate", spec={"suspend": True}),)
    held = curate.model_copy(
        update={
            "spec": curate.spec.model_copy(update={"suspend": True}),
            "status": curate.status.model_copy(update={"conditions": holding("Suspended", Reason.SUSPENDED)}),
        }
    )
    stopped = decide(run, stages=[held], servers=[make_tool_server()])
    assert stopped.actions == (DeleteObject("ToolServer", "world-grounding"),)
    assert next(each for each in stopped.status.conditions if each.type == "Suspended").status == "True"
    resumed = decide(make_run(), stages=[held])
    assert PatchObject("CurateStage", "world-curate", spec={"suspend": False}) in resumed.actions


def test_names_of_children_leave_room_for_pods_and_never_collide():
    name = "a" * 40
    arms = [{"name": letter * 39, "set": {"stages.grpo.steps": 1}} for letter in "bc"]
    names = [step.name for step in sequence.steps(make_run(name, arms=arms))]
    assert len(set(names)) == len(names)
    assert all(len(f"{each}-a99-trainer-99-0") <= 63 for each in names)


@pytest.mark.parametrize("type_", ["Complete", "Failed"])
def test_a_finished_run_only_deletes_its_tool_servers(type_):
    run = make_run()
    run = run.model_copy(update={"status": run.status.model_copy(update={"conditions": holding(type_)})})
    decision = decide(run, servers=[make_tool_server()])
    assert decision.status == run.status and decision.actions == (DeleteObject("ToolServer", "world-grounding"),)
    assert decide(run).actions == ()


SKIPPING = {"stages": {"skip": ["curate", "sft"]}, "store": {"uri": "s3://bucket/old"}}


@pytest.mark.parametrize(
    ("state", "actions"), [("unknown", (CheckStore(),)), ("checking", ())], ids=["requested once", "then awaited"]
)
def test_nothing_starts_before_the_checkpoints_of_skipped_stages_are_known(state, actions):
    decision = decide(make_run(**SKIPPING), store_state=StoreView(state))
    assert decision.actions == actions and not created(decision)


def test_a_store_that_cannot_be_checked_fails_a_run_that_skips_stages():
    decision = decide(make_run(**SKIPPING), store_state=StoreView("failed", message="no permission for bucket old"))
    failed = next(each for each in decision.status.conditions if each.type == "Failed")
    assert failed.reason == Reason.STORE_FAILED and "no permission for bucket old" in failed.message


def test_an_event_names_each_stage_that_starts_and_its_inputs():
    run = make_run()
    stages = walk(run, until=3)
    done = [complete(each, f"{each.store_key}/7") for each in stages]
    assert decide(run, stages=done).events == (Event("StageStarted", "grpo starts from sft/7 and stratify/7"),)


def test_a_failed_attempt_of_a_stage_is_an_event_of_the_run_once():
    run = make_run()
    (stage,) = walk(run, until=1)
    status = {"conditions": holding("Ready", Reason.RETRYING, "attempt 1 failed: exit 1", status=False)}
    stage = stage.model_copy(update={"status": stage.status.model_copy(update=status)})
    run = run.model_copy(update={"status": run.status.model_copy(update={"stage": stage.name})})
    first = decide(run, stages=[stage])
    message = "curate: attempt 1 failed: exit 1; the next attempt resumes from curate/1 and its journal"
    assert first.events == (Event("Retrying", message, warning=True),)
    assert decide(run.model_copy(update={"status": first.status}), stages=[stage]).events == ()


STUCK = Blocked(Reason.SECRET_MISSING, 'pod world-data-x: secret "gog-s3" not found')


@pytest.mark.parametrize(
    "facts",
    [{"data": DataView("preparing", blocked=STUCK)}, {"store_state": StoreView("checking", blocked=STUCK)}],
    ids=["dataset", "store"],
)
def test_a_run_whose_dataset_or_store_check_is_blocked_reports_it_once(facts):
    run = make_run(**SKIPPING) if "store_state" in facts else make_run()
    first = decide(run, **facts)
    assert [each.reason for each in first.status.conditions if each.type == "Ready"] == [Reason.SECRET_MISSING]
    assert [event.message for event in first.events] == [f"world: {STUCK.message}"]
    assert decide(run.model_copy(update={"status": first.status}), **facts).events == ()


@pytest.mark.parametrize("reason", [Reason.JUDGE_DOWN, Reason.UNSCHEDULABLE])
def test_a_run_whose_stage_is_blocked_is_not_ready_for_the_same_reason(reason):
    (stage,) = walk(make_run(), until=1)
    status = {"conditions": holding("Ready", reason, "no judge", status=False)}
    blocked = decide(make_run(), stages=[stage.model_copy(update={"status": stage.status.model_copy(update=status)})])
    ready = next(each for each in blocked.status.conditions if each.type == "Ready")
    assert (ready.status, ready.reason, ready.message) == ("False", reason, "curate: no judge")


def test_a_run_whose_stage_waits_for_its_tool_servers_is_ready():
    (stage,) = walk(make_run(), until=1)
    status = {"conditions": holding("Ready", Reason.WAITING, "waiting for world-judge", status=False)}
    decision = decide(make_run(), stages=[stage.model_copy(update={"status": stage.status.model_copy(update=status)})])
    ready = next(each for each in decision.status.conditions if each.type == "Ready")
    assert (ready.status, ready.reason) == ("True", Reason.CURATING)


def test_a_stage_resumes_in_the_present_place_of_its_run():
    old = {"queue": "small", "nodeSelector": {"pool": "a", "zone": "1"}}
    (curate,) = [each for each in created(decide(make_run(scheduling=old))) if each.kind == "CurateStage"]
    held = curate.model_copy(update={"spec": curate.spec.model_copy(update={"suspend": True})})
    same = decide(make_run(scheduling=old), stages=[held])
    assert same.actions[0] == PatchObject("CurateStage", "world-curate", spec={"suspend": False})
    moved = decide(make_run(scheduling={"queue": "large", "nodeSelector": {"pool": "a"}}), stages=[held])
    change = {"queue": "large", "nodeSelector": {"zone": None}}
    assert moved.actions[0] == PatchObject("CurateStage", "world-curate", spec={"suspend": False, "scheduling": change})


def sized(**workers):
    return make_run(stages={"curate": {"workers": workers}, "sft": {"workers": workers}})


def held_stage(run, **workers):
    """The first stage of a run, suspended; workers: a user's own change of it."""
    (curate,) = [each for each in created(decide(run)) if each.kind == "CurateStage"]
    spec = {"suspend": True}
    if workers:
        spec["workers"] = curate.spec.workers.model_copy(update=workers)
    return curate.model_copy(update={"spec": curate.spec.model_copy(update=spec)})


def test_a_stage_resumes_in_the_present_size_of_its_run():
    held = held_stage(sized(replicas=1, memory="8Gi", gpus=1))
    same = decide(sized(replicas=1, memory="8Gi", gpus=1), stages=[held]).actions[0]
    assert same == PatchObject("CurateStage", "world-curate", spec={"suspend": False})
    resized = decide(sized(replicas=2, gpus=1), stages=[held]).actions[0]
    assert resized.spec == {"suspend": False, "workers": {"replicas": 2, "memory": None}}
    noted = resized.annotations
    metadata = held.metadata.model_copy(update={"annotations": {**held.metadata.annotations, **noted}})
    again = decide(sized(replicas=2, gpus=1), stages=[held.model_copy(update={"metadata": metadata})]).actions[0]
    assert again.spec == {"suspend": False} and again.annotations == {}


def test_what_a_user_has_changed_of_a_stage_stays_unless_the_run_changes_it():
    held = held_stage(sized(replicas=1, gpus=1), replicas=3)
    assert decide(sized(replicas=1, gpus=1), stages=[held]).actions[0].spec == {"suspend": False}
    assert decide(sized(replicas=1, gpus=8), stages=[held]).actions[0].spec["workers"] == {"gpus": 8}


def test_a_stage_without_a_record_of_its_run_s_workers_keeps_its_own():
    """Stages that an earlier operator has created."""
    held = held_stage(sized(replicas=1))
    bare = held.model_copy(update={"metadata": held.metadata.model_copy(update={"annotations": {}})})
    assert decide(sized(replicas=2), stages=[bare]).actions[0].spec == {"suspend": False}


def test_a_stage_that_is_created_later_has_the_present_size_of_its_run():
    run = sized(replicas=2)
    (sft,) = [each for each in created(decide(run, stages=walk(sized(replicas=1), until=1))) if each.kind == "SFTStage"]
    assert sft.spec.workers.replicas == 2

"""Ended jobs of finished stages and runs are deleted after a while; status and results stay, and nothing is run again."""

from __future__ import annotations

import pytest
from support.fault_harness import Harness, condition
from support.operator_builders import NOW, holding, later, make_run, make_stage
from support.run_plans import complete

from gog_operator.build import pods
from gog_operator.build.platform import Platform
from gog_operator.cluster import paths
from gog_operator.plan import actions, job_ttl
from gog_operator.plan.actions import Decision

SHORT = {"stages": {"skip": ["curate", "stratify", "grpo", "evaluate"]}}


def finished(**spec):
    return make_stage(status={"conditions": holding("Complete"), "completion_time": NOW}, **spec)


def decide(thing, *, default=None, now=NOW, doing=()):
    return job_ttl.plan(thing, Decision(thing.status, doing), default, now)


@pytest.mark.parametrize(
    ("own", "default", "seconds"), [(None, None, None), (None, 600, 600), (60, 600, 60), (0, None, 0), (0, 600, 0)]
)
def test_the_time_of_the_object_takes_precedence_over_that_of_the_installation(own, default, seconds):
    stage = finished(**({} if own is None else {"jobTtlSeconds": own}))
    if seconds is None:
        assert decide(stage, default=default, now=later(1e9)) == Decision(stage.status)
        return
    if seconds:
        early = decide(stage, default=default, now=later(seconds - 1))
        assert (early.actions, early.requeue_after) == ((), 1.0)
    due = decide(stage, default=default, now=later(seconds))
    assert due.actions == (actions.RemoveJobs(),) and due.status.jobs_removed_time == later(seconds)


def test_jobs_are_removed_once_and_after_everything_else():
    stage = finished(jobTtlSeconds=0)
    removed = stage.model_copy(update={"status": decide(stage).status})
    assert decide(removed, now=later(5)) == Decision(removed.status)
    assert decide(stage, doing=(actions.CancelJob(),)).actions == (actions.CancelJob(),)


def test_a_stage_inherits_the_time_of_its_run():
    from support.run_plans import walk

    (first,) = walk(make_run(jobTtlSeconds=5), until=1)
    assert complete(first).spec.job_ttl_seconds == 5


def test_an_installation_keeps_jobs_forever_unless_it_is_set():
    assert Platform.from_environment({}).job_ttl_seconds is None
    assert Platform.from_environment({"GOG_JOB_TTL": "0"}).job_ttl_seconds == 0


@pytest.mark.apiserver
def test_jobs_and_pods_disappear_while_statuses_stay_and_no_job_is_created_again(bare_api_server):
    harness = Harness(str(bare_api_server.kubeconfig), "job-ttl", jobTtlSeconds=600, **SHORT)
    harness.until(lambda: harness.finished)
    ended = harness.clock.passed
    created: list[str] = []
    harness.recorder.listeners.append(
        lambda type_, body: (
            created.append(body["metadata"]["name"]) if (type_, body["kind"]) == ("ADDED", "Job") else None
        )
    )
    before = {
        kind: harness.get(kind, name)["status"] for kind, name in (("GoGRun", "world"), ("SFTStage", "world-sft"))
    }
    assert harness.job("world-sft-a1")
    harness.until(lambda: "jobsRemovedTime" in harness.run["status"])
    assert 600 <= harness.clock.passed - ended < 700
    harness.rest()
    assert created == []
    assert list(harness.recorder.of(paths.VOLCANO_JOBS)) == list(harness.recorder.of(paths.JOBS)) == []
    assert [path for path, _ in harness.recorder.of(paths.CONFIG_MAPS) if "world" in path] == []
    for kind, name in (("GoGRun", "world"), ("SFTStage", "world-sft")):
        status = harness.get(kind, name)["status"]
        assert {**status, "jobsRemovedTime": None} == {**before[kind], "jobsRemovedTime": None}
    assert condition(harness.run, "Complete", "True")


@pytest.mark.apiserver
def test_another_object_s_jobs_and_jobs_that_run_stay(bare_api_server):
    harness = Harness(str(bare_api_server.kubeconfig), "job-ttl-others", jobTtlSeconds=0, **SHORT)
    other = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "mine", "namespace": harness.namespace}}
    other["metadata"]["labels"] = {"gog.dev/owner": "world", "app.kubernetes.io/name": "gog"}
    container = {"name": "c", "image": "example.org/none", "securityContext": pods.container_security()}
    pod = {"restartPolicy": "Never", "containers": [container], "securityContext": pods.security(10001)}
    other["spec"] = {"template": {"spec": pod}}
    harness.recorder.call("POST", paths.JOBS.path(harness.namespace), body=other)
    harness.run_to_the_end()
    harness.until(lambda: "jobsRemovedTime" in harness.run["status"])
    assert [path.rpartition("/")[2] for path, _ in harness.recorder.of(paths.JOBS)] == ["mine"]

"""A run with `artifactPolicy: Delete` on a real API server: finalizer, cascades, shared stores, namespaces, giving up."""

from __future__ import annotations

import itertools
import json

import pytest
from support.fault_harness import Harness, condition, phase

from gog.store import writers
from gog_operator.api.meta import ARTIFACTS, KEEP
from gog_operator.cluster import paths
from gog_operator.cluster.kube import ApiError
from gog_operator.plan import erasure

pytestmark = pytest.mark.apiserver

DELETE = {"artifactPolicy": "Delete", "stages": {"skip": ["curate", "stratify", "grpo", "evaluate"]}}
NUMBERS = itertools.count(1)


@pytest.fixture
def create(bare_api_server):
    """Creates a run in a namespace of its own."""

    def begin(**spec) -> Harness:
        return Harness(str(bare_api_server.kubeconfig), f"erase-{next(NUMBERS)}", **{**DELETE, **spec})

    return begin


def run_path(harness: Harness) -> str:
    return paths.OURS["GoGRun"].path(harness.namespace, harness.name)


def delete(harness: Harness, policy: str) -> None:
    harness.recorder.call("DELETE", run_path(harness), body={"propagationPolicy": policy})


def erasing_job(harness: Harness):
    return harness.recorder.objects.get(paths.JOBS.path(harness.namespace, "world-erase"))


def fate(harness: Harness) -> tuple[str, str]:
    found = (
        condition(harness.run, "ArtifactsErased", "False") or condition(harness.run, "ArtifactsErased", "True") or {}
    )
    return str(found.get("reason", "")), str(found.get("message", ""))


def step_until(harness: Harness, happens) -> None:
    """Turns of five seconds, also where something changes in each."""
    for _ in range(60):
        if happens():
            return
        harness.round()
        harness.clock.passed += 5
    raise AssertionError(harness.conditions())


def fails(harness: Harness, **end) -> None:
    harness.scenario.store_job = lambda name: end if name.endswith("-erase") else {}


def test_a_run_that_is_retained_has_no_finalizer(create):
    harness = create(artifactPolicy="Retain")
    harness.run_to_the_end()
    assert not harness.run["metadata"].get("finalizers")


@pytest.mark.parametrize("policy", ["Background", "Foreground"])
def test_a_deleted_run_is_erased_by_one_job_after_everything_of_it_has_ended(create, policy):
    harness = create()
    harness.scenario.outcome = lambda name: ""
    harness.until(lambda: phase(harness.job("world-sft-a1") or {}) == "Running")
    assert harness.run["metadata"]["finalizers"] == [ARTIFACTS]
    seen: list[bool] = []
    harness.recorder.listeners.append(
        lambda type_, body: (
            seen.append(any(True for _ in harness.recorder.of(paths.OURS["SFTStage"])))
            if type_ == "ADDED" and body["kind"] == "Job" and body["metadata"]["name"] == "world-erase"
            else None
        )
    )
    delete(harness, policy)
    harness.until(lambda: not harness.run)
    harness.rest()
    assert seen == [False], "the job is created once, when no stage exists"
    assert harness.state() == {}
    assert any("Erased" in each and "12 objects" in each for each in harness.events())


def test_the_job_names_the_run_as_its_pods_registered_it(create):
    harness = create()
    harness.run_to_the_end()
    uid = harness.run["metadata"]["uid"]
    job = harness.job("world-sft-a1")
    (trainer,) = job["spec"]["tasks"][0]["template"]["spec"]["containers"]
    (given,) = [each["value"] for each in trainer["env"] if each["name"] == writers.VARIABLE]
    assert writers.Writer.model_validate_json(given).uid == uid
    fails(harness, waiting={"reason": "ContainerCreating", "message": ""})
    delete(harness, "Background")
    harness.until(lambda: erasing_job(harness))
    body = harness.api.call("GET", paths.CONFIG_MAPS.path(harness.namespace, "world-erase"))
    asked = json.loads(next(iter(body["data"].values())))
    assert (asked["uid"], asked["run"], asked["store"]["uri"]) == (uid, "world", "s3://bucket/world")


def test_a_store_that_another_object_names_is_left_alone_until_that_is_gone(create):
    harness = create()
    harness.run_to_the_end()
    other = {"apiVersion": "gog.dev/v1alpha1", "kind": "ToolServer", "metadata": {"name": "other"}}
    harness.create({**other, "spec": {"role": "policy", "base": "tiny", "store": {"uri": "s3://bucket/world/"}}})
    delete(harness, "Background")
    harness.until(lambda: fate(harness)[0] == "StoreShared")
    assert "ToolServer other uses s3://bucket/world" in fate(harness)[1] and KEEP in fate(harness)[1]
    assert erasing_job(harness) is None
    harness.remove(paths.OURS["ToolServer"].path(harness.namespace, "other"))
    harness.until(lambda: not harness.run)


def test_a_conflict_over_the_probe_of_the_namespace_delays_the_erasure(create):
    harness = create()
    harness.run_to_the_end()
    made, probe = harness.faulty.calls, f"POST {paths.CONFIG_MAPS.path(harness.namespace)}"
    refused: list[int] = []

    def conflict(number: int, send):
        if made[-1].request == probe and len(refused) < 3:
            refused.append(number)
            raise ApiError(409, "Conflict", "the object has been modified")
        return send()

    harness.faulty.fault = conflict
    delete(harness, "Background")
    harness.until(lambda: not harness.run)
    assert len(refused) == 3
    assert any("Erased" in each and "12 objects" in each for each in harness.events())


def test_an_erasure_that_fails_is_repeated_and_then_given_up_with_a_warning(create):
    harness = create()
    harness.run_to_the_end()
    fails(harness, exitCode=2, message="gog: s3://bucket/world: AccessDenied (give the Secret's key s3:DeleteObject)")
    delete(harness, "Background")
    harness.until(lambda: fate(harness)[0] == "EraseFailed")
    assert "s3:DeleteObject" in fate(harness)[1]
    harness.until(lambda: harness.run["status"]["erasure"]["failures"] >= 3)
    harness.clock.passed += (erasure.GIVE_UP_HOURS + 6) * 3600  # the deletion's time is the server's
    harness.until(lambda: not harness.run)
    assert any("ArtifactsKept" in each and "within 24 hours" in each for each in harness.events())


def test_a_refused_erasure_is_tried_again_with_a_new_job(create):
    harness = create()
    harness.run_to_the_end()
    shared = {"outcome": "shared", "message": "s3://bucket/world is also written by GoGRun team-b/world", "erased": 0}
    fails(harness, exitCode=0, message=json.dumps(shared))
    delete(harness, "Background")
    harness.until(lambda: fate(harness)[0] == "StoreShared")
    assert "also written by GoGRun team-b/world" in fate(harness)[1]
    harness.scenario.store_job = lambda name: {}
    harness.until(lambda: not harness.run)


def test_the_annotation_lets_the_run_go_and_keeps_its_artifacts(create):
    harness = create()
    harness.run_to_the_end()
    fails(harness, waiting={"reason": "CreateContainerConfigError", "message": 'secret "s3" not found'})
    delete(harness, "Background")
    step_until(harness, lambda: "SecretMissing" in str(harness.run["status"]))
    harness.edit(run_path(harness), {"metadata": {"annotations": {KEEP: "yes"}}})
    step_until(harness, lambda: not harness.run)
    assert any("ArtifactsKept" in each for each in harness.events())


def test_a_namespace_is_deleted_although_its_runs_want_their_artifacts_erased(create):
    harness = create()
    harness.run_to_the_end()
    fails(harness, waiting={"reason": "ContainerCreating", "message": ""})
    harness.recorder.api.call("DELETE", f"/api/v1/namespaces/{harness.namespace}")
    harness.recorder.ended = True
    step_until(harness, lambda: not harness.run)

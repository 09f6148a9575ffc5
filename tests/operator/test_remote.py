"""Runs on a real API server: the operator's passes, and actors in place of Volcano, KServe and kubelets."""

from __future__ import annotations

import re
from typing import Any

import pytest
from support.job_names import plain
from support.remote_harness import STORE, Workplace

from gog_operator.cluster import paths
from gog_operator.cluster.kube import MERGE, Api, ApiError, items
from gog_operator.plan.stage import POLL_SECONDS

pytestmark = pytest.mark.apiserver
DATA = {"uri": "s3://bucket/questions"}


@pytest.fixture
def place(api_server):
    return Workplace(api_server)


class Wrapped(Api):
    """An Api that records requests, or changes what the operator sees."""

    def __init__(self, api):
        self.api, self.reads, self.writes = api, [], []

    def send(self, request):
        (self.writes if request.writes else self.reads).append(f"{request.method} {request.path}")
        return self.api.send(request)


class WithoutVolcano(Wrapped):
    def send(self, request):
        if "volcano" in request.path:
            raise ApiError(404, "NotFound", "the server could not find the requested resource")
        return super().send(request)


class Broken(Wrapped):
    """An Api in which one object has a value that its definition forbids, as one of another gog may."""

    def send(self, request):
        answer = super().send(request)
        if request.path.endswith("/sftstages/odd") and request.method == "GET":
            answer["spec"]["backoffLimit"] = -1
        return answer


def stage(place: Workplace, name: str = "tune", **spec: Any) -> None:
    """Creates a stage without a run."""
    place.create("SFTStage", name, data=DATA, store=STORE, **spec)


def test_a_run_goes_from_a_manifest_to_complete(place):
    place.apply()
    place.until(lambda: place.condition("GoGRun", "world", "Complete"))
    stages = place.stages()
    assert [each["status"]["checkpoint"] for each in stages] == [f"{key}/10" for key in place.KEYS]
    assert all(each["status"]["attempt"] == 1 for each in stages)
    assert "world is complete" in [each["message"] for each in place.events()]


def test_nothing_is_written_once_nothing_changes(api_server):
    counted: list[Wrapped] = []
    place = Workplace(api_server, lambda api: counted.append(Wrapped(api)) or counted[0])
    stage(place)
    place.until(lambda: place.condition("SFTStage", "tune", "Complete"))
    before = len(counted[0].writes)
    for _ in range(3):
        place.operator.work()
        place.clock.passed += 60
    assert counted[0].writes[before:] == []


def test_the_store_is_checked_only_once_the_job_has_ended(api_server):
    counted: list[Wrapped] = []
    place = Workplace(api_server, lambda api: counted.append(Wrapped(api)) or counted[0])
    place.scenario.outcome = lambda name: ""
    stage(place)
    place.until(lambda: place.phase("tune-a1") == "Running")
    for _ in range(3):
        place.round()
    job = place.job_name("tune-a1")
    check_job = f"GET {paths.JOBS.path(place.namespace, f'{job}-check')}"
    asked = counted[0].reads
    assert f"GET {paths.VOLCANO_JOBS.path(place.namespace, job)}" in asked and check_job not in asked
    place.scenario.outcome = lambda name: "Completed"
    place.until(lambda: place.condition("SFTStage", "tune", "Complete"))
    assert check_job in asked


def test_two_operators_at_once_reach_the_same_end_as_one(place):
    second = place.make_operator(place.api)
    place.apply()

    def both() -> Any:
        second.work()
        return place.condition("GoGRun", "world", "Complete")

    place.until(both)
    assert [each["status"]["attempt"] for each in place.stages()] == [1] * 5
    jobs = [each["metadata"]["name"] for each in items(place.api, paths.VOLCANO_JOBS.path(place.namespace))]
    assert sorted(map(plain, jobs)) == sorted(f"world-{key}-a1" for key in place.KEYS)


def test_an_attempt_that_ran_out_of_memory_is_reported_and_the_next_one_resumes(place):
    place.scenario.outcome = lambda name: "Failed" if name.endswith("-a1") else "Completed"
    place.scenario.pod = lambda name: {"exitCode": 137, "reason": "OOMKilled"}
    place.scenario.step = lambda key: {"step": 40, "complete": place.get("SFTStage", "tune")["status"]["attempt"] == 2}
    stage(place)
    place.until(lambda: place.condition("SFTStage", "tune", "Complete"))
    status = place.get("SFTStage", "tune")["status"]
    assert (status["attempt"], status["failures"]) == (2, 1)
    messages = [each["message"] for each in place.events()]
    assert any("attempt 1 failed: pod trainer-0 OOMKilled" in each and "from sft/40" in each for each in messages)


def test_an_attempt_that_was_interrupted_by_sigint_is_no_failure(place):
    place.scenario.outcome = lambda name: "Failed" if name.endswith("-a1") else "Completed"
    place.scenario.pod = lambda name: {"exitCode": 130, "reason": "Error", "message": "interrupted: the next attempt"}
    place.scenario.step = lambda key: {"step": 40, "complete": place.get("SFTStage", "tune")["status"]["attempt"] == 2}
    stage(place)
    place.until(lambda: place.condition("SFTStage", "tune", "Complete"))
    status = place.get("SFTStage", "tune")["status"]
    assert status["attempt"] == 2 and not status.get("failures")


def test_the_reason_of_a_failure_is_the_pod_s_termination_message(place):
    place.scenario.outcome = lambda name: "Failed"
    reason = "failed: judge: answered 503 for 600 s (the stage's next attempt resumes from its last checkpoint)"
    place.scenario.pod = lambda name: {"exitCode": 1, "reason": "Error", "message": reason}
    place.scenario.step = lambda key: {}
    stage(place, backoffLimit=0)
    place.until(lambda: place.condition("SFTStage", "tune", "Failed"))
    assert place.condition("SFTStage", "tune", "Failed")["message"] == f"attempt 1 failed: exit 1: {reason}"


def test_a_cancelled_stage_ends_its_job_and_keeps_the_job_s_name_taken(place):
    place.scenario.outcome = lambda name: ""
    stage(place)
    place.until(lambda: place.phase("tune-a1") == "Running")
    place.patch("SFTStage", "tune", {"metadata": {"annotations": {"gog.dev/cancel": "true"}}})
    place.until(lambda: place.condition("SFTStage", "tune", "Failed"))
    assert place.condition("SFTStage", "tune", "Failed")["reason"] == "Cancelled"
    assert place.phase("tune-a1") == "Aborted"


def test_a_deleted_job_is_followed_by_another_attempt(place):
    place.scenario.outcome = lambda name: "" if name.endswith("-a1") else "Completed"
    place.scenario.step = lambda key: (
        {"step": 10, "complete": True} if place.get("SFTStage", "tune")["status"]["attempt"] == 2 else {}
    )
    stage(place)
    place.until(lambda: place.phase("tune-a1") == "Running")
    place.operator.work()
    place.api.call("DELETE", paths.VOLCANO_JOBS.path(place.namespace, place.job_name("tune-a1")))
    place.until(lambda: place.condition("SFTStage", "tune", "Complete"))
    assert place.get("SFTStage", "tune")["status"]["attempt"] == 2
    assert place.get("SFTStage", "tune")["status"].get("failures", 0) == 0


def test_an_image_that_cannot_be_pulled_is_reported_on_the_stage(place):
    place.scenario.outcome = lambda name: ""
    stage(place)
    place.until(lambda: place.phase("tune-a1") == "Pending")
    waiting = {"reason": "ImagePullBackOff", "message": "not found"}
    place.job_pod("tune-a1", waiting=waiting)
    for _ in range(2):
        place.operator.work()
        place.clock.passed += POLL_SECONDS
    ready = place.conditions("SFTStage", "tune")["Ready"]
    assert (ready["status"], ready["reason"]) == ("False", "ImageMissing")
    assert "pod trainer-0: image gog-trainer cannot be pulled: not found" in ready["message"]


def test_a_job_too_large_for_etcd_is_reported_on_the_stage(place):
    labels = {f"example.org/{number}-{'k' * 50}": "v" * 63 for number in range(32)}
    stage(place, workers={"replicas": 256}, scheduling={"nodeSelector": labels})
    for _ in range(3):
        place.operator.work()
    ready = place.conditions("SFTStage", "tune")["Ready"]
    assert ready["reason"] == "RefusedByCluster"
    assert "bytes are too many for job tune-a1 of 256 pods (at most 1,000,000): fewer workers.replicas" in re.sub(
        r"tune-\w{4}-a1", "tune-a1", ready["message"]
    )


def _settled(place, name: str, generation: int) -> bool:
    """Whether a tool server is Ready as that generation of its spec wants it."""
    ready = place.condition("ToolServer", name, "Ready")
    seen = place.get("ToolServer", name)["status"].get("observedGeneration") == generation
    return bool(ready) and seen and ready["reason"] == "Ready"


def test_a_scaled_tool_server_is_settled_only_once_every_pod_of_its_new_size_serves(place):
    place.create("ToolServer", "judge", role="judge", replicas=2)
    place.scenario.ready = lambda service: False
    for _ in range(4):
        place.round()
    assert not place.condition("ToolServer", "judge", "Ready")
    place.scenario.ready = lambda service: True
    place.until(lambda: place.condition("ToolServer", "judge", "Ready"))
    place.patch("ToolServer", "judge", {"spec": {"replicas": 3}})
    place.until(lambda: _settled(place, "judge", generation=2))
    deployment = place.api.call("GET", paths.DEPLOYMENTS.path(place.namespace, "judge-predictor"))
    assert deployment["status"]["availableReplicas"] == 3


def test_deleted_and_edited_parts_of_a_server_are_repaired(place):
    place.create("ToolServer", "judge", role="judge")
    place.until(lambda: place.condition("ToolServer", "judge", "Ready"))
    service = paths.INFERENCE_SERVICES.path(place.namespace, "judge")
    place.api.call("PATCH", service, body={"spec": {"predictor": {"minReplicas": 7}}}, content=MERGE)
    place.until(lambda: place.api.call("GET", service)["spec"]["predictor"]["minReplicas"] == 1)
    uid = place.api.call("GET", service)["metadata"]["uid"]
    place.api.call("DELETE", service)
    place.until(lambda: place.find(service) and place.find(service)["metadata"]["uid"] != uid)
    place.until(lambda: place.condition("ToolServer", "judge", "Ready"))


def test_a_deleted_tool_server_takes_its_server_with_it(place):
    place.create("ToolServer", "judge", role="judge")
    place.until(lambda: place.condition("ToolServer", "judge", "Ready"))
    place.api.call("DELETE", paths.OURS["ToolServer"].path(place.namespace, "judge"))
    place.until(lambda: place.find(paths.INFERENCE_SERVICES.path(place.namespace, "judge")) is None)


def test_another_owner_s_service_of_the_same_name_is_left_alone(place):
    place.server.apply(
        {
            "apiVersion": "serving.kserve.io/v1beta1",
            "kind": "InferenceService",
            "metadata": {"name": "judge", "namespace": place.namespace},
            "spec": {"predictor": {"minReplicas": 5}},
        }
    )
    place.create("ToolServer", "judge", role="judge")
    place.round()
    ready = place.conditions("ToolServer", "judge")["Ready"]
    assert ready["reason"] == "NameTaken"
    place.api.call("DELETE", paths.OURS["ToolServer"].path(place.namespace, "judge"))
    place.round()
    service = place.find(paths.INFERENCE_SERVICES.path(place.namespace, "judge"))
    assert service is not None and service["spec"]["predictor"]["minReplicas"] == 5


def test_a_cluster_without_volcano_is_reported_in_a_condition(api_server):
    place = Workplace(api_server, WithoutVolcano)
    stage(place)
    place.operator.work()
    ready = place.conditions("SFTStage", "tune")["Ready"]
    assert (ready["reason"], ready["message"].split(":")[0]) == ("CustomResourceMissing", "Volcano is not installed")


def test_an_object_that_cannot_be_read_is_reported_and_the_others_continue(api_server):
    place = Workplace(api_server, Broken)
    stage(place, "odd")
    stage(place, "even")
    place.until(lambda: place.condition("SFTStage", "even", "Complete"))
    ready = place.conditions("SFTStage", "odd")["Ready"]
    assert (ready["status"], ready["reason"]) == ("False", "InvalidInput")
    assert "spec.backoffLimit: " in ready["message"]


def test_a_look_at_the_store_that_fails_is_reported_and_repeated_and_the_attempt_is_not(place):
    denied = "gog: store: bucket: no permission to read"
    place.scenario.store_job = lambda name: {"exitCode": 2, "message": denied} if name.endswith("-check") else {}
    stage(place, backoffLimit=0)
    assert denied in why_not(place, "StoreFailed")
    place.until(lambda: place.get("SFTStage", "tune")["status"]["storeCheck"]["failures"] == 3)
    place.scenario.store_job = lambda name: {}
    place.until(lambda: place.condition("SFTStage", "tune", "Complete"))
    assert place.get("SFTStage", "tune")["status"]["attempt"] == 1


def why_not(place: Workplace, reason: str) -> str:
    """The message of the stage's Ready condition, once it has that reason."""
    place.until(lambda: place.conditions("SFTStage", "tune").get("Ready", {}).get("reason") == reason)
    ready = place.conditions("SFTStage", "tune")["Ready"]
    assert ready["status"] == "False"
    return ready["message"]


def test_a_store_job_without_its_image_is_reported_on_the_stage_that_waits_for_it(place):
    place.scenario.store_job = lambda name: {"waiting": {"reason": "ImagePullBackOff", "message": "not found"}}
    stage(place)
    assert "image gog-tools cannot be pulled: not found" in why_not(place, "ImageMissing")
    place.scenario.store_job = lambda name: {}
    place.until(lambda: place.condition("SFTStage", "tune", "Complete"))


def test_a_store_job_that_gets_no_pod_is_reported_on_the_stage_that_waits_for_it(place):
    stage(place, serviceAccountName="missing")
    assert 'serviceaccount "missing" not found' in why_not(place, "RefusedByCluster")


def test_the_result_of_a_store_job_outlives_its_pod(place):
    stage(place)
    check = f"{place.job_name('tune-a1')}-check"
    place.until(lambda: place.find(paths.JOBS.path(place.namespace, check)))
    place.until(lambda: "gog.dev/result" in place.annotations(paths.JOBS, check))
    for pod in items(place.api, paths.PODS.path(place.namespace)):
        place.api.call("DELETE", paths.PODS.path(place.namespace, pod["metadata"]["name"]))
    place.until(lambda: place.condition("SFTStage", "tune", "Complete"))
    assert place.get("SFTStage", "tune")["status"]["attempt"] == 1


def test_an_autoscaler_finds_the_pods_of_a_tool_server(place):
    place.create("ToolServer", "judge", role="judge", backend="normalised")
    place.until(lambda: place.condition("ToolServer", "judge", "Ready"))
    scale = place.api.call("GET", paths.OURS["ToolServer"].path(place.namespace, "judge", "scale"))
    (app,) = {each["metadata"]["labels"]["app"] for each in items(place.api, paths.PODS.path(place.namespace), "app")}
    assert scale["status"] == {"replicas": 1, "selector": f"app={app}"}

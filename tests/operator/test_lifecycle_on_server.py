"""What a manifest's lifecycle fields do, and how a run reports what it lacks, on a real API server.

The clock belongs to the harness, so waits of minutes take no time; its readings are part of the claims.
"""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

import pytest
from support.fault_harness import OVER, RESYNC_SECONDS, Harness, condition, phase
from support.faulty_api import Send
from support.job_names import plain

from gog_operator.api import names
from gog_operator.api.meta import CANCEL
from gog_operator.cluster import paths
from gog_operator.cluster.kube import Api, ApiError

pytestmark = pytest.mark.apiserver

SHORT = {"stages": {"skip": ["curate", "stratify", "grpo", "evaluate"]}}
NEEDS_TOOLS = {"stages": {"skip": ["curate", "sft", "stratify", "evaluate"]}}
NUMBERS = itertools.count(1)
SFT = "world-sft"


@pytest.fixture
def create(bare_api_server):
    """Creates a run in a namespace of its own."""

    def begin(**spec) -> Harness:
        return Harness(str(bare_api_server.kubeconfig), f"cycle-{next(NUMBERS)}", **spec)

    return begin


def reason(harness: Harness, kind: str, name: str, type_: str = "Failed", status: str = "True") -> str:
    found = condition(harness.get(kind, name), type_, status)
    return found["reason"] if found else ""


def message(harness: Harness, kind: str, name: str, type_: str = "Failed", status: str = "True") -> str:
    found = condition(harness.get(kind, name), type_, status)
    return found["message"] if found else ""


def jobs(harness: Harness) -> dict[str, str]:
    """Phase of every Volcano Job, by plain name."""
    return {plain(body["metadata"]["name"]): phase(body) for _, body in harness.recorder.of(paths.VOLCANO_JOBS)}


def running(harness: Harness, job: str):
    return lambda: phase(harness.job(job) or {}) == "Running"


def run_path(harness: Harness) -> str:
    return paths.OURS["GoGRun"].path(harness.namespace, harness.name)


# -- lifecycle


def test_a_suspended_run_stops_its_job_and_servers_and_resumes_with_a_new_attempt_that_is_no_failure(create):
    harness = create(**NEEDS_TOOLS)
    harness.scenario.outcome = lambda name: "" if name.endswith("-a1") else "Completed"
    harness.scenario.step = lambda key: (
        {"step": 4, "complete": False} if jobs(harness).keys() == {"world-grpo-a1"} else {"step": 9}
    )
    harness.until(running(harness, "world-grpo-a1"))
    harness.edit(run_path(harness), {"spec": {"suspend": True}})
    harness.until(lambda: condition(harness.run, "Suspended", "True"))
    harness.rest()
    assert jobs(harness) == {"world-grpo-a1": "Aborted"}
    assert list(harness.recorder.of(paths.INFERENCE_SERVICES)) == []
    assert "suspended at checkpoint grpo/4" in message(harness, "GRPOStage", "world-grpo", "Suspended")
    harness.edit(run_path(harness), {"spec": {"suspend": False}})
    harness.run_to_the_end()
    assert harness.finished == "Complete" and condition(harness.run, "Suspended", "False")
    assert jobs(harness) == {"world-grpo-a1": "Aborted", "world-grpo-a2": "Completed"}
    assert "failures" not in harness.get("GRPOStage", "world-grpo")["status"]


def test_a_cancelled_run_ends_its_job_first_and_has_failed_then(create):
    harness = create(**NEEDS_TOOLS)
    harness.scenario.outcome = lambda name: ""
    harness.scenario.step = lambda key: {"step": 4, "complete": False}
    harness.until(running(harness, "world-grpo-a1"))
    harness.edit(run_path(harness), {"metadata": {"annotations": {CANCEL: "yes"}}})
    live: list[str] = []
    harness.recorder.listeners.append(
        lambda type_, body: live.extend(
            each for each in jobs(harness).values() if harness.finished and each not in OVER
        )
    )
    harness.run_to_the_end()
    assert live == []
    assert reason(harness, "GoGRun", "world") == reason(harness, "GRPOStage", "world-grpo") == "Cancelled"
    assert jobs(harness) == {"world-grpo-a1": "Aborted"} and list(harness.recorder.of(paths.INFERENCE_SERVICES)) == []


def test_failed_attempts_are_retried_after_growing_waits_up_to_the_backoff_limit(create):
    harness = create(backoffLimit=2, **SHORT)
    begun: list[float] = []
    harness.recorder.listeners.append(
        lambda type_, body: (
            begun.append(harness.clock.passed)
            if type_ == "ADDED" and body["apiVersion"].startswith("batch.volcano")
            else None
        )
    )
    harness.scenario.outcome = lambda name: "Failed"
    harness.scenario.step = lambda key: {"step": 1, "complete": key != "sft"}
    harness.run_to_the_end()
    assert (
        reason(harness, "SFTStage", SFT) == "BackoffLimitExceeded"
        and reason(harness, "GoGRun", "world") == "StageFailed"
    )
    assert message(harness, "GoGRun", "world") == "sft: attempt 3 failed: exit 1: boom"
    assert jobs(harness) == dict.fromkeys(("world-sft-a1", "world-sft-a2", "world-sft-a3"), "Failed")
    waits = [later - earlier for earlier, later in itertools.pairwise(begun)]
    assert waits[0] >= 2 and waits[1] >= 4 and max(waits) < RESYNC_SECONDS


def test_refused_input_is_not_retried(create):
    harness = create(**SHORT)
    harness.scenario.outcome = lambda name: "Failed"
    harness.scenario.pod = lambda name: {"exitCode": 2, "reason": "Error", "message": "gog: no such dataset"}
    harness.scenario.step = lambda key: {} if key == "sft" else {"step": 1}
    harness.run_to_the_end()
    assert reason(harness, "SFTStage", SFT) == "InvalidInput" and "no such dataset" in message(
        harness, "GoGRun", "world"
    )
    assert list(jobs(harness)) == ["world-sft-a1"]


def test_an_attempt_that_takes_longer_than_its_deadline_is_ended_and_counts_as_failed(create):
    harness = create(backoffLimit=0, activeDeadlineSeconds=90, **SHORT)
    harness.scenario.outcome = lambda name: ""
    harness.scenario.step = lambda key: {"step": 1, "complete": key != "sft"}
    harness.run_to_the_end()
    assert message(harness, "SFTStage", SFT) == "attempt 1 failed: exceeded activeDeadlineSeconds: 90"
    assert jobs(harness) == {"world-sft-a1": "Aborted"} and harness.clock.passed >= 90


def test_a_finished_run_is_deleted_with_all_it_owns_at_the_end_of_its_time_to_live(create):
    harness = create(ttlSecondsAfterFinished=600, **SHORT)
    harness.until(lambda: harness.finished)
    ended = harness.clock.passed
    harness.until(lambda: not harness.run)
    harness.rest()
    assert harness.clock.passed - ended >= 600 and harness.state() == {}


def test_a_run_that_another_controller_manages_is_left_alone(create):
    harness = create(managedBy="kueue.x-k8s.io/multikueue", **SHORT)
    harness.rest()
    assert list(harness.state()) == ["gogruns.gog.dev/world"] and "status" not in harness.run
    assert not any(each.writes for each in harness.faulty.calls)


def test_arms_repeat_the_later_stages_from_the_same_earlier_ones(create):
    arms = [{"name": "blind", "set": {"stages.grpo.gaze": "off", "stages.evaluate.gaze": "off"}}]
    harness = create(arms=arms, stages={"skip": ["curate", "stratify"]})
    harness.run_to_the_end()
    assert harness.finished == "Complete"
    names = ("sft", "grpo", "evaluate", "grpo-blind", "evaluate-blind")
    assert jobs(harness) == {f"world-{each}-a1": "Completed" for each in names}
    starts = [harness.get("GRPOStage", name)["spec"]["inputs"]["sft"] for name in ("world-grpo", "world-grpo-blind")]
    assert starts == ["sft/10", "sft/10"]


# -- what is missing, and where it is reported


class Refusing:
    """A fault that answers one kind of request with an error while it lasts."""

    def __init__(self, harness: Harness, method: str, resource: paths.Resource, error: ApiError) -> None:
        self.harness, self.wanted, self.error, self.lasts = harness, (method, resource), error, True

    def __call__(self, number: int, send: Send):
        method, path = self.harness.faulty.calls[-1].request.split(" ", 1)
        if self.lasts and (method, paths.resource_of(path)) == self.wanted:
            raise self.error
        return send()


def reported_calmly(harness: Harness, kind: str, name: str, expected: str) -> str:
    """The message of the Ready condition once it has the expected reason. Checks that ten minutes of it cost few requests."""
    harness.until(lambda: reason(harness, kind, name, "Ready", "False") == expected)
    writes, calls, begun = harness.recorder.writes, len(harness.faulty.calls), harness.clock.passed
    for _ in range(200):
        if harness.clock.passed - begun >= 600:
            break
        harness.round()
        harness.clock.passed = max(harness.operator.wakes(), harness.clock.passed)
    assert harness.clock.passed - begun >= 600, "a busy loop"
    assert harness.recorder.writes - writes <= 2, "writes without a change"
    assert (len(harness.faulty.calls) - calls) / 600 < 5, "too many requests"
    assert reason(harness, kind, name, "Ready", "False") == expected
    return message(harness, kind, name, "Ready", "False")


NO_QUEUE = (
    'admission webhook "validatejob.volcano.sh" denied the request: '
    ' unable to find job queue: queue.scheduling.volcano.sh "nowhere" not found;'
)


def test_a_missing_queue_is_reported_and_once_it_exists_the_run_continues(create):
    harness = create(scheduling={"queue": "nowhere"}, **SHORT)
    refusing = Refusing(harness, "POST", paths.VOLCANO_JOBS, ApiError(400, "", NO_QUEUE))
    harness.faulty.fault = refusing
    assert 'queue.scheduling.volcano.sh "nowhere" not found' in reported_calmly(
        harness, "SFTStage", SFT, "QueueMissing"
    )
    refusing.lasts = False
    harness.run_to_the_end()
    assert harness.finished == "Complete" and jobs(harness) == {"world-sft-a1": "Completed"}


class Elsewhere(Api):
    """The real server's answer for a product whose resources it does not know."""

    def __init__(self, api: Api, group: str) -> None:
        self.api, self.group, self.lasts = api, group, True

    def send(self, request):
        if self.lasts:
            path = request.path.replace(f"/apis/{self.group}/", f"/apis/missing.{self.group}/")
            request = dataclasses.replace(request, path=path)
        return self.api.send(request)


@pytest.mark.parametrize(
    ("group", "kind", "name", "product"),
    [
        ("batch.volcano.sh", "SFTStage", SFT, "Volcano"),
        ("serving.kserve.io", "ToolServer", "world-judge", "KServe"),
    ],
)
def test_a_missing_product_is_reported_and_once_it_is_installed_the_run_continues(create, group, kind, name, product):
    harness = create(**(SHORT if kind == "SFTStage" else NEEDS_TOOLS))
    harness.faulty.api = elsewhere = Elsewhere(harness.recorder, group)
    assert reported_calmly(harness, kind, name, "CustomResourceMissing").startswith(f"{product} is not installed")
    elsewhere.lasts = False
    harness.run_to_the_end()
    assert harness.finished == "Complete"


def test_a_missing_secret_of_a_pod_is_reported_on_its_stage_and_once_it_exists_the_run_continues(create):
    harness = create(**SHORT)
    harness.scenario.starts = lambda name: {"reason": "CreateContainerConfigError", "message": 'secret "s3" not found'}
    assert 'secret "s3" not found' in reported_calmly(harness, "SFTStage", SFT, "SecretMissing")
    harness.scenario.starts = lambda name: {}
    harness.run_to_the_end()
    assert harness.finished == "Complete" and jobs(harness) == {"world-sft-a1": "Completed"}


def test_a_bucket_without_write_permission_fails_the_run_with_the_store_job_s_message(create):
    harness = create(**SHORT)
    denied = "gog: s3://bucket/world: AccessDenied (give the Secret's key s3:PutObject there)"
    harness.scenario.store_job = lambda name: {"exitCode": 2, "message": denied} if name.endswith("-data") else {}
    harness.run_to_the_end()
    assert reason(harness, "GoGRun", "world") == "DataFailed" and denied in message(harness, "GoGRun", "world")
    assert jobs(harness) == {}


def test_a_store_without_read_permission_fails_the_run_before_anything_starts(create):
    harness = create(**SHORT)
    denied = "gog: s3://bucket/world: AccessDenied (give the Secret's key s3:GetObject there)"
    harness.scenario.store_job = lambda name: {"exitCode": 2, "message": denied} if name == "world-check" else {}
    harness.run_to_the_end()
    assert reason(harness, "GoGRun", "world") == "StoreFailed" and denied in message(harness, "GoGRun", "world")
    assert jobs(harness) == {}


def test_a_server_that_never_gets_ready_fails_the_run_after_its_startup_time_and_leaves_nothing_running(create):
    harness = create(endpoints={"judge": {"startupSeconds": 300}}, **NEEDS_TOOLS)
    harness.scenario.ready, harness.scenario.runs = (lambda app: "judge" not in app), (lambda app: True)
    harness.until(lambda: harness.finished)
    assert 300 <= harness.clock.passed < 300 + RESYNC_SECONDS
    harness.rest()
    assert reason(harness, "GoGRun", "world") == "ServerFailed"
    assert "judge server did not become ready within 300 s" in message(harness, "GoGRun", "world")
    assert all(each in OVER for each in jobs(harness).values())
    assert list(harness.recorder.of(paths.INFERENCE_SERVICES)) == []


def test_a_policy_whose_settings_and_pods_are_deleted_is_served_again(create):
    harness = create(endpoints={"policy": {}}, **SHORT)
    harness.run_to_the_end()
    harness.remove(paths.CONFIG_MAPS.path(harness.namespace, "world-policy-version"))
    harness.remove(paths.SERVICES.path(harness.namespace, "world-policy-pods"))
    harness.remove(paths.DEPLOYMENTS.path(harness.namespace, "world-policy-predictor"))
    harness.until(lambda: reason(harness, "ToolServer", "world-policy", "Ready", "False"))
    harness.until(lambda: reason(harness, "ToolServer", "world-policy", "Ready"))
    assert harness.get("ToolServer", "world-policy")["status"]["version"] == "sft/10"


def test_a_name_too_long_for_its_children_s_names_is_refused_and_the_longest_possible_works(create):
    with pytest.raises(ApiError, match=r"metadata\.name should be at most"):
        create(name="w" * 60, **SHORT)
    harness = create(name="w" * 40, **SHORT)
    harness.run_to_the_end()
    assert harness.finished == "Complete"


def test_another_owner_s_object_with_a_child_s_name_is_reported_and_never_touched(create):
    harness = create(**SHORT)
    taken: list[str] = []

    def take(type_: str, body: dict[str, Any]) -> None:
        """Takes the name of the stage's first job as soon as the stage has a uid, from which it follows."""
        if type_ == "ADDED" and body["kind"] == "SFTStage" and not taken:
            taken.append(names.job("world-sft", 1, body["metadata"]["uid"]))
            head = {"name": taken[0], "namespace": harness.namespace}
            made = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": head, "data": {"mine": "yes"}}
            harness.recorder.call("POST", paths.CONFIG_MAPS.path(harness.namespace), body=made)

    harness.recorder.listeners.append(take)
    reported = reported_calmly(harness, "SFTStage", SFT, "NameTaken")
    assert f"ConfigMap {taken[0]} exists and is not world-sft's" in reported
    assert harness.recorder.objects[paths.CONFIG_MAPS.path(harness.namespace, taken[0])]["data"] == {"mine": "yes"}

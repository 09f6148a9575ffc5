"""What a manifest's lifecycle fields do, and what a run says of what it lacks, on a real API server.

Time is the play's own, so waits of minutes are played in no time; the clock's readings are part of the claims.
"""

from __future__ import annotations

import itertools

import pytest
from support.fault_harness import OVER, RESYNC, Theatre, condition, phase
from support.faulty_api import Request

from gog_operator.api.meta import CANCEL
from gog_operator.cluster import paths
from gog_operator.cluster.kube import Api, ApiError

pytestmark = pytest.mark.apiserver

SHORT = {"stages": {"skip": ["curate", "stratify", "grpo", "evaluate"]}}
NEEDS_TOOLS = {"stages": {"skip": ["curate", "sft", "stratify", "evaluate"]}}
NUMBERS = itertools.count(1)
SFT = "world-sft"


@pytest.fixture
def play(bare_api_server):
    """Begins a play of a run in a namespace of its own."""

    def begin(**spec) -> Theatre:
        return Theatre(str(bare_api_server.kubeconfig), f"life-{next(NUMBERS)}", **spec)

    return begin


def reason(theatre: Theatre, kind: str, name: str, type_: str = "Failed", status: str = "True") -> str:
    found = condition(theatre.get(kind, name), type_, status)
    return found["reason"] if found else ""


def message(theatre: Theatre, kind: str, name: str, type_: str = "Failed", status: str = "True") -> str:
    found = condition(theatre.get(kind, name), type_, status)
    return found["message"] if found else ""


def jobs(theatre: Theatre) -> dict[str, str]:
    """Phase of every Volcano Job, by name."""
    return {body["metadata"]["name"]: phase(body) for _, body in theatre.witness.of(paths.VOLCANO_JOBS)}


def running(theatre: Theatre, job: str):
    return lambda: phase(theatre.job(job) or {}) == "Running"


def run_path(theatre: Theatre) -> str:
    return paths.OURS["GoGRun"].path(theatre.namespace, theatre.name)


# -- lifecycle


def test_a_suspended_run_stops_its_job_and_servers_and_goes_on_with_a_new_attempt_that_is_no_failure(play):
    theatre = play(**NEEDS_TOOLS)
    theatre.play.outcome = lambda name: "" if name.endswith("-a1") else "Completed"
    theatre.play.step = lambda key: (
        {"step": 4, "complete": False} if jobs(theatre).keys() == {"world-grpo-a1"} else {"step": 9}
    )
    theatre.until(running(theatre, "world-grpo-a1"))
    theatre.edit(run_path(theatre), {"spec": {"suspend": True}})
    theatre.until(lambda: condition(theatre.run, "Suspended", "True"))
    theatre.rest()
    assert jobs(theatre) == {"world-grpo-a1": "Aborted"}
    assert list(theatre.witness.of(paths.INFERENCE_SERVICES)) == []
    assert "suspended at checkpoint grpo/4" in message(theatre, "GRPOStage", "world-grpo", "Suspended")
    theatre.edit(run_path(theatre), {"spec": {"suspend": False}})
    theatre.to_the_end()
    assert theatre.finished == "Complete" and condition(theatre.run, "Suspended", "False")
    assert jobs(theatre) == {"world-grpo-a1": "Aborted", "world-grpo-a2": "Completed"}
    assert "failures" not in theatre.get("GRPOStage", "world-grpo")["status"]


def test_a_cancelled_run_ends_its_job_first_and_has_failed_then(play):
    theatre = play(**NEEDS_TOOLS)
    theatre.play.outcome = lambda name: ""
    theatre.play.step = lambda key: {"step": 4, "complete": False}
    theatre.until(running(theatre, "world-grpo-a1"))
    theatre.edit(run_path(theatre), {"metadata": {"annotations": {CANCEL: "enough"}}})
    live: list[str] = []
    theatre.witness.listeners.append(
        lambda type_, body: live.extend(
            each for each in jobs(theatre).values() if theatre.finished and each not in OVER
        )
    )
    theatre.to_the_end()
    assert live == []
    assert reason(theatre, "GoGRun", "world") == reason(theatre, "GRPOStage", "world-grpo") == "Cancelled"
    assert jobs(theatre) == {"world-grpo-a1": "Aborted"} and list(theatre.witness.of(paths.INFERENCE_SERVICES)) == []


def test_attempts_that_fail_are_tried_again_after_growing_waits_as_often_as_the_backoff_limit_says(play):
    theatre = play(backoffLimit=2, **SHORT)
    begun: list[float] = []
    theatre.witness.listeners.append(
        lambda type_, body: (
            begun.append(theatre.clock.passed)
            if type_ == "ADDED" and body["apiVersion"].startswith("batch.volcano")
            else None
        )
    )
    theatre.play.outcome = lambda name: "Failed"
    theatre.play.step = lambda key: {"step": 1, "complete": key != "sft"}
    theatre.to_the_end()
    assert (
        reason(theatre, "SFTStage", SFT) == "BackoffLimitExceeded"
        and reason(theatre, "GoGRun", "world") == "StageFailed"
    )
    assert message(theatre, "GoGRun", "world") == "sft: attempt 3 failed: exit 1: boom"
    assert jobs(theatre) == dict.fromkeys(("world-sft-a1", "world-sft-a2", "world-sft-a3"), "Failed")
    waits = [later - earlier for earlier, later in itertools.pairwise(begun)]
    assert waits[0] >= 2 and waits[1] >= 4 and max(waits) < RESYNC


def test_input_that_is_refused_is_not_tried_again(play):
    theatre = play(**SHORT)
    theatre.play.outcome = lambda name: "Failed"
    theatre.play.pod = lambda name: {"exitCode": 2, "reason": "Error", "message": "gog: no such dataset"}
    theatre.play.step = lambda key: {} if key == "sft" else {"step": 1}
    theatre.to_the_end()
    assert reason(theatre, "SFTStage", SFT) == "InvalidInput" and "no such dataset" in message(
        theatre, "GoGRun", "world"
    )
    assert list(jobs(theatre)) == ["world-sft-a1"]


def test_an_attempt_that_takes_longer_than_its_deadline_is_ended_and_counts_as_failed(play):
    theatre = play(backoffLimit=0, activeDeadlineSeconds=90, **SHORT)
    theatre.play.outcome = lambda name: ""
    theatre.play.step = lambda key: {"step": 1, "complete": key != "sft"}
    theatre.to_the_end()
    assert message(theatre, "SFTStage", SFT) == "attempt 1 failed: ran longer than activeDeadlineSeconds: 90"
    assert jobs(theatre) == {"world-sft-a1": "Aborted"} and theatre.clock.passed >= 90


def test_a_finished_run_goes_with_all_that_is_its_when_its_time_to_live_is_over(play):
    theatre = play(ttlSecondsAfterFinished=600, **SHORT)
    theatre.until(lambda: theatre.finished)
    ended = theatre.clock.passed
    theatre.until(lambda: not theatre.run)
    theatre.rest()
    assert theatre.clock.passed - ended >= 600 and theatre.state() == {}


def test_a_run_that_another_controller_manages_is_left_alone(play):
    theatre = play(managedBy="kueue.x-k8s.io/multikueue", **SHORT)
    theatre.rest()
    assert list(theatre.state()) == ["gogruns.gog.dev/world"] and "status" not in theatre.run
    assert all(each.startswith("GET") for each in theatre.faulty.calls)


def test_arms_repeat_the_later_stages_from_the_same_earlier_ones(play):
    arms = [{"name": "blind", "set": {"stages.grpo.gaze": "off", "stages.evaluate.gaze": "off"}}]
    theatre = play(arms=arms, stages={"skip": ["curate", "stratify"]})
    theatre.to_the_end()
    assert theatre.finished == "Complete"
    names = ("sft", "grpo", "evaluate", "grpo-blind", "evaluate-blind")
    assert jobs(theatre) == {f"world-{each}-a1": "Completed" for each in names}
    starts = [theatre.get("GRPOStage", name)["spec"]["inputs"]["sft"] for name in ("world-grpo", "world-grpo-blind")]
    assert starts == ["sft/10", "sft/10"]


# -- what is missing, and who says so


class Refusing:
    """A fault that answers one kind of request with an error while it lasts."""

    def __init__(self, theatre: Theatre, method: str, resource: paths.Resource, error: ApiError) -> None:
        self.theatre, self.wanted, self.error, self.lasts = theatre, (method, resource), error, True

    def __call__(self, number: int, request: Request):
        method, path = self.theatre.faulty.calls[-1].split(" ", 1)
        if self.lasts and (method, paths.resource_of(path)) == self.wanted:
            raise self.error
        return request()


def is_said_calmly(theatre: Theatre, kind: str, name: str, expected: str) -> str:
    """The message of the Ready condition, once its reason is the expected one; said for ten minutes without haste."""
    theatre.until(lambda: reason(theatre, kind, name, "Ready", "False") == expected)
    writes, calls, begun = theatre.witness.writes, len(theatre.faulty.calls), theatre.clock.passed
    for _ in range(200):
        if theatre.clock.passed - begun >= 600:
            break
        theatre.round()
        theatre.clock.passed = max(theatre.life.wakes(), theatre.clock.passed)
    assert theatre.clock.passed - begun >= 600, "looks again and again"
    assert theatre.witness.writes - writes <= 2, "writes though nothing changes"
    assert (len(theatre.faulty.calls) - calls) / 600 < 5, "asks too often"
    assert reason(theatre, kind, name, "Ready", "False") == expected
    return message(theatre, kind, name, "Ready", "False")


NO_QUEUE = (
    'admission webhook "validatejob.volcano.sh" denied the request: '
    ' unable to find job queue: queue.scheduling.volcano.sh "nowhere" not found;'
)


def test_a_queue_that_is_missing_is_said_and_once_it_is_there_the_run_goes_on(play):
    theatre = play(scheduling={"queue": "nowhere"}, **SHORT)
    refusing = Refusing(theatre, "POST", paths.VOLCANO_JOBS, ApiError(400, "", NO_QUEUE))
    theatre.faulty.fault = refusing
    assert 'queue.scheduling.volcano.sh "nowhere" not found' in is_said_calmly(theatre, "SFTStage", SFT, "QueueMissing")
    refusing.lasts = False
    theatre.to_the_end()
    assert theatre.finished == "Complete" and jobs(theatre) == {"world-sft-a1": "Completed"}


class Elsewhere:
    """The real server's answer for a product whose resources it does not know."""

    def __init__(self, api: Api, group: str) -> None:
        self.api, self.group, self.lasts = api, group, True

    def call(self, method, path, **more):
        if self.lasts:
            path = path.replace(f"/apis/{self.group}/", f"/apis/missing.{self.group}/")
        return self.api.call(method, path, **more)


@pytest.mark.parametrize(
    ("group", "kind", "name", "product"),
    [
        ("batch.volcano.sh", "SFTStage", SFT, "Volcano"),
        ("serving.kserve.io", "Endpoint", "world-judge", "KServe"),
    ],
)
def test_a_product_that_is_not_installed_is_said_and_once_it_is_the_run_goes_on(play, group, kind, name, product):
    theatre = play(**(SHORT if kind == "SFTStage" else NEEDS_TOOLS))
    theatre.faulty.api = elsewhere = Elsewhere(theatre.witness, group)
    assert is_said_calmly(theatre, kind, name, "CustomResourceMissing").startswith(f"{product} is not installed")
    elsewhere.lasts = False
    theatre.to_the_end()
    assert theatre.finished == "Complete"


def test_a_pod_whose_secret_is_missing_says_so_of_its_stage_and_goes_on_when_it_is_there(play):
    theatre = play(**SHORT)
    theatre.play.starts = lambda name: {"reason": "CreateContainerConfigError", "message": 'secret "s3" not found'}
    assert 'secret "s3" not found' in is_said_calmly(theatre, "SFTStage", SFT, "SecretMissing")
    theatre.play.starts = lambda name: {}
    theatre.to_the_end()
    assert theatre.finished == "Complete" and jobs(theatre) == {"world-sft-a1": "Completed"}


def test_a_bucket_that_may_not_be_written_ends_the_run_with_the_movers_sentence(play):
    theatre = play(**SHORT)
    told = "gog: s3://bucket/world: AccessDenied (give the Secret's key s3:PutObject there)"
    theatre.play.mover = lambda name: {"exitCode": 2, "message": told} if name.endswith("-data") else {}
    theatre.to_the_end()
    assert reason(theatre, "GoGRun", "world") == "DataFailed" and told in message(theatre, "GoGRun", "world")
    assert jobs(theatre) == {}


def test_a_store_that_may_not_be_read_ends_the_run_before_anything_starts(play):
    theatre = play(**SHORT)
    told = "gog: s3://bucket/world: AccessDenied (give the Secret's key s3:GetObject there)"
    theatre.play.mover = lambda name: {"exitCode": 2, "message": told} if name == "world-check" else {}
    theatre.to_the_end()
    assert reason(theatre, "GoGRun", "world") == "StoreFailed" and told in message(theatre, "GoGRun", "world")
    assert jobs(theatre) == {}


def test_a_server_that_never_gets_ready_fails_the_run_after_its_time_and_leaves_nothing_running(play):
    theatre = play(endpoints={"judge": {"startupSeconds": 300}}, **NEEDS_TOOLS)
    theatre.play.ready = lambda app: "judge" not in app
    theatre.until(lambda: theatre.finished)
    assert 300 <= theatre.clock.passed < 300 + RESYNC
    theatre.rest()
    assert reason(theatre, "GoGRun", "world") == "ServerFailed"
    assert "judge server did not answer within 300 s" in message(theatre, "GoGRun", "world")
    assert all(each in OVER for each in jobs(theatre).values())
    assert list(theatre.witness.of(paths.INFERENCE_SERVICES)) == []


def test_a_policy_whose_settings_and_pods_others_delete_is_served_again(play):
    theatre = play(endpoints={"policy": {}}, **SHORT)
    theatre.to_the_end()
    theatre.remove(paths.CONFIG_MAPS.path(theatre.namespace, "world-policy-version"))
    theatre.remove(paths.SERVICES.path(theatre.namespace, "world-policy-pods"))
    theatre.remove(paths.DEPLOYMENTS.path(theatre.namespace, "world-policy-predictor"))
    theatre.until(lambda: reason(theatre, "Endpoint", "world-policy", "Ready", "False"))
    theatre.until(lambda: reason(theatre, "Endpoint", "world-policy", "Ready"))
    assert theatre.get("Endpoint", "world-policy")["status"]["version"] == "sft/10"


def test_a_name_that_children_cannot_be_named_after_is_refused_and_the_longest_one_works(play):
    with pytest.raises(ApiError, match=r"metadata\.name should be at most"):
        play(name="w" * 60, **SHORT)
    theatre = play(name="w" * 40, **SHORT)
    theatre.to_the_end()
    assert theatre.finished == "Complete"


def test_a_neighbours_object_of_a_childs_name_is_named_and_never_touched(play):
    theatre = play(**SHORT)
    name = "world-sft-a1"
    body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": theatre.namespace}}
    theatre.witness.call("POST", paths.CONFIG_MAPS.path(theatre.namespace), body={**body, "data": {"mine": "yes"}})
    told = is_said_calmly(theatre, "SFTStage", SFT, "NameTaken")
    assert f"ConfigMap {name} exists and is not world-sft's" in told
    assert theatre.witness.objects[paths.CONFIG_MAPS.path(theatre.namespace, name)]["data"] == {"mine": "yes"}

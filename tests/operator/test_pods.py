"""How pods ended and why they do not start, as messages for people."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from gog_operator.api.meta import Reason
from gog_operator.cluster import pods

JOB = "world-grpo-a2"


def pod(name: str = "trainer-0", **status: Any) -> dict[str, Any]:
    return {"metadata": {"name": f"{JOB}-{name}-0"}, "status": status}


def container(restarts: int = 0, last: dict[str, Any] | None = None, **state: Any) -> dict[str, Any]:
    return {
        "image": "example.org/gog:1",
        "ready": False,
        "restartCount": restarts,
        "state": state,
        "lastState": last or {},
    }


def ended(code: int, at: str = "10:00", message: str = "", reason: str = "Error") -> dict[str, Any]:
    return container(terminated={"exitCode": code, "finishedAt": at, "message": message, "reason": reason})


def waiting(reason: str, message: str = "") -> dict[str, Any]:
    return container(waiting={"reason": reason, "message": message})


@pytest.mark.parametrize("code", [143, 130])
def test_the_pod_that_ended_by_itself_is_the_cause_whenever_its_peers_died(code):
    peers = [
        pod("trainer-1", containerStatuses=[ended(code, "10:00")]),
        pod("trainer-0", containerStatuses=[ended(1, "10:01", "Traceback\nValueError: no such column")]),
    ]
    ending = pods.ending(peers, JOB)
    assert (ending.exit_code, ending.lines[-1], ending.cause) == (1, "ValueError: no such column", "")


def test_the_first_of_several_failures_is_the_cause():
    several = [
        pod("trainer-0", containerStatuses=[ended(1, "10:02", "connection reset by peer")]),
        pod("trainer-1", containerStatuses=[ended(3, "10:01", "disk full")]),
    ]
    assert pods.ending(several, JOB).lines == ("disk full",)


def test_a_pod_that_ran_out_of_memory_is_named():
    ending = pods.ending([pod(containerStatuses=[ended(137, reason="OOMKilled")])], JOB)
    assert (ending.exit_code, ending.cause) == (-9, "pod trainer-0 OOMKilled")


def test_an_eviction_is_reported_with_its_reason():
    for status in (
        {"phase": "Failed", "reason": "Evicted", "message": "node was low on memory"},
        {"conditions": [{"type": "DisruptionTarget", "status": "True", "message": "node was low on memory"}]},
    ):
        ending = pods.ending([pod("trainer-1", containerStatuses=[ended(137)], **status)], JOB)
        assert ending.cause == "pod trainer-1 evicted (node was low on memory)"


@pytest.mark.parametrize(
    ("reason", "outside"),
    [("PreemptionByScheduler", True), ("DeletionByTaintManager", True), ("TerminationByKubelet", False)],
)
def test_a_pod_that_its_node_evicted_does_not_count_as_disrupted(reason, outside):
    target = {"type": "DisruptionTarget", "status": "True", "reason": reason}
    ending = pods.ending([pod("trainer-1", containerStatuses=[ended(137)], conditions=[target])], JOB)
    assert ending.disrupted is outside


def test_a_pod_that_failed_before_its_container_started_is_reported():
    ending = pods.ending([pod(phase="Failed", reason="UnexpectedAdmissionError", message="no GPU is healthy")], JOB)
    assert (ending.exit_code, ending.cause) == (None, "pod trainer-0 no GPU is healthy")


def test_without_pods_there_is_no_cause():
    assert pods.ending([], JOB) == pods.Ending()


def test_an_image_that_cannot_be_pulled_is_named():
    for reason in ("ErrImagePull", "ImagePullBackOff", "InvalidImageName"):
        blocked = pods.blocked([pod(containerStatuses=[waiting(reason, "not found")])], JOB)
        assert blocked is not None and blocked.reason == Reason.IMAGE_MISSING
        assert blocked.message == "pod trainer-0: image example.org/gog:1 cannot be pulled: not found"


def test_a_missing_secret_is_named():
    blocked = pods.blocked(
        [pod(containerStatuses=[waiting("CreateContainerConfigError", 'secret "s3" not found')])], JOB
    )
    assert blocked is not None and blocked.reason == Reason.SECRET_MISSING
    assert 'secret "s3" not found' in blocked.message


def test_an_unschedulable_pod_is_reported_with_the_scheduler_s_message():
    blocked = pods.blocked([pod(conditions=[{"type": "PodScheduled", "status": "False", "message": "0/3 nodes"}])], JOB)
    assert blocked is not None and (blocked.reason, blocked.message) == (
        Reason.UNSCHEDULABLE,
        "pod trainer-0: 0/3 nodes",
    )


def test_a_pod_that_is_just_slow_is_not_blocked():
    assert pods.blocked([pod(containerStatuses=[waiting("ContainerCreating")]), pod(phase="Pending")], JOB) is None


def test_a_server_has_exited_after_three_crashes_and_at_once_when_it_refuses_its_input():
    last = {"terminated": {"exitCode": 1, "message": "boom"}}
    backoff = {"waiting": {"reason": "CrashLoopBackOff"}}
    assert pods.crash([pod(containerStatuses=[container(2, last, **backoff)])], 3) is None
    crash = pods.crash([pod(containerStatuses=[container(3, last, **backoff)])], 3)
    assert crash is not None and (crash.exit_code, crash.lines) == (1, ("boom",))
    assert pods.crash([pod(containerStatuses=[ended(2)])], 3) is not None


def test_a_server_that_recovered_has_not_exited():
    well = container(5, {"terminated": {"exitCode": 1}}, running={}) | {"ready": True}
    assert pods.crash([pod(containerStatuses=[well])], 3) is None


def test_the_message_of_a_retried_job_is_the_successful_pod_s():
    tries = [
        pod(containerStatuses=[ended(1, "10:00", "network")]),
        pod(containerStatuses=[ended(0, "10:05", '{"dataset": "data/1"}')]),
    ]
    assert pods.message(tries) == '{"dataset": "data/1"}'
    assert pods.message(tries[:1]) is None


def test_a_pod_whose_init_container_fetches_a_base_model_does_not_run_yet():
    """Deadlines count from the first running pod; a large base takes longer than any server takes to start."""
    fetching = {"initContainerStatuses": [container(running={"startedAt": "2026-03-14T09:00:00Z"})]}
    pending = pod(**fetching, containerStatuses=[waiting("PodInitializing")])
    assert not pods.started([pending]) and pods.first_start([pending]) is None
    running = pod(**fetching, containerStatuses=[container(running={"startedAt": "2026-03-14T10:00:00Z"})])
    assert pods.started([running]) and pods.first_start([running]) == datetime(2026, 3, 14, 10, tzinfo=UTC)


TAG = f"registry.example/gog-trainer@sha256:{'a' * 64}"
OTHER = f"registry.example/other@sha256:{'b' * 64}"


@pytest.mark.parametrize(
    ("main", "beside"), [("trainer-3", "istio-proxy"), ("kserve-container", "adapters")], ids=["a mesh", "gog's own"]
)
def test_the_image_of_a_container_beside_the_main_one_is_none_of_the_pod_s(main, beside):
    """Otherwise every policy with a receiver of adapters would seem to run different images."""
    statuses = [container() | {"name": beside, "imageID": OTHER}, container() | {"name": main, "imageID": TAG}]
    assert pods.images([pod(containerStatuses=statuses)]) == (TAG,)
    assert pods.all_report([pod(containerStatuses=statuses)], 1)
    assert not pods.all_report([pod(containerStatuses=statuses[:1])], 1)

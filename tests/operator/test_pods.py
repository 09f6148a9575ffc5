"""How pods ended and why they do not start, as a person is told."""

from __future__ import annotations

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


def test_the_pod_that_ended_of_itself_is_the_cause_however_late_its_peers_died():
    peers = [
        pod("trainer-1", containerStatuses=[ended(143, "10:00")]),
        pod("trainer-0", containerStatuses=[ended(1, "10:01", "Traceback\nValueError: no such column")]),
    ]
    told = pods.ending(peers, JOB)
    assert (told.exit_code, told.lines[-1], told.cause) == (1, "ValueError: no such column", "")


def test_the_first_of_several_failures_is_the_cause():
    several = [
        pod("trainer-0", containerStatuses=[ended(1, "10:02", "connection reset by peer")]),
        pod("trainer-1", containerStatuses=[ended(3, "10:01", "disk full")]),
    ]
    assert pods.ending(several, JOB).lines == ("disk full",)


def test_want_of_memory_is_said_of_the_pod():
    told = pods.ending([pod(containerStatuses=[ended(137, reason="OOMKilled")])], JOB)
    assert (told.exit_code, told.cause) == (-9, "pod trainer-0 OOMKilled")


def test_an_eviction_is_said_with_its_reason():
    for status in (
        {"phase": "Failed", "reason": "Evicted", "message": "node was low on memory"},
        {"conditions": [{"type": "DisruptionTarget", "status": "True", "message": "node was low on memory"}]},
    ):
        told = pods.ending([pod("trainer-1", containerStatuses=[ended(137)], **status)], JOB)
        assert told.cause == "pod trainer-1 evicted (node was low on memory)"


@pytest.mark.parametrize(
    ("reason", "outside"),
    [("PreemptionByScheduler", True), ("DeletionByTaintManager", True), ("TerminationByKubelet", False)],
)
def test_what_was_ended_for_another_s_sake_is_told_from_what_its_node_could_not_bear(reason, outside):
    target = {"type": "DisruptionTarget", "status": "True", "reason": reason}
    told = pods.ending([pod("trainer-1", containerStatuses=[ended(137)], conditions=[target])], JOB)
    assert told.disrupted is outside


def test_a_pod_that_failed_before_its_container_began_is_told():
    told = pods.ending([pod(phase="Failed", reason="UnexpectedAdmissionError", message="no GPU is healthy")], JOB)
    assert (told.exit_code, told.cause) == (None, "pod trainer-0 no GPU is healthy")


def test_no_pods_no_words():
    assert pods.ending([], JOB) == pods.Ending()


def test_an_image_that_cannot_be_had_is_named():
    for reason in ("ErrImagePull", "ImagePullBackOff", "InvalidImageName"):
        told = pods.blocked([pod(containerStatuses=[waiting(reason, "not found")])], JOB)
        assert told is not None and told.reason == Reason.IMAGE_MISSING
        assert told.message == "pod trainer-0: image example.org/gog:1 cannot be pulled: not found"


def test_a_secret_that_is_missing_is_named():
    told = pods.blocked([pod(containerStatuses=[waiting("CreateContainerConfigError", 'secret "s3" not found')])], JOB)
    assert told is not None and told.reason == Reason.SECRET_MISSING
    assert 'secret "s3" not found' in told.message


def test_a_pod_that_fits_nowhere_is_told_with_the_schedulers_sentence():
    told = pods.blocked([pod(conditions=[{"type": "PodScheduled", "status": "False", "message": "0/3 nodes"}])], JOB)
    assert told is not None and (told.reason, told.message) == (Reason.UNSCHEDULABLE, "pod trainer-0: 0/3 nodes")


def test_a_pod_that_just_takes_its_time_is_no_trouble():
    assert pods.blocked([pod(containerStatuses=[waiting("ContainerCreating")]), pod(phase="Pending")], JOB) is None


def test_a_server_has_exited_after_three_crashes_and_at_once_when_it_refuses_its_input():
    last = {"terminated": {"exitCode": 1, "message": "boom"}}
    backoff = {"waiting": {"reason": "CrashLoopBackOff"}}
    assert pods.crash([pod(containerStatuses=[container(2, last, **backoff)])], 3) is None
    told = pods.crash([pod(containerStatuses=[container(3, last, **backoff)])], 3)
    assert told is not None and (told.exit_code, told.lines) == (1, ("boom",))
    assert pods.crash([pod(containerStatuses=[ended(2)])], 3) is not None


def test_a_server_that_recovered_has_not_exited():
    well = container(5, {"terminated": {"exitCode": 1}}, running={}) | {"ready": True}
    assert pods.crash([pod(containerStatuses=[well])], 3) is None


def test_the_last_word_of_a_job_that_was_tried_twice_is_the_successful_ones():
    tries = [
        pod(containerStatuses=[ended(1, "10:00", "network")]),
        pod(containerStatuses=[ended(0, "10:05", '{"dataset": "data/1"}')]),
    ]
    assert pods.message(tries) == '{"dataset": "data/1"}'
    assert pods.message(tries[:1]) is None

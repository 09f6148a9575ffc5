"""Why the job of an attempt does not start, in the cluster's own words: queued, refused, or without a node."""

from __future__ import annotations

from typing import Any

import pytest
import support.operator_golden as golden
from support.memory_api import MemoryApi

from gog_operator.api.meta import Reason
from gog_operator.build import volcano as build
from gog_operator.cluster import paths, volcano
from gog_operator.cluster.api_errors import TranslatedApi

STAGE = golden.stage()
JOB = build.job(STAGE, golden.PLATFORM)
UID = "uid-of-the-job"
QUOTA = "Error creating pods: [failed to create pod world-grpo-a1-trainer-0-0, err: exceeded quota: gpus]"
GANG = "2/0 tasks in gang unschedulable: pod group is not ready, 2 minAvailable"
NODES = "0/12 nodes are available: 12 Insufficient nvidia.com/gpu."


def view(*others: tuple[paths.Resource, dict[str, Any]]) -> Any:
    """The view of a pending job, beside other objects of the namespace."""
    api = MemoryApi()
    api.put(paths.VOLCANO_JOBS, {**JOB, "metadata": {**JOB["metadata"], "uid": UID}, "status": {}})
    api.put(paths.CONFIG_MAPS, {"metadata": head(STAGE.job_name)})
    for resource, body in others:
        api.put(resource, body)
    return volcano.VolcanoJobs(TranslatedApi(api), "research", golden.PLATFORM).view(STAGE)


def head(name: str, **labels: str) -> dict[str, Any]:
    return {"name": name, "namespace": "research", "labels": labels}


def group(**status: Any) -> tuple[paths.Resource, dict[str, Any]]:
    return paths.POD_GROUPS, {"metadata": head(f"{STAGE.job_name}-{UID}"), "status": status}


def event(reason: str, message: str) -> tuple[paths.Resource, dict[str, Any]]:
    return paths.EVENTS, {"metadata": head(f"e-{reason.lower()}"), "reason": reason, "message": message}


def pod(**status: Any) -> tuple[paths.Resource, dict[str, Any]]:
    named = head(f"{STAGE.job_name}-trainer-0-0", **{"volcano.sh/job-name": STAGE.job_name})
    return paths.PODS, {"metadata": named, "status": status}


UNSCHEDULABLE = {"type": "Unschedulable", "status": "True", "message": GANG}
NO_NODE = {"type": "PodScheduled", "status": "False", "message": NODES}
FAILED = event("FailedCreate", QUOTA)


@pytest.mark.parametrize(
    ("others", "reason", "message"),
    [
        ([group(phase="Pending")], Reason.QUEUED, "queue default has not admitted the job"),
        ([group(phase="Inqueue", conditions=[UNSCHEDULABLE])], Reason.QUEUED, f"queue default: {GANG}"),
        ([pod(conditions=[NO_NODE])], Reason.QUEUED, f"queue default: pod trainer-0: {NODES}"),
        ([], Reason.QUEUED, "queue default: the job has no pods yet"),
        ([group(phase="Inqueue")], Reason.QUEUED, "queue default: the job has no pods yet"),
        ([group(phase="Inqueue"), event("Scheduled", "")], Reason.QUEUED, "queue default: the job has no pods yet"),
        ([group(phase="Inqueue"), FAILED], Reason.REFUSED, QUOTA),
        ([group(phase="Pending"), FAILED], Reason.QUEUED, "queue default has not admitted the job"),
    ],
)
def test_a_job_that_waits_says_for_what_and_never_that_it_runs(others, reason, message):
    found = view(*others)
    assert (found.state, found.started) == ("running", False)
    assert found.blocked is not None and (found.blocked.reason, found.blocked.message) == (reason, message)


def test_a_pod_that_pulls_its_image_is_not_queued():
    assert view(pod(phase="Pending", conditions=[NO_NODE | {"status": "True"}])).blocked is None


def test_an_event_about_a_thousand_pods_is_cut():
    found = view(group(phase="Inqueue"), event("FailedCreate", "x" * 100_000))
    assert len(found.blocked.message) == volcano.MAX_MESSAGE

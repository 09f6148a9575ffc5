"""Why the volumes of pods cannot be mounted, which the status of a pod does not say."""

from __future__ import annotations

from typing import Any

import pytest

from gog_operator.api.meta import Reason
from gog_operator.cluster import mounts
from gog_operator.cluster.api_errors import TranslatedApi
from gog_operator.cluster.kube import Api

MISSING = 'MountVolume.SetUp failed for volume "gog-store" : secret "s3" not found'


class Events(Api):
    """A server with the events of one pod."""

    def __init__(self, *messages: str) -> None:
        self.messages, self.queries = messages, []

    def send(self, request):
        self.queries.append(request.query)
        return {"items": [{"message": each} for each in self.messages]}


def pod(reason: str = "ContainerCreating") -> dict[str, Any]:
    state = {"waiting": {"reason": reason}} if reason else {"running": {}}
    return {
        "metadata": {"name": "world-a1-trainer-0-0", "uid": "u"},
        "status": {"containerStatuses": [{"state": state}]},
    }


def blocked(api: Api, *pods: dict[str, Any]):
    return mounts.blocked(TranslatedApi(api), "research", pods, "world-a1")


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (MISSING, Reason.SECRET_MISSING),
        ('MountVolume.SetUp failed for volume "gog-ca" : configmap "company-ca" not found', Reason.PENDING),
    ],
)
def test_a_volume_that_cannot_be_mounted_is_named_with_its_pod(message, reason):
    api = Events(message)
    found = blocked(api, pod(""), pod())
    assert (found.reason, found.message) == (reason, f"pod trainer-0: {message}")
    assert api.queries[0]["fieldSelector"] == "involvedObject.uid=u,reason=FailedMount"


@pytest.mark.parametrize("reason", ["", "ImagePullBackOff"])
def test_no_event_is_requested_for_pods_that_do_not_wait_for_volumes(reason):
    api = Events(MISSING)
    assert blocked(api, pod(reason)) is None and api.queries == []


def test_a_pod_that_is_only_slow_is_not_blocked():
    assert blocked(Events(), pod()) is None

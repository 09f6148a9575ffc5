"""What the operator counts of its own work. Names and meanings are in `gog.metrics`."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from gog import metrics
from gog_operator import object_metrics
from gog_operator.api.objects import Object
from gog_operator.cluster.kube import Api, ApiError
from gog_operator.cluster.remote import RemoteCluster
from gog_operator.plan.actions import Event

REGISTRY = metrics.OPERATOR.registry
metrics.initialise_control()


class Counted:
    """An Api whose requests are counted."""

    def __init__(self, api: Api) -> None:
        self.api = api

    def call(
        self,
        method: str,
        path: str,
        *,
        body: Mapping[str, Any] | None = None,
        query: Mapping[str, str] | None = None,
        content: str = "application/json",
    ) -> dict[str, Any]:
        try:
            answer = self.api.call(method, path, body=body, query=query, content=content)
        except ApiError as error:
            metrics.record_api_request(method, error.status)
            raise
        metrics.record_api_request(method, 200)
        return answer


class Watched(RemoteCluster):
    """A namespace whose ended attempts are counted, by the events that tell of them."""

    def record(self, thing: Object, event: Event, now: datetime) -> None:
        super().record(thing, event, now)
        object_metrics.note(thing, event)

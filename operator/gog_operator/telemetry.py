"""Records metrics of the operator's own work, which `gog.metrics` defines."""

from __future__ import annotations

from datetime import datetime

from gog import metrics
from gog_operator import object_metrics
from gog_operator.api.objects import Object
from gog_operator.cluster.kube import Api, ApiError, Document, Request
from gog_operator.cluster.remote import RemoteCluster
from gog_operator.plan.actions import Event

metrics.initialise_control()


class CountedApi(Api):
    """An Api whose requests are counted."""

    def __init__(self, api: Api) -> None:
        self.api = api

    def send(self, request: Request) -> Document:
        try:
            answer = self.api.send(request)
        except ApiError as error:
            metrics.record_api_request(request.method, error.status)
            raise
        metrics.record_api_request(request.method, 200)
        return answer


class CountedCluster(RemoteCluster):
    """A namespace whose finished attempts are counted from their events."""

    def record(self, thing: Object, event: Event, now: datetime) -> None:
        super().record(thing, event, now)
        object_metrics.record_attempt(thing, event)

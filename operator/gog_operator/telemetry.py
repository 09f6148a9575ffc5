"""The operator's own metrics, in one place: names, units, labels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from gog_operator.cluster.kube import Api, ApiError

REGISTRY = CollectorRegistry()
OUTCOMES = ("ok", "unavailable", "unreadable", "error")
SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)

PASSES = Histogram(
    "gog_operator_reconcile_duration_seconds",
    "Passes over one object, by kind.",
    ("kind",),
    buckets=SECONDS,
    registry=REGISTRY,
)
OUTCOME = Counter("gog_operator_reconciles", "Passes, by outcome.", ("outcome",), registry=REGISTRY)
DEPTH = Gauge("gog_operator_queue_depth", "Objects that wait for a pass and are due.", registry=REGISTRY)
AGE = Gauge("gog_operator_queue_age_seconds", "How long the oldest of them has been due.", registry=REGISTRY)
WORKING = Gauge("gog_operator_working", "Passes under way.", registry=REGISTRY)
REQUESTS = Counter(
    "gog_operator_api_requests",
    "Requests to the API server, by method and status.",
    ("method", "code"),
    registry=REGISTRY,
)
RESYNC = Gauge("gog_operator_last_resync_timestamp_seconds", "When everything was last listed.", registry=REGISTRY)
RESYNC_SECONDS = Gauge("gog_operator_resync_duration_seconds", "How long that took.", registry=REGISTRY)
OBJECTS = Gauge("gog_operator_objects", "Objects listed then, by kind.", ("kind",), registry=REGISTRY)
LEADER = Gauge("gog_operator_leader", "1 while this operator holds the lease.", registry=REGISTRY)

for _outcome in OUTCOMES:
    OUTCOME.labels(_outcome)


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
            REQUESTS.labels(method, str(error.status)).inc()
            raise
        REQUESTS.labels(method, "200").inc()
        return answer

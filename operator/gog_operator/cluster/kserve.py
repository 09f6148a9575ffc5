"""KServe InferenceServices of Endpoints: applied, observed, deleted.

KServe reports Ready during a rollout, and its observed generation does not cover the rollout. A server therefore counts
as ready when KServe reports Ready *and* its Deployment has rolled out the current spec to every pod. A server whose
container keeps crashing counts as exited, a state that a Deployment does not have; a restart creates new pods.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from gog import spec as settings
from gog_operator.api import names
from gog_operator.api.meta import Reason
from gog_operator.api.objects import Endpoint
from gog_operator.build import inference
from gog_operator.build.platform import Platform
from gog_operator.cluster import documents, paths, pods
from gog_operator.cluster.api_errors import TranslatedApi
from gog_operator.cluster.creation import check_owner
from gog_operator.cluster.interface import Unavailable
from gog_operator.cluster.kube import items
from gog_operator.plan.actions import Blocked, ServerView

CRASHES = 3
"""Container restarts after which a server counts as exited."""
RESTARTED = "gog.dev/restarted-at"
"""Annotation whose new value creates new pods."""

Document = Mapping[str, Any]


class KServeServers:
    def __init__(self, api: TranslatedApi, namespace: str, platform: Platform) -> None:
        self.api, self.namespace, self.platform = api, namespace, platform

    def view(self, endpoint: Endpoint, data: settings.DataSpec | None) -> ServerView | None:
        """The server as Kubernetes reports it, without the version that a policy's pods serve."""
        live = self._find(endpoint.name)
        if live is None or documents.terminating(live) or not documents.owned(live, endpoint.metadata.uid):
            return None
        deployment = self.api.find(paths.DEPLOYMENTS.path(self.namespace, f"{live['metadata']['name']}-predictor"))
        facts: dict[str, Any] = {
            "url": str(live.get("status", {}).get("address", {}).get("url") or ""),
            "started": since(live, deployment),
            "was_ready": bool(endpoint.status.url),
            "replicas": (deployment or {}).get("status", {}).get("replicas", 0),
            "selector": selector(live["metadata"]["name"]),
            "current": inference.current(dict(live), inference.service(endpoint, self.platform, data)),
        }
        if endpoint.spec.replicas == 0:
            return ServerView("starting", **facts | {"started": None}, blocked=Blocked(Reason.PENDING, "0 replicas"))
        if facts["url"] and holds(live, "Ready") and rolled_out(deployment):
            return ServerView("ready", **facts | {"was_ready": True})
        found = self.pods(live["metadata"]["name"])
        ran = pods.first_start(found)
        facts["started"] = max(filter(None, (facts["started"], ran)), default=None) if ran is not None else None
        crash = pods.crash(found, CRASHES)
        if crash is not None:
            lines = (crash.cause, *crash.lines) if crash.cause else crash.lines
            return ServerView("exited", **facts, exit_code=crash.exit_code, lines=lines)
        facts["current"] = facts["current"] and self._prepared(endpoint)
        return ServerView("starting", **facts, blocked=pods.blocked(found) or _refusal(deployment))

    def start(self, endpoint: Endpoint, data: settings.DataSpec | None, now: datetime) -> None:
        """Applies the InferenceService; a server that has exited gets new pods. Raises Refused, Unavailable."""
        live = self._find(endpoint.name)
        wanted = inference.service(endpoint, self.platform, data)
        if live is not None:
            if documents.terminating(live):
                raise Unavailable(f"InferenceService {live['metadata']['name']} is being deleted", after=1.0)
            check_owner(live, endpoint)
            annotation = self._restart(live, now)
            if annotation:
                wanted["metadata"]["annotations"][RESTARTED] = annotation
        if endpoint.spec.role == "policy":
            self.prepare(endpoint)  # first, because it is not repeated once the InferenceService exists
        path = paths.INFERENCE_SERVICES.path(self.namespace, wanted["metadata"]["name"])
        self.api.apply(path, wanted, self.platform.field_manager)

    def prepare(self, endpoint: Endpoint) -> None:
        """Applies the Service that gives each pod of a policy an address, and the ConfigMap with their version."""
        for kind, wanted in (
            (paths.SERVICES, inference.headless(endpoint)),
            (paths.CONFIG_MAPS, inference.version_file(endpoint)),
        ):
            path = kind.path(self.namespace, wanted["metadata"]["name"])
            self.api.apply(path, wanted, self.platform.field_manager)

    def _prepared(self, endpoint: Endpoint) -> bool:
        """Whether the ConfigMap exists that a policy's pods need to start."""
        name = inference.version_file(endpoint)["metadata"]["name"]
        return endpoint.spec.role != "policy" or self.api.find(paths.CONFIG_MAPS.path(self.namespace, name)) is not None

    def stop(self, name: str) -> None:
        """Deletes the InferenceService of the endpoint of that name, unless it has another owner."""
        live = self._find(name)
        owners = live["metadata"].get("ownerReferences") or () if live is not None else ()
        if live is not None and any((each["kind"], each["name"]) == ("Endpoint", name) for each in owners):
            path = paths.INFERENCE_SERVICES.path(self.namespace, live["metadata"]["name"])
            self.api.delete(path, live["metadata"]["uid"])

    def addresses(self, endpoint: Endpoint) -> tuple[str, ...]:
        """`http://10.1.2.3:8080` for every pod of a policy, ready or not."""
        selector = f"kubernetes.io/service-name={inference.headless(endpoint)['metadata']['name']}"
        found: set[str] = set()
        for each in items(self.api, paths.ENDPOINT_SLICES.path(self.namespace), selector):
            for one in each.get("endpoints") or ():
                if not one.get("conditions", {}).get("terminating"):
                    found |= {host if ":" not in host else f"[{host}]" for host in one.get("addresses") or ()}
        return tuple(sorted(f"http://{host}:{inference.PORT}" for host in found))

    def pods(self, service: str) -> list[dict[str, Any]]:
        return list(items(self.api, paths.PODS.path(self.namespace), selector(service)))

    def _find(self, endpoint: str) -> dict[str, Any] | None:
        return self.api.find(paths.INFERENCE_SERVICES.path(self.namespace, names.service(endpoint)))

    def _restart(self, live: Document, now: datetime) -> str:
        """Value of the restart annotation: a new one after a crash, else the present one, which restarts nothing."""
        if pods.crash(self.pods(live["metadata"]["name"]), CRASHES) is not None:
            return now.isoformat()
        return str(live["metadata"].get("annotations", {}).get(RESTARTED, ""))


def selector(service: str) -> str:
    """Label selector of the pods that KServe creates for an InferenceService."""
    return f"app=isvc.{service}-predictor"


def holds(document: Document, type_: str) -> bool:
    return (found := _condition(document, type_)) is not None and found.get("status") == "True"


def rolled_out(deployment: Document | None) -> bool:
    """Whether every pod has the newest template and is available."""
    if deployment is None:
        return False
    wanted, status = deployment.get("spec", {}).get("replicas", 1), deployment.get("status", {})
    seen = status.get("observedGeneration") == deployment["metadata"].get("generation")
    counts = [status.get(key, 0) for key in ("replicas", "updatedReplicas", "availableReplicas")]
    return bool(seen and counts == [wanted] * 3)


def since(live: Document, deployment: Document | None) -> datetime | None:
    """When a server that is not ready began to start: the latest of its creation, its restart and the time at which it
    became unavailable."""
    times = [
        live["metadata"].get("creationTimestamp"),
        live["metadata"].get("annotations", {}).get(RESTARTED),
        _since_false(live, "Ready"),
        _since_false(deployment or {}, "Available"),
    ]
    found = [datetime.fromisoformat(each) for each in times if each]
    return max(found) if found else None


def _since_false(document: Document, type_: str) -> str | None:
    found = _condition(document, type_)
    return found.get("lastTransitionTime") if found and found.get("status") == "False" else None


def _condition(document: Document, type_: str) -> dict[str, Any] | None:
    conditions = document.get("status", {}).get("conditions") or ()
    return next((each for each in conditions if each.get("type") == type_), None)


def _refusal(deployment: Document | None) -> Blocked | None:
    """Why the cluster refuses to create pods, such as a quota or a security profile."""
    found = _condition(deployment or {}, "ReplicaFailure")
    if found is None or found.get("status") != "True":
        return None
    return Blocked(Reason.REFUSED, str(found.get("message") or found.get("reason") or ""))

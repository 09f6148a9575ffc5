"""KServe InferenceServices of ToolServers: applied, observed, deleted.

KServe reports Ready during a rollout, and its observed generation does not cover the rollout. A server therefore counts
as ready when KServe reports Ready *and* its Deployment has rolled out the current spec to every pod. When no pod of an
earlier spec is left, a server also counts as ready as long as one replica is available; what the others lack is
reported. A server whose container keeps crashing counts as exited, a state that a Deployment does not have; a restart
creates new pods.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from gog import spec as settings
from gog_operator.api import names
from gog_operator.api.meta import Reason
from gog_operator.api.objects import ToolServer
from gog_operator.build import inference, sources
from gog_operator.build.platform import Platform
from gog_operator.cluster import documents, mounts, paths, pods
from gog_operator.cluster.api_errors import TranslatedApi
from gog_operator.cluster.creation import check_owner
from gog_operator.cluster.interface import Unavailable
from gog_operator.cluster.kube import items
from gog_operator.plan.actions import Blocked, ServerView

CRASHES = 3
"""Container restarts after which a server counts as exited."""
RESTARTED = "gog.dev/restarted-at"
"""Annotation whose new value creates new pods."""

ADDRESS_TYPES = ("IPv4", "IPv6")
"""Types of EndpointSlices with addresses of pods."""

Document = Mapping[str, Any]


class KServeServers:
    def __init__(self, api: TranslatedApi, namespace: str, platform: Platform) -> None:
        self.api, self.namespace, self.platform = api, namespace, platform

    def view(self, tool_server: ToolServer, data: settings.DataSpec | None) -> ServerView | None:
        """The server as Kubernetes reports it, without the version that a policy's pods serve."""
        live = self._find(tool_server.name)
        if live is None or documents.terminating(live) or not documents.owned(live, tool_server.metadata.uid):
            return None
        deployment = self.api.find(paths.DEPLOYMENTS.path(self.namespace, f"{live['metadata']['name']}-predictor"))
        facts: dict[str, Any] = {
            "url": str(live.get("status", {}).get("address", {}).get("url") or ""),
            "started": since(live, deployment),
            "was_ready": bool(tool_server.status.url),
            "replicas": (deployment or {}).get("status", {}).get("replicas", 0),
            "selector": selector(live["metadata"]["name"]),
            "image": inference.live_image(dict(live)),
            "routes": self._routes(tool_server) if tool_server.spec.role == "agent" else "",
            "current": inference.current(dict(live), inference.service(tool_server, self.platform, data)),
        }
        if tool_server.spec.replicas == 0:
            return ServerView("starting", **facts | {"started": None}, blocked=Blocked(Reason.PENDING, "0 replicas"))
        if facts["url"] and holds(live, "Ready") and rolled_out(deployment, tool_server.spec.replicas):
            found = [] if _is_settled(tool_server, facts) else self.pods(live["metadata"]["name"])
            facts |= {"was_ready": True, "images": pods.images(found), "pods": pods.names(found)}
            return ServerView("ready", **facts)
        found = self.pods(live["metadata"]["name"])
        facts |= {"pods": pods.names(found)}
        ran = pods.first_start(found)
        facts["started"] = max(filter(None, (facts["started"], ran)), default=None) if ran is not None else None
        blocked = pods.blocked(found) or mounts.blocked(self.api, self.namespace, found) or _refusal(deployment)
        if facts["url"] and (serving := available(deployment)):
            cause = f": {blocked.message}" if blocked is not None else ""
            missing = f"{serving} of {tool_server.spec.replicas} replicas serve{cause}"
            return ServerView("ready", **facts | {"was_ready": True}, blocked=Blocked(Reason.REPLICAS, missing))
        crash = pods.crash(found, CRASHES)
        if crash is not None:
            lines = (crash.cause, *crash.lines) if crash.cause else crash.lines
            return ServerView("exited", **facts, exit_code=crash.exit_code, lines=lines)
        facts["current"] = facts["current"] and self._prepared(tool_server)
        return ServerView("starting", **facts, blocked=_of_source(tool_server, blocked))

    def start(self, tool_server: ToolServer, data: settings.DataSpec | None, now: datetime) -> None:
        """Applies the InferenceService; a server that has exited gets new pods. Raises Refused, Unavailable."""
        live = self._find(tool_server.name)
        wanted = inference.service(tool_server, self.platform, data)
        if live is not None:
            if documents.terminating(live):
                raise Unavailable(f"InferenceService {live['metadata']['name']} is being deleted", after=1.0)
            check_owner(live, tool_server)
            annotation = self._restart(live, now)
            restarted = {RESTARTED: annotation} if annotation else {}
            wanted["metadata"]["annotations"] |= restarted
        if tool_server.spec.role == "policy":
            self.prepare(tool_server)  # first, because it is not repeated once the InferenceService exists
        path = paths.INFERENCE_SERVICES.path(self.namespace, wanted["metadata"]["name"])
        if live is not None and inference.same_pods(live, wanted):
            self.api.merge(path, inference.scaled(wanted, **restarted))
        else:
            self.api.apply(path, wanted, self.platform.field_manager)

    def prepare(self, tool_server: ToolServer) -> None:
        """Applies the Service that gives each pod of a policy an address, and the ConfigMap with their version."""
        for kind, wanted in (
            (paths.SERVICES, inference.headless(tool_server)),
            (paths.CONFIG_MAPS, inference.version_file(tool_server, self.platform)),
        ):
            path = kind.path(self.namespace, wanted["metadata"]["name"])
            self.api.apply(path, wanted, self.platform.field_manager)

    def _routes(self, agent: ToolServer) -> str:
        """Routes of an agent that were written; empty where there are none."""
        found = self.api.find(paths.CONFIG_MAPS.path(self.namespace, inference.version_name(agent)))
        return str(((found or {}).get("data") or {}).get(inference.ROUTES_KEY) or "")

    def set_routes(self, agent: ToolServer, routes: str) -> None:
        """Applies the ConfigMap with an agent's routes, which its pods follow: within a minute, as the kubelet delivers it."""
        wanted = inference.routes_file(agent, routes)
        path = paths.CONFIG_MAPS.path(self.namespace, wanted["metadata"]["name"])
        self.api.apply(path, wanted, self.platform.field_manager)

    def _prepared(self, tool_server: ToolServer) -> bool:
        """Whether the ConfigMap exists that a policy's pods need to start."""
        name = inference.version_name(tool_server)
        return (
            tool_server.spec.role != "policy" or self.api.find(paths.CONFIG_MAPS.path(self.namespace, name)) is not None
        )

    def stop(self, name: str) -> None:
        """Deletes the InferenceService of the ToolServer of that name, unless it has another owner."""
        live = self._find(name)
        owners = live["metadata"].get("ownerReferences") or () if live is not None else ()
        if live is not None and any((each["kind"], each["name"]) == ("ToolServer", name) for each in owners):
            path = paths.INFERENCE_SERVICES.path(self.namespace, live["metadata"]["name"])
            self.api.delete(path, live["metadata"]["uid"])

    def addresses(self, tool_server: ToolServer) -> tuple[str, ...]:
        """`http://10.1.2.3:8080` for every pod of a policy, ready or not. A tenant may label slices of its own, so names, what
        is no pod, and addresses of a node itself are left out."""
        selector = f"kubernetes.io/service-name={inference.headless(tool_server)['metadata']['name']}"
        found: set[str] = set()
        for each in items(self.api, paths.ENDPOINT_SLICES.path(self.namespace), selector):
            for one in each.get("endpoints") or () if each.get("addressType") in ADDRESS_TYPES else ():
                if _is_pod(one) and not (one.get("conditions") or {}).get("terminating"):
                    found |= {_host(address) for address in one.get("addresses") or ()} - {""}
        return tuple(sorted(f"http://{host}:{inference.PORT}" for host in found))

    def pods(self, service: str) -> list[dict[str, Any]]:
        return list(items(self.api, paths.PODS.path(self.namespace), selector(service)))

    def _find(self, tool_server: str) -> dict[str, Any] | None:
        return self.api.find(paths.INFERENCE_SERVICES.path(self.namespace, names.service(tool_server)))

    def _restart(self, live: Document, now: datetime) -> str:
        """Value of the restart annotation: a new one after a crash, else the present one, which restarts nothing."""
        if pods.crash(self.pods(live["metadata"]["name"]), CRASHES) is not None:
            return now.isoformat()
        return str(live["metadata"].get("annotations", {}).get(RESTARTED, ""))


def _is_settled(tool_server: ToolServer, facts: Mapping[str, Any]) -> bool:
    """Whether the status has what the pods of a ready server report, so that they need not be read: they cost a request."""
    status, ready = tool_server.status, tool_server.condition("Ready")
    resolved = bool(status.image.id) and status.image.reference == facts["image"]
    serves = ready is not None and ready.status == "True" and ready.reason != Reason.REPLICAS
    return resolved and serves and len(status.pods) == facts["replicas"]


def selector(service: str) -> str:
    """Label selector of the pods that KServe creates for an InferenceService."""
    return f"app=isvc.{service}-predictor"


def _is_pod(endpoint: Document) -> bool:
    """Whether an endpoint refers to a pod."""
    return (endpoint.get("targetRef") or {}).get("kind") == "Pod"


def _host(address: object) -> str:
    """The host of a URL with a pod's address; empty for what can be none."""
    try:
        found = ipaddress.ip_address(str(address))
    except ValueError:
        return ""
    scoped = isinstance(found, ipaddress.IPv6Address) and found.scope_id is not None
    if scoped or found.is_loopback or found.is_link_local or found.is_multicast or found.is_unspecified:
        return ""
    return str(found) if found.version == 4 else f"[{found}]"


def holds(document: Document, type_: str) -> bool:
    return (found := _condition(document, type_)) is not None and found.get("status") == "True"


def rolled_out(deployment: Document | None, wanted: int) -> bool:
    """Whether as many pods as wanted exist, all with the newest template and available.

    The number is the tool server's, because KServe copies it to the Deployment some time after it changes.
    """
    if deployment is None:
        return False
    status = deployment.get("status", {})
    seen = status.get("observedGeneration") == deployment["metadata"].get("generation")
    counts = [status.get(key, 0) for key in ("replicas", "updatedReplicas", "availableReplicas")]
    return bool(seen and counts == [wanted] * 3)


def available(deployment: Document | None) -> int:
    """Number of replicas that serve the newest template; 0 while pods of an earlier one are left."""
    if deployment is None:
        return 0
    status = deployment.get("status", {})
    seen = status.get("observedGeneration") == deployment["metadata"].get("generation")
    replaced = status.get("updatedReplicas", 0) == status.get("replicas", 0)
    return int(status.get("availableReplicas", 0)) if seen and replaced else 0


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


def _of_source(server: ToolServer, blocked: Blocked | None) -> Blocked | None:
    """The same, with field and remedy where it is a source of the server that its pods wait for."""
    why = sources.explained(blocked.message, sources.of_server(server), server.spec.sources) if blocked else ""
    return Blocked(Reason.SOURCE_UNAVAILABLE, why) if why else blocked


def _refusal(deployment: Document | None) -> Blocked | None:
    """Why the cluster refuses to create pods, such as a quota or a security profile."""
    found = _condition(deployment or {}, "ReplicaFailure")
    if found is None or found.get("status") != "True":
        return None
    return Blocked(Reason.REFUSED, str(found.get("message") or found.get("reason") or ""))

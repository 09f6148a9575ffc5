"""An endpoint -> its InferenceService: a custom container under KServe in Standard mode, as a plain dict.

Written for server-side apply: only what we want to say is here, and KServe's webhooks add theirs. Replicas are ours
(`autoscalerClass: none`); callers stay inside the cluster. Probes ask the server itself, because KServe's default asks
only whether a port is open.

KServe hands annotations of the service down to its pods, so an annotation that changes restarts them. Hence the hash is
of what pods are made of, without the number of replicas. A policy's version is not in its pods: they find it in a file,
so that a running one is told to load another (that takes a second) and one that starts begins with the newest.
"""

from __future__ import annotations

import copy
import math
from typing import Any

from gog import spec as settings
from gog_operator.api import names
from gog_operator.api.objects import Endpoint
from gog_operator.build import meta, pods, quantities, servers
from gog_operator.build.platform import Platform

PORT = 8080
CONTAINER = "kserve-container"
VERSION = "/etc/gog/version"
STOPPED = "serving.kserve.io/stop"
PRESTOP_SECONDS = 5
"""Until every node has heard that the pod is going, requests still arrive."""
GRACE_SECONDS = 45
"""preStop, the server's 25 seconds for requests in flight, and room."""
PERIOD = 2
"""Seconds between probes while somebody waits for the server."""
REQUESTS = {"cpu": "100m", "memory": "256Mi"}
LIMITS = {"cpu": "1", "memory": "2Gi"}
"""What KServe's own configuration says in most clusters; written out, so that a larger request is not refused."""

Document = dict[str, Any]


def service(endpoint: Endpoint, platform: Platform, data: settings.DataSpec | None) -> Document:
    """data: where the dataset is, for readers of it."""
    spec = endpoint.spec
    predictor = _pod(endpoint, platform, data) | {
        "minReplicas": spec.replicas,
        "deploymentStrategy": _strategy(spec.resources),
        "labels": meta.labels(endpoint, names.kebab(spec.role)),
    }
    head = meta.head(
        names.service(endpoint.name),
        endpoint,
        names.kebab(spec.role),
        **{
            "serving.kserve.io/deploymentMode": "Standard",
            "serving.kserve.io/autoscalerClass": "none",
            meta.HASH: _fingerprint(endpoint, platform, data),
            **({STOPPED: "true"} if spec.suspend else {}),
        },
    )
    head["labels"]["networking.kserve.io/visibility"] = "cluster-local"
    return {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": head,
        "spec": {"predictor": predictor},
    }


def headless(endpoint: Endpoint) -> Document:
    """A Service without an address of its own, whose name resolves to each pod's: a version is loaded on every pod.

    Pods that are not ready are there, too, so that one that starts is not overlooked."""
    name = names.service(endpoint.name)
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": meta.head(f"{name}-pods", endpoint, names.kebab(endpoint.spec.role)),
        "spec": {
            "clusterIP": "None",
            "publishNotReadyAddresses": True,
            "selector": {"app": f"isvc.{name}-predictor"},
            "ports": [{"name": "http", "port": PORT, "targetPort": PORT, "protocol": "TCP"}],
        },
    }


def version_file(endpoint: Endpoint) -> Document:
    """A ConfigMap with the checkpoint that a policy's pod loads before it is ready."""
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": meta.head(_version_name(endpoint), endpoint, names.kebab(endpoint.spec.role)),
        "data": {"version": endpoint.spec.version},
    }


def _version_name(endpoint: Endpoint) -> str:
    return f"{names.service(endpoint.name)}-version"


def current(live: Document, wanted: Document) -> bool:
    """Whether an InferenceService as the cluster has it is the one that is wanted. What KServe added does not count."""
    return _wish(live) == _wish(wanted)


def _wish(document: Document) -> tuple[Any, ...]:
    annotations = document["metadata"].get("annotations") or {}
    return annotations.get(meta.HASH), annotations.get(STOPPED), document["spec"]["predictor"].get("minReplicas")


def _fingerprint(endpoint: Endpoint, platform: Platform, data: settings.DataSpec | None) -> str:
    return meta.fingerprint([_pod(endpoint, platform, data), _strategy(endpoint.spec.resources)])


def _pod(endpoint: Endpoint, platform: Platform, data: settings.DataSpec | None) -> Document:
    spec = endpoint.spec
    store = spec.store if servers.reads_store(endpoint, data) else None
    secret = [{"secretRef": {"name": spec.secret_name}}] if spec.secret_name else []
    env_from, volumes, mounts = pods.credentials(store)
    resources = _resources(spec.resources)
    arguments = servers.arguments(endpoint, host="0.0.0.0", port=PORT, data=data)
    if spec.role == "policy":
        arguments += ["--version", f"@{VERSION}", *(["--device", "cuda"] if _has_gpus(spec.resources) else [])]
        files, places = pods.configuration(_version_name(endpoint))
        volumes, mounts = [*volumes, *files], [*mounts, *places]
    threads = max(1, int(quantities.amount(resources["limits"]["cpu"])))
    container = pods.container(
        CONTAINER,
        image(endpoint, platform),
        platform,
        command=["gog", "serve", *arguments],
        env={"OMP_NUM_THREADS": str(threads)} | pods.store_environment(store),
        env_from=[*env_from, *secret],
        ports={"http": PORT},
        resources=resources,
        mounts=mounts,
        # /healthz answers while a model is loaded; how long that may take is the operator's to judge.
        startupProbe=_probe("/healthz", PERIOD, math.ceil(spec.startup_seconds / PERIOD)),
        readinessProbe=_probe("/readyz", PERIOD, 5),
        livenessProbe=_probe("/healthz", 10, 6),
        lifecycle={"preStop": {"sleep": {"seconds": PRESTOP_SECONDS}}},
    )
    pod = pods.pod(container, scheduling=spec.scheduling, service_account=spec.service_account_name, volumes=volumes)
    return pod | {"terminationGracePeriodSeconds": GRACE_SECONDS}


def image(endpoint: Endpoint, platform: Platform) -> str:
    """The policy needs torch, the other servers do not."""
    default = platform.trainer_image if endpoint.spec.role == "policy" else platform.tools_image
    return endpoint.spec.image or default


def _probe(path: str, period: int, failures: int) -> Document:
    return {
        "httpGet": {"path": path, "port": PORT, "scheme": "HTTP"},
        "periodSeconds": period,
        "timeoutSeconds": 5,
        "failureThreshold": failures,
    }


def _strategy(resources: settings.ResourcesSpec) -> Document:
    """A second pod beside the first finds no GPU free: then one goes before the next comes."""
    if _has_gpus(resources):
        return {"type": "Recreate"}
    return {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}


def _has_gpus(resources: settings.ResourcesSpec) -> bool:
    return pods.GPU in resources.requests | resources.limits


def _resources(given: settings.ResourcesSpec) -> Document:
    """As given; what is left out is small, and never against what is there: a request alone raises its limit, a limit
    alone is requested."""
    extended = {key: value for key, value in (given.limits | given.requests).items() if key not in LIMITS}
    requests, limits = dict(extended), copy.copy(extended)
    for key in LIMITS:
        requests[key] = given.requests.get(key) or given.limits.get(key) or REQUESTS[key]
        limits[key] = given.limits.get(key) or quantities.larger(requests[key], LIMITS[key])
    return {"requests": requests, "limits": limits}

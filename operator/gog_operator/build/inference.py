"""An Endpoint -> its InferenceService: a custom container under KServe in Standard mode, as a plain dict.

It is written for server-side apply, so it has only the fields that gog owns; KServe's webhooks add others. gog sets the
replicas (`autoscalerClass: none`), and callers stay inside the cluster. Probes query the server itself, because KServe's
default checks only whether a port is open.

KServe copies annotations of the service to its pods, so that a changed annotation restarts them. The hash is therefore of
the pods' own settings, without the number of replicas. A policy's version is not part of its pods: they read it from a
file, so that a running pod loads another version in a second, and a new pod starts with the newest.
"""

from __future__ import annotations

import copy
import math
from typing import Any

from gog import catalog
from gog import spec as settings
from gog_operator.api import names
from gog_operator.api.objects import Endpoint
from gog_operator.build import meta, pods, quantities, servers
from gog_operator.build.platform import Platform

PORT = 8080
"""Port of every server."""
CONTAINER = "kserve-container"
VERSION = "/etc/gog/version"
"""File with the checkpoint that a policy's pod loads before it is ready."""
STOPPED = "serving.kserve.io/stop"
PRESTOP_SECONDS = 5
"""Seconds that a terminating pod still answers, because requests arrive until every node knows that it terminates."""
GRACE_SECONDS = 45
"""Seconds before a terminating pod is killed: preStop, the server's 25 seconds for requests in flight, and a reserve."""
PERIOD = 2
"""Seconds between probes of a server that is not ready."""
REQUESTS = {"cpu": "100m", "memory": "256Mi"}
LIMITS = {"cpu": "1", "memory": "2Gi"}
"""Defaults of KServe's configuration in most clusters. They are written out, so that a larger request is not refused."""

Document = dict[str, Any]


def service(endpoint: Endpoint, platform: Platform, data: settings.DataSpec | None) -> Document:
    """The InferenceService of an Endpoint.

    Args:
        endpoint: The Endpoint.
        platform: The installation's settings for pods.
        data: Where the dataset is, for roles that read it.
    """
    spec, component = endpoint.spec, _component(endpoint)
    predictor = _pod(endpoint, platform, data) | {
        "minReplicas": spec.replicas,
        "deploymentStrategy": _strategy(spec.resources),
        "labels": meta.labels(endpoint, component),
    }
    head = meta.head(
        names.service(endpoint.name),
        endpoint,
        component,
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
    """A headless Service, whose name resolves to the address of each pod: a version is loaded into every pod.

    It includes pods that are not ready, so that a version is also loaded into a pod that is starting.
    """
    name = names.service(endpoint.name)
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": meta.head(f"{name}-pods", endpoint, _component(endpoint)),
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
        "metadata": meta.head(_version_name(endpoint), endpoint, _component(endpoint)),
        "data": {"version": endpoint.spec.version},
    }


def _component(endpoint: Endpoint) -> str:
    return catalog.SERVER_BY_NAME[endpoint.spec.role].command


def _version_name(endpoint: Endpoint) -> str:
    return f"{names.service(endpoint.name)}-version"


def current(live: Document, wanted: Document) -> bool:
    """Whether the InferenceService in the cluster is the wanted one. Fields that KServe added are not compared."""
    return _compared(live) == _compared(wanted)


def _compared(document: Document) -> tuple[Any, ...]:
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
        env_from=[*env_from, *secret, *pods.hub_token(spec.base_secret_name)],
        ports={"http": PORT},
        resources=resources,
        mounts=mounts,
        # /healthz answers while a model is being loaded; the operator enforces startupSeconds.
        startupProbe=_probe("/healthz", PERIOD, math.ceil(spec.startup_seconds / PERIOD)),
        readinessProbe=_probe("/readyz", PERIOD, 5),
        livenessProbe=_probe("/healthz", 10, 6),
        lifecycle={"preStop": {"sleep": {"seconds": PRESTOP_SECONDS}}},
    )
    pod = pods.pod(
        container,
        platform,
        scheduling=spec.scheduling,
        service_account=spec.service_account_name,
        volumes=volumes,
    )
    return pod | {"terminationGracePeriodSeconds": GRACE_SECONDS}


def image(endpoint: Endpoint, platform: Platform) -> str:
    """The Endpoint's image: its own, or the trainer's for what needs torch (the policy, detectors), else the tools'."""
    spec = endpoint.spec
    needs_torch = spec.role == "policy" or spec.backend in catalog.SERVER_BY_NAME[spec.role].torch_backends
    return spec.image or (platform.trainer_image if needs_torch else platform.tools_image)


def _probe(path: str, period: int, failures: int) -> Document:
    return {
        "httpGet": {"path": path, "port": PORT, "scheme": "HTTP"},
        "periodSeconds": period,
        "timeoutSeconds": 5,
        "failureThreshold": failures,
    }


def _strategy(resources: settings.ResourcesSpec) -> Document:
    """How pods are replaced: one by one, but with GPUs the old pod terminates first, or the new one would find none free."""
    if _has_gpus(resources):
        return {"type": "Recreate"}
    return {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}


def _has_gpus(resources: settings.ResourcesSpec) -> bool:
    return pods.GPU in resources.requests | resources.limits


def _resources(given: settings.ResourcesSpec) -> Document:
    """The given resources, completed with small defaults: a request alone raises its limit, a limit alone is requested."""
    extended = {key: value for key, value in (given.limits | given.requests).items() if key not in LIMITS}
    requests, limits = dict(extended), copy.copy(extended)
    for key in LIMITS:
        requests[key] = given.requests.get(key) or given.limits.get(key) or REQUESTS[key]
        limits[key] = given.limits.get(key) or quantities.larger(requests[key], LIMITS[key])
    return {"requests": requests, "limits": limits}

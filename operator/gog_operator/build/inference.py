"""A ToolServer -> its InferenceService: a custom container under KServe in Standard mode, as a plain dict.

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
from gog_operator.api.objects import ToolServer
from gog_operator.build import admin, agents, meta, pod_patches, pods, predictor, quantities, servers, sources, vllm
from gog_operator.build.platform import Platform

PORT = predictor.PORT
METRICS_PORT = "GOG_SERVER_METRICS_PORT"
"""Environment variable of a server with the port of its /metrics."""
VERSION = "/etc/gog/version"
"""File with the checkpoint that a policy's pod loads before it is ready."""
ADMIN = f"/etc/gog/{admin.FILE}"
"""File with the digest of the token with which adapters are loaded."""
ROUTES_KEY = "routes.json"
"""Key of the ConfigMap with an agent's routes."""
AGENT_KEYS = "/etc/gog-keys"
"""Folder with the keys of an agent's callers."""
STOPPED = "serving.kserve.io/stop"
REQUESTS = {"cpu": "100m", "memory": "256Mi"}
LIMITS = {"cpu": "1", "memory": "2Gi"}
"""Defaults of KServe's configuration in most clusters. They are written out, so that a larger request is not refused."""
CORES, MEMORY_GIB = 4, 32
"""Defaults of a server with GPUs for each of them: the weights pass through the memory of the host."""

UNHASHED = {"replicas", "version", "suspend"}
"""Fields of the spec that change no pod."""

Document = dict[str, Any]


def service(tool_server: ToolServer, platform: Platform, data: settings.DataSpec | None) -> Document:
    """The InferenceService of a ToolServer.

    Args:
        tool_server: The ToolServer.
        platform: The installation's settings for pods.
        data: Where the dataset is, for roles that read it.
    """
    spec, component = tool_server.spec, _component(tool_server)
    patched = _template(tool_server, platform, data)
    predictor = patched["spec"] | {
        "minReplicas": spec.replicas,
        "deploymentStrategy": _strategy(patched["spec"]),
        **pods.without_empty(
            {
                "labels": patched["metadata"]["labels"] | platform.pod_labels() | meta.labels(tool_server, component),
                "annotations": patched["metadata"].get("annotations"),
            }
        ),
    }
    head = meta.head(
        names.service(tool_server.name),
        tool_server,
        component,
        **{
            "serving.kserve.io/deploymentMode": "Standard",
            "serving.kserve.io/autoscalerClass": "none",
            meta.HASH: _fingerprint(tool_server, platform, data),
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


def headless(tool_server: ToolServer) -> Document:
    """A headless Service, whose name resolves to the address of each pod: a version is loaded into every pod.

    It includes pods that are not ready, so that a version is also loaded into a pod that is starting. Those of vLLM load it
    themselves, and trainers look up the name to sample from each.
    """
    name = names.service(tool_server.name)
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": meta.head(f"{name}-pods", tool_server, _component(tool_server)),
        "spec": {
            "clusterIP": "None",
            "publishNotReadyAddresses": tool_server.spec.runtime != "vllm",
            "selector": {"app": f"isvc.{name}-predictor"},
            "ports": [{"name": "http", "port": PORT, "targetPort": PORT, "protocol": "TCP"}],
        },
    }


def pods_url(name: str, namespace: str) -> str:
    """URL whose host name has an address for each pod of a ToolServer. name: of the ToolServer."""
    return f"http://{names.service(name)}-pods.{namespace}.svc:{PORT}"


def version_file(tool_server: ToolServer, platform: Platform) -> Document:
    """A ConfigMap with the checkpoint that a policy's pod loads before it is ready, and the digest of its admin's token."""
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": meta.head(version_name(tool_server), tool_server, _component(tool_server)),
        "data": {"version": tool_server.spec.version} | admin.files(tool_server, platform),
    }


def routes_file(agent: ToolServer, routes: str) -> Document:
    """A ConfigMap with the routes that an agent's pods follow."""
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": meta.head(version_name(agent), agent, _component(agent)),
        "data": {ROUTES_KEY: routes},
    }


def _component(tool_server: ToolServer) -> str:
    return catalog.SERVER_BY_NAME[tool_server.spec.role].command


def version_name(tool_server: ToolServer) -> str:
    """Name of the ConfigMap with the checkpoint of a policy."""
    return f"{names.service(tool_server.name)}-version"


def current(live: Document, wanted: Document) -> bool:
    """Whether the InferenceService in the cluster is the wanted one. Fields that KServe added are not compared."""
    return _compared(live) == _compared(wanted)


def _compared(document: Document) -> tuple[Any, ...]:
    annotations = document["metadata"].get("annotations") or {}
    return annotations.get(meta.HASH), annotations.get(STOPPED), document["spec"]["predictor"].get("minReplicas")


def _fingerprint(tool_server: ToolServer, platform: Platform, data: settings.DataSpec | None) -> str:
    """A hash of what the user asked for, not of the pods: an operator upgrade that would create other pods restarts none.
    A server that follows upgrades is hashed by its pods."""
    asked = tool_server.spec.model_dump(mode="json", by_alias=True, exclude_unset=True, exclude=UNHASHED | {"pods"})
    patches = pod_patches.applicable(tool_server.spec.pods, "servers", tool_server.spec.role)
    patched = [each.as_given() for each in patches]
    given = data.as_given() if data is not None else None
    return meta.fingerprint(
        [asked, given, _template(tool_server, platform, data) if tool_server.follows_upgrades else None]
        + ([patched] if patched else [])
    )


def same_pods(live: Document, wanted: Document) -> bool:
    """Whether the pods in the cluster are what the user asks for, so that they stay as they are."""
    annotations = live["metadata"].get("annotations") or {}
    return bool(annotations.get(meta.HASH) == wanted["metadata"]["annotations"][meta.HASH])


def scaled(wanted: Document, **annotations: str) -> Document:
    """The merge patch that gives live pods the wanted number and annotations, and changes nothing else of them."""
    stopped = wanted["metadata"]["annotations"].get(STOPPED)
    return {
        "metadata": {"annotations": {STOPPED: stopped, **annotations}},
        "spec": {"predictor": {"minReplicas": wanted["spec"]["predictor"]["minReplicas"]}},
    }


def live_image(live: Document) -> str:
    """Image reference of the pods in the cluster."""
    containers = live.get("spec", {}).get("predictor", {}).get("containers") or ()
    return next((str(each.get("image") or "") for each in containers if each.get("name") == predictor.CONTAINER), "")


def _template(tool_server: ToolServer, platform: Platform, data: settings.DataSpec | None) -> Document:
    """Spec, and patched labels and annotations, of the ToolServer's pods."""
    template = {"metadata": {"labels": {}}, "spec": _pod(tool_server, platform, data)}
    return pod_patches.apply(template, tool_server.spec.pods, "servers", tool_server.spec.role)


def _pod(tool_server: ToolServer, platform: Platform, data: settings.DataSpec | None) -> Document:
    spec = tool_server.spec
    if spec.runtime == "vllm":
        return vllm.pod(tool_server, platform, version_name(tool_server))
    store = spec.store if servers.reads_store(tool_server, data) else None
    secret = [{"secretRef": {"name": spec.secret_name}}] if spec.secret_name else []
    mounted = sources.of(sources.of_server(tool_server), spec.sources)
    volumes, mounts = pods.credentials(store, reads_only=True)
    volumes, mounts = [*volumes, *mounted.volumes], [*mounts, *mounted.mounts]
    resources = _resources(spec.resources)
    arguments = servers.arguments(tool_server, host="0.0.0.0", port=PORT, data=data)
    if spec.role == "policy":
        arguments += ["--version", f"@{VERSION}", *(["--device", "cuda"] if _has_gpus(tool_server) else [])]
        arguments += ["--admin-digest", f"@{ADMIN}"] if platform.admin_key else []
        files, places = pods.configuration(version_name(tool_server))
        volumes, mounts = [*volumes, *files], [*mounts, *places]
    keys: list[Document] = []
    named: list[tuple[str | None, str | None]] = [(spec.base, spec.base_secret_name)]
    named += [(data.uri, data.secret_name)] if data is not None and spec.role in servers.READERS else []
    if spec.role == "agent":
        files, places = _agent_files(tool_server)
        volumes, mounts = [*volumes, *files], [*mounts, *places]
        keys = pods.keys(agents.secrets(tool_server), _started(tool_server))
        keys_file = f"{AGENT_KEYS}/keys.json" if spec.agent is not None and spec.agent.keys_secret_name else ""
        arguments += agents.arguments(tool_server, f"/etc/gog/{ROUTES_KEY}", keys_file)
    threads = max(1, int(quantities.amount(resources["limits"]["cpu"])))
    container = pods.container(
        predictor.CONTAINER,
        image(tool_server, platform),
        platform,
        command=["gog", "serve", *arguments],
        env={"OMP_NUM_THREADS": str(threads), METRICS_PORT: str(platform.progress_port)}
        | pods.store_environment(store, reads_only=True)
        | mounted.environment,
        env_from=[*secret, *pods.hub_token(sources.token(named, spec.sources))],
        secret_env=keys,
        ports={"http": PORT, "metrics": platform.progress_port},
        resources=resources,
        mounts=mounts,
        # /healthz answers while a model is being loaded; the operator enforces startupSeconds.
        startupProbe=predictor.probe("/healthz", predictor.PERIOD, math.ceil(spec.startup_seconds / predictor.PERIOD)),
        readinessProbe=predictor.probe("/readyz", predictor.PERIOD, 5),
        livenessProbe=predictor.probe("/healthz", 10, 6),
        lifecycle=predictor.LIFECYCLE,
    )
    pod = pods.pod(
        container,
        platform,
        scheduling=spec.scheduling,
        service_account=spec.service_account_name,
        volumes=volumes,
    )
    return pod | {"terminationGracePeriodSeconds": predictor.GRACE_SECONDS}


def _agent_files(agent: ToolServer) -> tuple[list[Document], list[Document]]:
    """Volumes and mounts of an agent's routes and of the keys of its callers."""
    volumes, mounts = pods.configuration(version_name(agent))
    if agent.spec.agent is not None and agent.spec.agent.keys_secret_name is not None:
        items = [{"key": "keys.json", "path": "keys.json"}]
        secret = {"secretName": agent.spec.agent.keys_secret_name, "items": items}
        volumes = [*volumes, {"name": "gog-keys", "secret": secret}]
        mounts = [*mounts, {"name": "gog-keys", "mountPath": AGENT_KEYS, "readOnly": True}]
    return volumes, mounts


def _started(agent: ToolServer) -> list[str]:
    """Roles of the servers that an agent starts."""
    return [each.spec.role for each in agents.servers(agent, "") if each.spec.url is None]


def image(tool_server: ToolServer, platform: Platform) -> str:
    """The ToolServer's image: its own, or the trainer's for what needs torch (the policy, detectors), else the tools'."""
    spec = tool_server.spec
    needs_torch = spec.role == "policy" or spec.backend in catalog.SERVER_BY_NAME[spec.role].torch_backends
    return spec.image or (platform.trainer_image if needs_torch else platform.tools_image)


def _strategy(pod: Document) -> Document:
    """How pods are replaced: one by one, but with GPUs the old pod terminates first, or the new one would find none free."""
    if pods.has_gpus(pod["containers"][0]["resources"]):
        return {"type": "Recreate"}
    return {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}


def _has_gpus(tool_server: ToolServer) -> bool:
    """Whether the server's pods have GPUs, by its resources or by a patch."""
    given = tool_server.spec.resources
    patched = pod_patches.applicable(tool_server.spec.pods, "servers", tool_server.spec.role)
    return pods.has_gpus({"requests": given.requests, "limits": given.limits}) or any(
        pods.has_gpus({"limits": each.resources}) for each in patched
    )


def _resources(given: settings.ResourcesSpec) -> Document:
    """The given resources, completed with defaults, which are small without a GPU: a request alone raises its limit, a limit
    alone is requested."""
    count = vllm.gpu_count(given.limits | given.requests)
    sized = {"cpu": str(CORES * count), "memory": f"{MEMORY_GIB * count}Gi"} if count else {}
    smallest, largest = REQUESTS | sized, LIMITS | sized
    extended = {key: value for key, value in (given.limits | given.requests).items() if key not in LIMITS}
    requests, limits = dict(extended), copy.copy(extended)
    for key in LIMITS:
        requests[key] = given.requests.get(key) or given.limits.get(key) or smallest[key]
        limits[key] = given.limits.get(key) or quantities.larger(requests[key], largest[key])
    return {"requests": requests, "limits": limits}

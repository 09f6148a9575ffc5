"""A ToolServer with `runtime: vllm` -> its pod: vLLM's own image, the base model as a folder, and a receiver of adapters.

vLLM reads folders only, and its image has no gog. So the base is a volume, or an init container fetches it; the token of
the Hub and the store's keys are in that container and in the receiver's alone. The receiver (gog_tools.policy.receiver)
brings adapters of trainers and of the store, and keeps a pod out of its Service until vLLM serves the ToolServer's version.

Sizes follow the number of GPUs: a pod without `resources` has one; one with several is split over them (tensor
parallelism); `resources` that name none are of a CPU.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from gog import spec as settings
from gog import vllm_options
from gog.spec.endpoints import KEY
from gog_operator.api.objects import ToolServer, ToolServerSpec
from gog_operator.build import pods, predictor, quantities, sources
from gog_operator.build.platform import Platform

GPU = "nvidia.com/gpu"
"""Resource of the GPU of a pod whose resources are not given."""
RECEIVER_PORT = 8081
"""Port of the receiver of adapters in every pod of a policy."""
PORT_NAME = "http-vllm"
"""Name of vLLM's port, by which its metrics are found: they have no port of their own."""
RECEIVER = "adapters"
"""Name of its container."""
ADAPTERS = "/adapters"
"""Folder of adapters, in vLLM's container and in the receiver's."""
ADAPTERS_SIZE = "32Gi"
"""Most of the node's disk that they take."""
FETCHED = f"{sources.ROOT}/fetched"
"""Folder of a base that the pod fetches itself."""
VERSION = "/etc/gog/version"
"""File with the checkpoint that a policy has to serve."""
CORES, MEMORY_GIB = 6, 48
"""Defaults of a pod for each of its GPUs."""
CPU_CORES, CPU_MEMORY = "2", "8Gi"
"""Defaults of a pod without GPUs."""
SHARED_MEMORY = {False: "2Gi", True: "8Gi"}
"""/dev/shm of a pod with at most one GPU, and with several, whose processes exchange tensors there. Also a vLLM without GPUs does
not start with the 64 MiB that a node gives by default."""
CACHES = {
    "USER": "gog",  # the pod's user has no entry in the image's /etc/passwd, where torch looks for its name
    "XDG_CACHE_HOME": "/tmp/cache",
    "VLLM_CACHE_ROOT": "/tmp/vllm",
    "TORCHINDUCTOR_CACHE_DIR": "/tmp/inductor",
    "TRITON_CACHE_DIR": "/tmp/triton",
}
"""Environment that keeps what vLLM writes in the folder that is writable."""
RECEIVER_RESOURCES = {"requests": {"cpu": "100m", "memory": "256Mi"}, "limits": {"cpu": "1", "memory": "4Gi"}}

Document = dict[str, Any]


def pod(tool_server: ToolServer, platform: Platform, version_map: str) -> Document:
    """The spec of a pod.

    Args:
        tool_server: The ToolServer, of role policy or judge.
        platform: The installation's settings for pods.
        version_map: Name of the ConfigMap with the version that a policy has to serve.
    """
    spec = tool_server.spec
    mounted = sources.of([each for each in sources.of_server(tool_server) if each.name == "base"], spec.sources)
    if not mounted.volumes and "://" in spec.base:
        volume = {"name": "fetched", "emptyDir": {}}
        mounted = sources.Mounted([volume], [{"name": "fetched", "mountPath": FETCHED, "readOnly": True}])
    parts = [(mounted.volumes, mounted.mounts), pods.shared_memory(SHARED_MEMORY[gpus(spec.resources) > 1])]
    if spec.role == "policy":
        parts.append(([{"name": RECEIVER, "emptyDir": {"sizeLimit": ADAPTERS_SIZE}}], [_adapters(read_only=True)]))
    server = _server(spec, platform, [mount for _, mounts in parts for mount in mounts])
    made = pods.pod(
        server,
        platform,
        scheduling=spec.scheduling,
        service_account=spec.service_account_name,
        volumes=[volume for volumes, _ in parts for volume in volumes],
    )
    if base_folder(spec).startswith(FETCHED):
        made["initContainers"] = [_fetch(spec, platform)]
    if spec.role == "policy":
        made["containers"] = [server, _receiver(spec, platform, mounted)]
        made["volumes"] = [*made["volumes"], *pods.configuration(version_map)[0]]
    if spec.store is not None:
        made["volumes"] = [*made["volumes"], *pods.credentials(spec.store, reads_only=True)[0]]
    return made | {"terminationGracePeriodSeconds": predictor.GRACE_SECONDS}


def base_folder(spec: ToolServerSpec) -> str:
    """Where the base model is in vLLM's container."""
    if sources.of([sources.Source("base", spec.base, "")], spec.sources).volumes:
        return f"{sources.ROOT}/base"
    return f"{FETCHED}/base" if "://" in spec.base else spec.base


def gpus(given: settings.ResourcesSpec) -> int:
    """GPUs of a pod, whole ones or parts (MIG); one where no resources are given."""
    amounts = given.limits | given.requests
    return gpu_count(amounts) if amounts else 1


def gpu_count(amounts: Mapping[str, str]) -> int:
    """GPUs among amounts of resources, whole ones or parts."""
    return sum(int(quantities.amount(amounts[key])) for key in amounts if is_gpu(key))


def is_gpu(resource: str) -> bool:
    """Whether a resource is a GPU: `nvidia.com/gpu`, `nvidia.com/mig-3g.40gb`, `amd.com/gpu`."""
    return resource.partition("/")[2].startswith(("gpu", "mig-"))


def resources(given: settings.ResourcesSpec) -> Document:
    """The given resources, completed by the number of GPUs."""
    count, named = gpus(given), given.limits | given.requests
    cpu, memory = (str(CORES * count), f"{MEMORY_GIB * count}Gi") if count else (CPU_CORES, CPU_MEMORY)
    amounts = {key: value for key, value in named.items() if key not in ("cpu", "memory")}
    if not named:
        amounts = {GPU: "1"}
    requests = {
        "cpu": given.requests.get("cpu") or given.limits.get("cpu") or cpu,
        "memory": given.requests.get("memory") or given.limits.get("memory") or memory,
    }
    limits = {
        key: given.limits.get(key) or quantities.larger(requests[key], default)
        for key, default in (("cpu", cpu), ("memory", memory))
    }
    return {"requests": requests | amounts, "limits": limits | amounts}


def options(spec: ToolServerSpec) -> dict[str, Any]:
    """Options of vLLM that the ToolServer implies, overridden by its own."""
    made: dict[str, Any] = {}
    if spec.role == "judge":
        made["served-model-name"] = spec.model or "judge"
    if spec.dtype is not None:
        made["dtype"] = spec.dtype
    bounds = {name: getattr(spec, name) for name in ("min_pixels", "max_pixels") if getattr(spec, name) is not None}
    if bounds:
        made["mm-processor-kwargs"] = bounds
    if (count := gpus(spec.resources)) > 1:
        made["tensor-parallel-size"] = count
    return made | spec.options


def _server(spec: ToolServerSpec, platform: Platform, mounts: list[Document]) -> Document:
    given = resources(spec.resources)
    threads = max(1, int(quantities.amount(given["limits"]["cpu"])))
    line = vllm_options.arguments(base_folder(spec), "0.0.0.0", predictor.PORT, options(spec), role=spec.role)
    key = {"name": "VLLM_API_KEY", "valueFrom": {"secretKeyRef": {"name": spec.secret_name, "key": KEY}}}
    return pods.container(
        predictor.CONTAINER,
        spec.image or platform.vllm_image,
        platform,
        command=["vllm", *line],
        env=vllm_options.ENVIRONMENT | CACHES | {"OMP_NUM_THREADS": str(threads)},
        secret_env=[key] if spec.secret_name else [],
        ports={PORT_NAME: predictor.PORT},
        resources=given,
        mounts=mounts,
        startupProbe=predictor.probe("/health", predictor.PERIOD, math.ceil(spec.startup_seconds / predictor.PERIOD)),
        readinessProbe=predictor.probe("/health", predictor.PERIOD, 5),
        livenessProbe=predictor.probe("/health", 10, 6),
        lifecycle=predictor.LIFECYCLE,
    )


def _adapters(*, read_only: bool) -> Document:
    return {"name": RECEIVER, "mountPath": ADAPTERS, "readOnly": read_only}


def _fetch(spec: ToolServerSpec, platform: Platform) -> Document:
    """The container that fetches the base before vLLM starts."""
    command = [
        "gog",
        "move",
        "model",
        spec.base,
        FETCHED,
        "--link",
        "base",
        *(["--any"] if spec.role == "judge" else []),
    ]
    return pods.container(
        "fetch-base",
        platform.tools_image,
        platform,
        command=[*command, *_store(spec)],
        env=pods.store_environment(spec.store, reads_only=True),
        env_from=pods.hub_token(spec.base_secret_name),
        resources=RECEIVER_RESOURCES,
        mounts=[{"name": "fetched", "mountPath": FETCHED}, *pods.credentials(spec.store, reads_only=True)[1]],
    )


def _receiver(spec: ToolServerSpec, platform: Platform, mounted: sources.Mounted) -> Document:
    command = ["gog", "serve", "policy", "--runtime", "receiver", "--folder", ADAPTERS, "--version", VERSION]
    command += ["--host", "0.0.0.0", "--port", str(RECEIVER_PORT), *_store(spec)]
    if mounted.mounts:
        command += ["--base", base_folder(spec)]
    return pods.container(
        RECEIVER,
        platform.tools_image,
        platform,
        command=command,
        env=pods.store_environment(spec.store, reads_only=True),
        resources=RECEIVER_RESOURCES,
        ports={"adapters": RECEIVER_PORT},
        mounts=[
            _adapters(read_only=False),
            *mounted.mounts,
            *pods.configuration("")[1],
            *pods.credentials(spec.store, reads_only=True)[1],
        ],
        startupProbe=predictor.probe("/healthz", predictor.PERIOD, 60, RECEIVER_PORT),
        readinessProbe=predictor.probe("/adapters/ready", predictor.PERIOD, 1, RECEIVER_PORT),
        livenessProbe=predictor.probe("/healthz", 10, 6, RECEIVER_PORT),
    )


def _store(spec: ToolServerSpec) -> list[str]:
    if spec.store is None:
        return []
    return ["--store", spec.store.model_dump_json(by_alias=True, exclude_unset=True)]

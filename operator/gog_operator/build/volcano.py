"""A stage's attempt -> its Volcano Job: TorchX compiles the command line and the layout, gog adds everything else.

TorchX's scheduler makes a dry run with a client that connects to no cluster. What it generates (a random name, a session)
is replaced, so that two compilations are equal and `torchx status` and `torchx log` work on the result. It cannot express
gang size, policies, owner, secrets, security and exact resources. So only command, environment and labels of its pods are
kept, and the rest is written here.

The Job never restarts by itself: when a pod fails, Volcano ends the others, and the operator starts a new attempt.
"""

from __future__ import annotations

import functools
from typing import Any

from gog import spec as specification
from gog.metrics import serving
from gog_operator.api.objects import Stage
from gog_operator.build import app, meta, pod_patches, pods, quantities, sources
from gog_operator.build.platform import Platform

CONFIG = "/etc/gog/config.yaml"
"""The stage's configuration in its pods."""
SESSION = "gog"
"""TorchX session of all jobs."""
SHARED_MEMORY = "1Gi"
"""Default size of /dev/shm with GPUs: NCCL and data loaders use it."""
INTERFACE = "eth0"
"""Network interface of pods."""
ONE_ATTEMPT = 1
"""maxRetry counts attempts, not restarts; Volcano's webhook turns 0 into 3."""

Document = dict[str, Any]


def job(stage: Stage, platform: Platform) -> Document:
    """The Job of the stage's current attempt. Its configuration is in the ConfigMap of the same name."""
    workers, image = stage.spec.workers, stage.status.image.reference or stage.spec.image or platform.trainer_image
    definition = app.compile_stage(
        stage.stage,
        name=stage.job_name,
        config=CONFIG,
        image=image,
        nodes=workers.replicas,
        processes=processes(workers),
        gpu=workers.gpus,
        env=environment(workers, platform) | pods.store_environment(stage.spec.store) | meta.writer(stage),
    )
    body = compile(definition)
    spec = body["spec"] | {
        "minAvailable": workers.replicas,
        "maxRetry": ONE_ATTEMPT,
        "queue": stage.spec.scheduling.queue,
        "policies": [{"event": event, "action": "TerminateJob"} for event in ("PodFailed", "PodEvicted")],
        "plugins": {"env": [], "svc": ["--publish-not-ready-addresses=true", "--disable-network-policy=true"]},
        "tasks": [_task(task, stage, image, platform) for task in body["spec"]["tasks"]],
    }
    priority = spec["tasks"][0]["template"]["spec"].get("priorityClassName")
    if priority:
        spec["priorityClassName"] = priority
    head = meta.head(stage.job_name, stage, "trainer", **{meta.HASH: meta.fingerprint(spec)})
    head["labels"] = _labels(stage)
    return body | {"metadata": head, "spec": spec}


def compile(definition: Any) -> Document:
    """The Volcano Job that TorchX makes of an AppDef, under the AppDef's name. Connects to no cluster."""
    from torchx.schedulers import kubernetes_scheduler

    options = {"queue": "default", "validate_spec": False, "reserved_millicpu": 0, "reserved_memmb": 0}
    request = _runner().dryrun(definition, "kubernetes", options).request
    body = kubernetes_scheduler.sanitize_for_serialization(request.resource)
    generated = body["metadata"]["name"]
    compiled: Document = _replaced(body, {generated: definition.name})
    return compiled


def processes(workers: specification.WorkersSpec) -> int:
    """Number of processes in each pod."""
    return workers.processes or max(1, workers.gpus)


def environment(workers: specification.WorkersSpec, platform: Platform) -> dict[str, str]:
    """Environment variables of every trainer process.

    A process has one thread unless the spec requests more cores: several processes that each use all cores of the node slow
    each other down.
    """
    cores = quantities.amount(workers.cpu) if workers.cpu else 1.0
    threads = max(1, int(cores) // processes(workers))
    env = {serving.PORT: str(platform.progress_port), "OMP_NUM_THREADS": str(threads)}
    if platform.linger_seconds:
        env[serving.LINGER] = str(platform.linger_seconds)
    if workers.replicas > 1:
        env["GLOO_SOCKET_IFNAME"] = INTERFACE  # otherwise gloo resolves the host name, possibly to loopback
    return env


def _task(task: Document, stage: Stage, image: str, platform: Platform) -> Document:
    """The task of one pod. TorchX makes a task for every replica, because their arguments differ."""
    template = task["template"]
    (compiled,) = template["spec"]["containers"]
    workers = stage.spec.workers
    shm = workers.shared_memory or (SHARED_MEMORY if workers.gpus else None)
    mounted = sources.of(sources.of_stage(stage), stage.spec.sources)
    model, data = stage.spec.model, stage.spec.data
    token = sources.token([(model.base, model.secret_name), (data.uri, data.secret_name)], stage.spec.sources)
    parts = [
        pods.configuration(stage.job_name),
        pods.shared_memory(shm),
        pods.credentials(stage.spec.store),
        (mounted.volumes, mounted.mounts),
    ]
    container = pods.container(
        compiled["name"],
        image,
        platform,
        command=compiled["command"],
        env={each["name"]: each["value"] for each in compiled["env"]}
        | {"TORCHX_INTERNAL_SESSION_ID": SESSION}
        | mounted.environment,
        env_from=pods.hub_token(token),
        secret_env=pods.keys(stage.spec.endpoint_secrets, stage.spec.backends),
        ports={"metrics": platform.progress_port},
        resources=pods.resources(workers),
        mounts=[mount for _, mounts in parts for mount in mounts],
    )
    pod = pods.pod(
        container,
        platform,
        scheduling=stage.spec.scheduling,
        service_account=stage.spec.service_account_name,
        volumes=[volume for volumes, _ in parts for volume in volumes],
    )
    metadata = {
        **template["metadata"],
        "labels": template["metadata"]["labels"] | platform.pod_labels() | _labels(stage),
        "annotations": (template["metadata"].get("annotations") or {}) | pods.UNMOVED,
    }
    made = {"metadata": metadata, "spec": pod | {"restartPolicy": "Never"}}
    return {**task, "template": pod_patches.apply(made, stage.spec.pods, "stages", stage.stage)}


def _labels(stage: Stage) -> dict[str, str]:
    return meta.labels(stage, "trainer") | {meta.ATTEMPT_LABEL: str(stage.status.attempt)}


def _replaced(value: Any, words: dict[str, str]) -> Any:
    if isinstance(value, dict):
        return {key: _replaced(each, words) for key, each in value.items()}
    if isinstance(value, list):
        return [_replaced(each, words) for each in value]
    if isinstance(value, str):
        for old, new in words.items():
            value = value.replace(old, new)
    return value


@functools.cache
def _runner() -> Any:
    """TorchX's runner. The import is here because it takes a second and 50 MiB, which only stages need."""
    from torchx.runner import Runner
    from torchx.schedulers.kubernetes_scheduler import KubernetesScheduler

    def factory(session_name: str, **_: Any) -> KubernetesScheduler:
        return KubernetesScheduler(session_name, client=_NoClient())

    return Runner(SESSION, {"kubernetes": factory})


class _NoClient:
    """Client for TorchX's scheduler, which would otherwise look for a cluster to connect to."""

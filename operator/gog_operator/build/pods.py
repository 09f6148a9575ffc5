"""What all our pods have in common: the restricted security profile, scratch space, the store's credentials, placement.

Pods run as one fixed user on a read-only root file system, so /tmp and /work are the only places that can be written.
They get no token of a service account unless the manifest names one: none of them speaks to the Kubernetes API. The
store's credentials reach them as the environment of a Secret that the manifest names, and nothing here reads it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from gog import spec as settings
from gog_operator.build.platform import Platform

USER = 10001
TERMINATION_LOG = "/dev/termination-log"
SECRETS = "/etc/gog-store"
GPU = "nvidia.com/gpu"

Document = dict[str, Any]


def pod(
    container: Document,
    *,
    scheduling: settings.SchedulingSpec,
    service_account: str | None,
    volumes: Sequence[Document] = (),
) -> Document:
    """A pod's spec around one container."""
    placed: Document = {
        "containers": [container],
        "securityContext": security(),
        "automountServiceAccountToken": service_account is not None,
        "enableServiceLinks": False,  # a Service called gog-metrics would set GOG_METRICS_PORT
        "volumes": [*scratch_volumes(), *volumes],
        "nodeSelector": dict(scheduling.node_selector),
        "tolerations": [
            each.model_dump(mode="json", by_alias=True, exclude_none=True) for each in scheduling.tolerations
        ],
        "priorityClassName": scheduling.priority_class_name,
        "serviceAccountName": service_account,
    }
    return without_empty(placed)


def container(
    name: str,
    image: str,
    platform: Platform,
    *,
    command: Sequence[str],
    env: dict[str, str],
    env_from: Sequence[Document] = (),
    ports: dict[str, int] | None = None,
    resources: Document | None = None,
    mounts: Sequence[Document] = (),
    **more: Any,
) -> Document:
    """ports: number by name. more: further fields of a container, such as probes."""
    body = {
        "name": name,
        "image": image,
        "imagePullPolicy": platform.image_pull_policy,
        "command": [literal(each) for each in command],
        "env": [{"name": key, "value": literal(value)} for key, value in (common_environment() | env).items()],
        "envFrom": list(env_from),
        "ports": [{"name": key, "containerPort": value, "protocol": "TCP"} for key, value in (ports or {}).items()],
        "resources": resources or {},
        "securityContext": container_security(),
        "terminationMessagePath": TERMINATION_LOG,
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": [*scratch_mounts(), *mounts],
        **more,
    }
    return without_empty(body)


def literal(text: str) -> str:
    """The text as a kubelet must read it, which expands `$(NAME)` in commands and environments."""
    return re.sub(r"\$(?=[$(])", "$$", text)


def common_environment() -> dict[str, str]:
    return {"HOME": "/tmp", "GOG_TERMINATION_LOG": TERMINATION_LOG}


def security() -> Document:
    """Of a pod."""
    return {
        "runAsNonRoot": True,
        "runAsUser": USER,
        "runAsGroup": USER,
        "fsGroup": USER,
        "seccompProfile": {"type": "RuntimeDefault"},
    }


def container_security() -> Document:
    return {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "readOnlyRootFilesystem": True,
        "runAsNonRoot": True,
    }


def scratch_volumes() -> list[Document]:
    return [{"name": "tmp", "emptyDir": {}}, {"name": "work", "emptyDir": {}}]


def scratch_mounts() -> list[Document]:
    return [{"name": "tmp", "mountPath": "/tmp"}, {"name": "work", "mountPath": "/work"}]


def shared_memory(size: str | None) -> tuple[list[Document], list[Document]]:
    """Volumes and mounts of /dev/shm; none where the node's default is enough."""
    if size is None:
        return [], []
    volume = {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": size}}
    return [volume], [{"name": "shm", "mountPath": "/dev/shm"}]


def configuration(configmap: str) -> tuple[list[Document], list[Document]]:
    """Volume and mount of a ConfigMap at /etc/gog."""
    volume = {"name": "config", "configMap": {"name": configmap}}
    return [volume], [{"name": "config", "mountPath": "/etc/gog", "readOnly": True}]


def credentials(
    store: settings.StoreSpec | None, *, prefix: str = "", folder: str = SECRETS
) -> tuple[list[Document], list[Document], list[Document]]:
    """envFrom, volumes and mounts by which a pod reaches the store; nothing where its service account does.

    prefix: of the environment's names, and folder, for a second store. The Secret's ca.crt may be absent, then so is
    the file."""
    if store is None or store.secret_name is None:
        return [], [], []
    name = folder.rsplit("/", 1)[-1]
    secret = {"secretName": store.secret_name, "items": [{"key": "ca.crt", "path": "ca.crt"}], "optional": True}
    source: Document = {"secretRef": {"name": store.secret_name}}
    return (
        [{"prefix": prefix, **source} if prefix else source],
        [{"name": name, "secret": secret}],
        [{"name": name, "mountPath": folder, "readOnly": True}],
    )


def keys(secrets: Mapping[str, str]) -> list[Document]:
    """envFrom by which a pod has the key of each tool that asks for one: JUDGE_GOG_API_KEY. secrets: name by role."""
    return [
        {"prefix": settings.key_variable(role).removesuffix(settings.KEY), "secretRef": {"name": secret}}
        for role, secret in sorted(secrets.items())
    ]


def store_environment(store: settings.StoreSpec | None, *, prefix: str = "", folder: str = SECRETS) -> dict[str, str]:
    """Where to find the authority of the store's certificate, should its Secret hold one."""
    return {} if store is None or store.secret_name is None else {f"{prefix}AWS_CA_BUNDLE": f"{folder}/ca.crt"}


def resources(cpu: str | None, memory: str | None, gpus: int) -> Document:
    """Requests and limits alike: a trainer that may be throttled or evicted holds up the others of its job."""
    amounts = without_empty({"cpu": cpu, "memory": memory, GPU: str(gpus) if gpus else None})
    return {"requests": amounts, "limits": dict(amounts)} if amounts else {}


def without_empty(body: Document) -> Document:
    """Without fields that say nothing; a False says something."""
    return {key: value for key, value in body.items() if value is not None and value not in ({}, [], "")}

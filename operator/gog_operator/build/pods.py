"""Settings that all pods of gog share: the restricted security profile, scratch space, credentials, scheduling.

Pods run as one fixed user, or as one that the cluster chooses, on a read-only root file system, so only /tmp and /work are
writable. They have no service account token unless the manifest names an account, because none of them uses the Kubernetes
API. The store's credentials reach them as files of a Secret that the manifest names; gog does not read it.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from gog import api_keys
from gog import spec as settings
from gog_operator.build.platform import Platform

TERMINATION_LOG = "/dev/termination-log"
SECRETS = "/etc/gog-store"
TRUSTED = "/etc/gog-ca"
"""Folder with the certificate authorities of the installation."""
AUTHORITIES = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "AWS_CA_BUNDLE")
"""Variables that name the file of trusted authorities: for Python and httpx, requests, curl, boto3."""
LEAST = {"cpu": "100m", "memory": "256Mi"}
"""Requests of a pod with GPUs whose manifest gives none."""
UNMOVED = {"cluster-autoscaler.kubernetes.io/safe-to-evict": "false", "karpenter.sh/do-not-disrupt": "true"}
"""Annotations of pods that an autoscaler must not move to save a node: all pods of the job would end with it."""

Document = dict[str, Any]


def pod(
    container: Document,
    platform: Platform,
    *,
    scheduling: settings.SchedulingSpec,
    service_account: str | None,
    volumes: Sequence[Document] = (),
) -> Document:
    """A pod's spec around one container.

    Args:
        container: The container.
        platform: The installation's settings for pods.
        scheduling: Node selector, tolerations and priority class.
        service_account: Its service account; None for none.
        volumes: Volumes besides the scratch folders.
    """
    placed: Document = {
        "containers": [container],
        "securityContext": security(platform.user),
        "automountServiceAccountToken": service_account is not None,
        "enableServiceLinks": False,  # a Service called gog-metrics would set GOG_METRICS_PORT
        "volumes": [*scratch_volumes(), *_trusted_ca(platform)[0], *volumes],
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
    secret_env: Sequence[Document] = (),
    ports: dict[str, int] | None = None,
    resources: Document | None = None,
    mounts: Sequence[Document] = (),
    **more: Any,
) -> Document:
    """A container.

    Args:
        name: Its name.
        image: Its image.
        platform: The installation's settings for pods.
        command: Its command line.
        env: Environment variables by name.
        env_from: Sources of more environment variables.
        secret_env: Environment variables with single keys of Secrets.
        ports: Port numbers by name.
        resources: Requests and limits.
        mounts: Mounts besides the scratch folders.
        more: Further fields, such as probes.
    """
    body = {
        "name": name,
        "image": image,
        "imagePullPolicy": platform.image_pull_policy,
        "command": [literal(each) for each in command],
        "env": [
            *({"name": key, "value": literal(value)} for key, value in (common_environment(platform) | env).items()),
            *secret_env,
        ],
        "envFrom": list(env_from),
        "ports": [{"name": key, "containerPort": value, "protocol": "TCP"} for key, value in (ports or {}).items()],
        "resources": resources or {},
        "securityContext": container_security(),
        "terminationMessagePath": TERMINATION_LOG,
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": [*scratch_mounts(), *_trusted_ca(platform)[1], *mounts],
        **more,
    }
    return without_empty(body)


def literal(text: str) -> str:
    """The text, escaped for the kubelet, which expands `$(NAME)` in commands and environments."""
    return re.sub(r"\$(?=[$(])", "$$", text)


def common_environment(platform: Platform) -> dict[str, str]:
    """Environment variables of every container. Each HTTP library has a name of its own for the file of authorities."""
    file = f"{TRUSTED}/ca.crt"
    trusted = dict.fromkeys(AUTHORITIES, file) if platform.trusted_ca else {}
    return {**platform.env, "HOME": "/tmp", "GOG_TERMINATION_LOG": TERMINATION_LOG, **trusted}


def _trusted_ca(platform: Platform) -> tuple[list[Document], list[Document]]:
    """Volume and mount of the installation's certificate authorities."""
    if not platform.trusted_ca:
        return [], []
    items = [{"key": platform.trusted_ca_key, "path": "ca.crt"}]
    volume = {"name": "gog-ca", "configMap": {"name": platform.trusted_ca, "items": items}}
    return [volume], [{"name": "gog-ca", "mountPath": TRUSTED, "readOnly": True}]


def security(user: int | None) -> Document:
    """Security context of a pod. user: user and group; None leaves the choice to the cluster."""
    fixed = {} if user is None else {"runAsUser": user, "runAsGroup": user, "fsGroup": user}
    return {"runAsNonRoot": True, **fixed, "seccompProfile": {"type": "RuntimeDefault"}}


def container_security() -> Document:
    """Security context of a container."""
    return {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "readOnlyRootFilesystem": True,
        "runAsNonRoot": True,
    }


def scratch_volumes() -> list[Document]:
    """Volumes of the folders that are writable."""
    return [{"name": "tmp", "emptyDir": {}}, {"name": "work", "emptyDir": {}}]


def scratch_mounts() -> list[Document]:
    """Mounts of the folders that are writable."""
    return [{"name": "tmp", "mountPath": "/tmp"}, {"name": "work", "mountPath": "/work"}]


def shared_memory(size: str | None) -> tuple[list[Document], list[Document]]:
    """Volumes and mounts of /dev/shm. size: a quantity; None for the node's default."""
    if size is None:
        return [], []
    volume = {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": size}}
    return [volume], [{"name": "shm", "mountPath": "/dev/shm"}]


def configuration(configmap: str) -> tuple[list[Document], list[Document]]:
    """Volume and mount of a ConfigMap at /etc/gog."""
    volume = {"name": "config", "configMap": {"name": configmap}}
    return [volume], [{"name": "config", "mountPath": "/etc/gog", "readOnly": True}]


def credentials(
    store: settings.StoreSpec | None, *, folder: str = SECRETS, reads_only: bool = False
) -> tuple[list[Document], list[Document]]:
    """Volumes and mounts with the store's Secret as files; empty where the service account has access.

    Files, unlike the environment, are not inherited by other programs and not printed with it.

    Args:
        store: The store; None for none.
        folder: Folder of the files.
        reads_only: Whether the pod only reads from the store.
    """
    secret = secret_of(store, reads_only=reads_only)
    if secret is None:
        return [], []
    name = folder.rsplit("/", 1)[-1]
    return (
        [{"name": name, "secret": {"secretName": secret}}],
        [{"name": name, "mountPath": folder, "readOnly": True}],
    )


def secret_of(store: settings.StoreSpec | None, *, reads_only: bool = False) -> str | None:
    """Name of the Secret with the store's keys; None where there is none. reads_only: whether the pod only reads."""
    if store is None:
        return None
    return (store.reader_secret_name if reads_only else None) or store.secret_name


def keys(secrets: Mapping[str, str], started: Collection[str] = ()) -> list[Document]:
    """Environment variables with the API key of each tool that requires one: JUDGE_GOG_API_KEY.

    A caller gets this key alone: the Secret may also hold keys of vendors, which only the server's own pods need.

    Args:
        secrets: Names of Secrets by role.
        started: Roles whose servers gog starts. Their Secret may lack the key; the server then requires none.
    """
    return [
        {
            "name": settings.key_variable(role),
            "valueFrom": {
                "secretKeyRef": {"name": secret, "key": settings.KEY} | ({"optional": True} if role in started else {})
            },
        }
        for role, secret in sorted(secrets.items())
    ]


def hub_token(secret: str | None) -> list[Document]:
    """envFrom with HF_TOKEN, with which what is at the Hugging Face Hub is fetched. secret: name of the Secret."""
    return [{"secretRef": {"name": secret}}] if secret else []


def store_environment(
    store: settings.StoreSpec | None, *, prefix: str = "", folder: str = SECRETS, reads_only: bool = False
) -> dict[str, str]:
    """The environment variables that name the folder of the store's keys, and the authority of its certificate, whose
    file may be missing.

    Args:
        store: The store; None for none.
        prefix: Prefix of the variables, for a second store.
        folder: Folder of the files.
        reads_only: Whether the pod only reads from the store.
    """
    if secret_of(store, reads_only=reads_only) is None:
        return {}
    return {f"{prefix}{api_keys.STORE_KEYS}": folder, f"{prefix}AWS_CA_BUNDLE": f"{folder}/ca.crt"}


def has_gpus(resources: Mapping[str, Any]) -> bool:
    """Whether requests and limits include GPUs or parts of them."""
    named = {name for part in ("requests", "limits") for name in resources.get(part) or ()}
    return any(re.fullmatch(settings.GPU_RESOURCE, name) for name in named)


def resources(workers: settings.WorkersSpec) -> Document:
    """Equal requests and limits, because a throttled or evicted trainer delays the other trainers of its job.

    A pod with GPUs and no other amount requests a little of each all the same: without any request it would be the first
    that a node under pressure evicts.

    """
    gpus = {workers.gpu_resource: str(workers.gpus) if workers.gpus else None}
    amounts = without_empty({"cpu": workers.cpu, "memory": workers.memory, **gpus})
    if not amounts:
        return {}
    return {"requests": (LEAST if workers.gpus else {}) | amounts, "limits": dict(amounts)}


def without_empty(body: Document) -> Document:
    """A mapping without its empty values; false is not empty."""
    return {key: value for key, value in body.items() if value is not None and value not in ({}, [], "")}

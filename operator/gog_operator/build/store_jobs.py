"""Store jobs: small Jobs that work on a store with the run's own credentials.

The operator holds no credentials and does not use S3. It creates a store job and reads the result from the termination
message of its pod. A failure that a retry cannot fix (exit code 2) ends the Job at once; a pod that is moved to another
node does not count as a failure. The Job is kept as long as its owner, because its message may not have been read yet.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Literal

from gog import spec as settings
from gog.errors import UserError
from gog.metrics import serving
from gog_operator.api.objects import Object
from gog_operator.build import meta, pod_patches, pods
from gog_operator.build import settings as files
from gog_operator.build.platform import Platform

Command = Literal["check", "data", "erase", "fetch", "publish", "report", "tools"]
Document = dict[str, Any]

FILE = "config.yaml"
"""Name of the configuration in its ConfigMap."""
CONTAINER = "store-job"
TOOL_CHECK = "tool-check"
"""Component of a check of tools, which may connect to the servers and has no store."""
TARGETS = {"tools": "toolChecks"}
"""Targets of patches by command, where they are not `storeJobs`."""
_COMMANDS = {"tools": ("tools", "check")}
"""Command lines of commands that are not subcommands of `gog move`."""
INVALID = 2
"""Exit code of an error that a user has to correct."""
DEADLINE_SECONDS = 3600
"""Seconds that a Job may take."""
BACKOFF_LIMIT = 2
"""Retries of a failed pod."""
OTHER = "GOG_TARGET_"
"""Prefix of the environment variables with the credentials of a second store."""
OTHER_KEYS = "/etc/gog-target"
"""Folder with the keys and the certificate authority of a second store."""
LARGEST = 900_000
"""Most bytes of a configuration; a ConfigMap holds 1 MiB."""


def job(
    name: str,
    owner: Object,
    command: Command,
    config: Document,
    store: settings.StoreSpec | None,
    platform: Platform,
    also: settings.StoreSpec | None = None,
    scheduling: settings.SchedulingSpec | None = None,
    service_account: str | None = None,
    secret_env: Sequence[Document] = (),
    patches: pod_patches.Patches = (),
) -> tuple[Document, Document]:
    """The ConfigMap and the Job of a store job.

    Args:
        name: Name of both.
        owner: Run, stage or ToolServer that they belong to.
        command: Subcommand of `gog move`, or `tools` for `gog tools check`.
        config: The configuration that the subcommand reads.
        store: The store; None for a command without one.
        platform: The installation's settings for pods.
        also: A second store that is written to.
        scheduling: Scheduling of the pod.
        service_account: Service account of the pod; None for none.
        secret_env: Environment variables with single keys of Secrets.
        patches: Patches of pods.

    Raises:
        UserError: the configuration does not fit into a ConfigMap.
    """
    component = TOOL_CHECK if command == "tools" else "store-job"
    configmap = files.configmap(name, owner, {FILE: _fitting(config)}, component=component)
    metadata = meta.head(name, owner, component, **{meta.HASH: meta.fingerprint(config)})
    placed = scheduling or settings.SchedulingSpec()
    template = {
        "metadata": {"labels": platform.pod_labels() | meta.labels(owner, component)},
        "spec": _pod(name, owner, command, store, also, platform, placed, service_account, secret_env),
    }
    body = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": metadata,
        "spec": {
            "backoffLimit": BACKOFF_LIMIT,
            "activeDeadlineSeconds": DEADLINE_SECONDS,
            "podReplacementPolicy": "Failed",  # so that never two of them work on one store
            "podFailurePolicy": {"rules": _rules()},
            "template": pod_patches.apply(template, patches, TARGETS.get(command, "storeJobs")),
        },
    }
    return configmap, body


def _rules() -> list[Document]:
    return [
        {"action": "FailJob", "onExitCodes": {"containerName": CONTAINER, "operator": "In", "values": [INVALID]}},
        {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
    ]


def serve_progress(job: Document, platform: Platform) -> None:
    """Lets a store job's container report its progress on a port."""
    (container,) = job["spec"]["template"]["spec"]["containers"]
    container["env"].append({"name": serving.PORT, "value": str(platform.progress_port)})
    container["ports"] = [{"name": "metrics", "containerPort": platform.progress_port, "protocol": "TCP"}]


def _pod(
    name: str,
    owner: Object,
    command: Command,
    store: settings.StoreSpec | None,
    also: settings.StoreSpec | None,
    platform: Platform,
    scheduling: settings.SchedulingSpec,
    service_account: str | None,
    secret_env: Sequence[Document],
) -> Document:
    parts = [pods.configuration(name), pods.credentials(store)]
    env = pods.store_environment(store) | (meta.writer(owner) if store is not None else {})
    if store is not None and also is not None and also.secret_name not in (None, store.secret_name):
        env |= pods.store_environment(also, prefix=OTHER, folder=OTHER_KEYS)
        parts.append(pods.credentials(also, folder=OTHER_KEYS))
    container = pods.container(
        CONTAINER,
        platform.tools_image,
        platform,
        command=["gog", *_COMMANDS.get(command, ("move", command)), "--config", f"/etc/gog/{FILE}"],
        env=env,
        secret_env=secret_env,
        resources={"requests": {"cpu": "100m", "memory": "256Mi"}, "limits": {"cpu": "2", "memory": "2Gi"}},
        mounts=[mount for _, mounts in parts for mount in mounts],
    )
    volumes = [volume for each, _ in parts for volume in each]
    pod = pods.pod(container, platform, scheduling=scheduling, service_account=service_account, volumes=volumes)
    return pod | {"restartPolicy": "Never"}


def _fitting(config: Document) -> str:
    """The configuration's text, without its oldest events where they do not fit into a ConfigMap.

    It is JSON, which is valid YAML, because PyYAML takes a hundred times as long to write a run's objects.
    """
    text = _text(config)
    events = list(config.get("events") or ())
    while len(text.encode()) > LARGEST and events:
        events = events[len(events) // 4 + 1 :]
        text = _text({**config, "events": events})
    if len(text.encode()) > LARGEST:
        what = f"the configuration of a store job has {len(text.encode()):,} bytes, more than {LARGEST:,}"
        raise UserError(what, remedy="give the run fewer arms")
    return text


def _text(config: Document) -> str:
    return json.dumps(config, indent=1, ensure_ascii=False) + "\n"

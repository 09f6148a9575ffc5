"""The sources of a pod that are volumes: where a base model and a dataset lie, mounted read-only.

A manifest names `pvc://claim/path` and `oci://image` itself. What it names by `hf://` or `s3://` may have been fetched into a
claim before; the object's `sources` then says where. Readers find a folder by its address (gog.mounts). Pure.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from dataclasses import field as dataclass_field
from typing import Any

from gog import catalog, mounts
from gog import spec as settings
from gog_operator.api.objects import Stage, ToolServer

ROOT = "/mnt/gog"
"""Folder below which sources are mounted, by what they are."""

Document = dict[str, Any]


@dataclass(frozen=True)
class Mounted:
    """Volumes of a pod."""

    volumes: list[Document] = dataclass_field(default_factory=list)
    """Of the pod."""
    mounts: list[Document] = dataclass_field(default_factory=list)
    """Of its containers."""
    environment: dict[str, str] = dataclass_field(default_factory=dict)
    """Of its containers: the folder of each source."""


@dataclass(frozen=True)
class Source:
    """A source that an object names."""

    name: str
    """What it is, and the name of its volume: base, data."""
    address: str
    """As the object has it."""
    path: str
    """The field, for messages: `spec.model.base`."""
    is_written: bool = False
    """Whether the pod writes to it."""


def of_stage(stage: Stage) -> list[Source]:
    """The sources of a stage, and the claim of its recorded answers."""
    found = _named(stage.spec.model.base, "spec.model.base", stage.spec.data)
    cache = stage.spec.tools.cache
    if cache.path is not None and cache.path.startswith(mounts.PVC):
        parent, field = cache.path.rpartition("/")[0], "spec.tools.cache.path"
        found.append(Source("answers", parent, field, is_written=not cache.is_replay))
    return found


def of_server(server: ToolServer) -> list[Source]:
    """The sources of a server. Roles that answer from the request alone read no dataset."""
    reads = catalog.SERVER_BY_NAME[server.spec.role].reads_data
    return _named(server.spec.base, "spec.base", server.spec.data if reads else None)


def _named(base: str, field: str, data: settings.DataSpec | None) -> list[Source]:
    found = [Source("base", base, field)] if base else []
    if data is not None and data.uri is not None:
        found.append(Source("data", data.uri, "spec.data.uri"))
    return found


def of(addresses: Iterable[Source], fetched: Mapping[str, str]) -> Mounted:
    """The volumes of sources; none for those that a pod fetches itself.

    Args:
        addresses: the sources
        fetched: volume of each source that was fetched before, by its address
    """
    made = Mounted()
    folders: dict[str, str] = {}
    for source in addresses:
        volume = mounts.parse(fetched.get(source.address, source.address))
        if volume is None:
            continue
        name, place = f"source-{source.name}", f"{ROOT}/{source.name}"
        made.volumes.append(_volume(name, volume, is_written=source.is_written))
        mount = {"name": name, "mountPath": place, "readOnly": not source.is_written}
        made.mounts.append(mount | ({"subPath": volume.path} if volume.path else {}))
        folders[source.address] = place
    if folders:
        made.environment[mounts.VARIABLE] = json.dumps(folders, sort_keys=True)
    return made


def token(named: Iterable[tuple[str | None, str | None]], fetched: Mapping[str, str]) -> str | None:
    """The Secret with the token of the Hub that a pod needs; None for one that fetches nothing with a token.

    Args:
        named: address and Secret of each source
        fetched: as `of` has it
    """
    return next((secret for address, secret in named if secret and address not in fetched), None)


def _volume(name: str, volume: mounts.Claim | mounts.Image, *, is_written: bool) -> Document:
    if isinstance(volume, mounts.Claim):
        return {"name": name, "persistentVolumeClaim": {"claimName": volume.name, "readOnly": not is_written}}
    return {"name": name, "image": {"reference": volume.reference, "pullPolicy": "IfNotPresent"}}


_CAUSES: tuple[tuple[str, str], ...] = (
    (
        r'persistentvolumeclaim "(?P<claim>[^"]+)" not found',
        "there is no PersistentVolumeClaim {claim} in the namespace: create it, or correct the name",
    ),
    (
        r"(didn't match PersistentVolume's node affinity|volume node affinity conflict|no available volume zone)",
        "its volume is in a zone without a suitable node: use a class whose volumes all zones reach, or a nodeSelector of "
        "the volume's zone",
    ),
    (
        r"(unbound immediate PersistentVolumeClaims|persistentvolumeclaim .* bound to non-existent persistentvolume)",
        "its claim has no volume yet: give it a StorageClass that the cluster has, or bind it",
    ),
    (
        r"(Multi-Attach error|already exclusively attached)",
        "its volume is attached to another node: use a claim with access mode ReadOnlyMany or ReadWriteMany",
    ),
)
"""What Kubernetes says of a volume that a pod waits for, and what to do about it."""
_IMAGE = re.compile(r"(ErrImagePull|ImagePullBackOff|failed to pull|InvalidImageName|image volume)", re.IGNORECASE)


def explained(message: str, addresses: Iterable[Source], fetched: Mapping[str, str]) -> str:
    """Field, reason and remedy of a source that pods wait for; empty where the message is of something else.

    Args:
        message: what Kubernetes says
        addresses: the sources of the pods
        fetched: as `of` has it
    """
    for source in addresses:
        volume = mounts.parse(fetched.get(source.address, source.address))
        if isinstance(volume, mounts.Claim):
            for pattern, remedy in _CAUSES:
                found = re.search(pattern, message)
                if found and found.groupdict().get("claim", volume.name) == volume.name:
                    return f"{source.path}: {source.address}: {remedy.format(claim=volume.name)} ({message})"
        elif isinstance(volume, mounts.Image) and volume.reference in message and _IMAGE.search(message):
            remedy = "correct the image, or give the pods its pull secret"
            return f"{source.path}: {source.address} cannot be pulled: {remedy} ({message})"
    return ""

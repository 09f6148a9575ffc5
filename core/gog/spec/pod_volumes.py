"""Volumes that a patch may add to pods: those of the restricted security profile that a run has a use for."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from gog.spec.base import KubeName, Quantity, Spec

RESERVED_VOLUMES = ("tmp", "work", "shm", "config", "adapters", "fetched", "kserve-provision-location")
"""Volumes that gog or KServe add themselves; so are all whose names begin with `gog-` or `source-`."""
RESERVED_PATHS = ("/", "/tmp", "/work", "/dev", "/dev/shm", "/proc", "/sys", "/etc", "/adapters", "/mnt/models")
"""Folders that a mount must not replace; so are all below /etc/gog, /dev, /proc, /sys and /var/run/secrets."""
RESERVED_BELOW = ("/etc/gog", "/mnt/gog", "/dev/", "/proc/", "/sys/", "/var/run/secrets", "/run/secrets")
"""Prefixes of folders that a mount must not replace or hide."""
NOT_PLAIN = "//|/[.]{1,2}(/|$)"
"""Paths that may be another form of a reserved one: `/x/../tmp`. Container runtimes mount there all the same."""
FilePath = Annotated[str, Field(min_length=1, max_length=1024)]


class VolumeItem(Spec):
    """A key as a file."""

    key: str = Field(min_length=1, max_length=253, description="The key.")
    path: FilePath = Field(description="Path of its file in the volume.")


class SecretVolume(Spec):
    """A Secret of the run's namespace as files."""

    secret_name: KubeName = Field(description="Name of the Secret.")
    items: tuple[VolumeItem, ...] = Field((), max_length=32, description="Keys and their files. Default: all keys.")
    optional: bool = Field(False, description="Whether the pod starts without it.")


class ConfigMapVolume(Spec):
    """A ConfigMap of the run's namespace as files."""

    name: KubeName = Field(description="Name of the ConfigMap.")
    items: tuple[VolumeItem, ...] = Field((), max_length=32, description="Keys and their files. Default: all keys.")
    optional: bool = Field(False, description="Whether the pod starts without it.")


class ClaimVolume(Spec):
    """A PersistentVolumeClaim of the run's namespace."""

    claim_name: KubeName = Field(
        description="Name of the claim. Pods on several nodes need one that several nodes can mount; a claim of one zone "
        "keeps all of them in that zone."
    )
    read_only: bool = Field(False, description="Whether the volume is attached for reading only.")


class ScratchVolume(Spec):
    """An empty folder that is deleted with the pod."""

    medium: Literal["", "Memory"] = Field("", description="Memory: a file system in memory. Default: the node's disk.")
    size_limit: Quantity | None = Field(None, description="Largest size. Default: no limit.")


class ImageVolume(Spec):
    """The files of an OCI image, read-only, as a cluster with image volumes mounts them."""

    reference: str = Field(
        min_length=1, max_length=512, description="The image: `registry.example.org/models/qwen@sha256:…`."
    )
    pull_policy: Literal["Always", "IfNotPresent", "Never"] | None = Field(
        None, description="When it is pulled. Default: IfNotPresent, or Always for the tag latest."
    )


class PodVolume(Spec):
    """A volume: exactly one of its sources."""

    name: KubeName = Field(max_length=63, description="Name of the volume. Those that gog uses are reserved.")
    secret: SecretVolume | None = Field(None, description="A Secret as files.")
    config_map: ConfigMapVolume | None = Field(None, description="A ConfigMap as files.")
    persistent_volume_claim: ClaimVolume | None = Field(None, description="A PersistentVolumeClaim.")
    empty_dir: ScratchVolume | None = Field(None, description="An empty folder.")
    image: ImageVolume | None = Field(None, description="An OCI image.")


class VolumeMount(Spec):
    """Where the container has a volume."""

    name: KubeName = Field(max_length=63, description="Name of a volume of the same patch.")
    mount_path: str = Field(
        max_length=1024,
        pattern="^/[^:]*$",
        description="Absolute path of the folder in the container. Folders that gog and the system use are reserved.",
    )
    sub_path: str | None = Field(None, max_length=1024, description="Folder in the volume. Default: its root.")
    read_only: bool = Field(False, description="Whether the container may only read.")

"""What a store holds: blobs by their hash, and manifests that say which of them make up a checkpoint."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pydantic import BaseModel, ConfigDict, Field


class Blob(BaseModel):
    """A file of a checkpoint. hash: its BLAKE3; size in bytes; crc64nvme: as S3 writes it (base64), so that a HEAD can
    tell whether the object is whole. It is missing where awscrt is not installed, which only `file://` allows."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    hash: str = Field(pattern=r"^[0-9a-f]{64}$")
    size: int = Field(ge=0)
    crc64nvme: str | None = Field(None, pattern=r"^[A-Za-z0-9+/]{11}=$")

    @property
    def key(self) -> str:
        return f"blobs/{self.hash}"


class Manifest(BaseModel):
    """A committed checkpoint. parents: the checkpoints it was made from, as `stage/step`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    version: int = 1
    stage: str
    step: int = Field(ge=0)
    files: dict[str, Blob]
    meta: dict[str, Any] = Field(default_factory=dict)
    parents: tuple[str, ...] = ()
    created: str = ""

    @property
    def ref(self) -> str:
        return f"{self.stage}/{self.step}"

    @property
    def key(self) -> str:
        return manifest_key(self.stage, self.step)

    @property
    def timestamp(self) -> float:
        """When it was committed, in seconds since 1970; 0 for one that does not say."""
        return datetime.fromisoformat(self.created).timestamp() if self.created else 0.0

    def holds(self, files: dict[str, Blob]) -> bool:
        """Whether it is of these files, by hash."""
        return {name: blob.hash for name, blob in self.files.items()} == {n: blob.hash for n, blob in files.items()}


def manifest_key(stage: str, step: int) -> str:
    return f"manifests/{stage}/{step:09d}.json"

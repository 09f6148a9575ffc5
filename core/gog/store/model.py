"""The records of a store: blobs by their hash, and manifests that list the blobs of a checkpoint."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pydantic import BaseModel, ConfigDict, Field


class Blob(BaseModel):
    """A file of a checkpoint."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    hash: str = Field(pattern=r"^[0-9a-f]{64}$", description="BLAKE3 of the content.")
    size: int = Field(ge=0, description="In bytes.")
    crc64nvme: str | None = Field(
        None,
        pattern=r"^[A-Za-z0-9+/]{11}=$",
        description="CRC64NVME in base64, as S3 writes it, so that a HEAD request shows whether an object is whole. None "
        "where awscrt is not installed, which only `file://` allows.",
    )

    @property
    def key(self) -> str:
        """Its key in the store."""
        return f"blobs/{self.hash}"


class Manifest(BaseModel):
    """A committed checkpoint."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    version: int = Field(1, description="Of this form.")
    stage: str = Field(description="Key of the stage that made it, such as `sft` or `grpo-no-gaze`.")
    step: int = Field(ge=0, description="Step of the stage.")
    files: dict[str, Blob] = Field(description="By path relative to the checkpoint.")
    meta: dict[str, Any] = Field(default_factory=dict, description="Results and settings; finite numbers only.")
    parents: tuple[str, ...] = Field((), description="Checkpoints it was made from, as `stage/step`.")
    created: str = Field("", description="When it was committed, ISO 8601; empty if unknown.")

    @property
    def ref(self) -> str:
        """`stage/step`."""
        return f"{self.stage}/{self.step}"

    @property
    def key(self) -> str:
        """Its key in the store."""
        return manifest_key(self.stage, self.step)

    @property
    def timestamp(self) -> float:
        """When it was committed, in seconds since 1970; 0 if unknown."""
        return datetime.fromisoformat(self.created).timestamp() if self.created else 0.0

    def holds(self, files: dict[str, Blob]) -> bool:
        """Whether it consists of these files, by hash."""
        return {name: blob.hash for name, blob in self.files.items()} == {n: blob.hash for n, blob in files.items()}


def manifest_key(stage: str, step: int) -> str:
    """Key of a checkpoint's manifest."""
    return f"manifests/{stage}/{step:09d}.json"

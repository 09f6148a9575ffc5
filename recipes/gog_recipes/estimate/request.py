"""What `gog estimate` asks for, and what it gets: JSON on both sides, because the console knows no torch."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field


class Record(BaseModel):
    """Frozen, without unknown fields."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class StageRequest(Record):
    """One stage to estimate."""

    key: str
    """Key of its checkpoints in the store."""
    kind: str
    """sft, stratify, grpo or evaluate."""
    gpus: int = Field(ge=1)
    """GPUs of the stage, each with one process."""
    gpus_per_node: int = Field(ge=1)
    """GPUs that share the memory of one host."""
    config: dict[str, Any]
    """Configuration of the recipe, preset included."""


class Request(Record):
    """A run on GPUs."""

    gpu_bytes: int = Field(ge=1)
    """Memory of each GPU."""
    model: str
    """Folder of the base model with its config.json, or the name of a published one."""
    stages: list[StageRequest]
    """The stages, in order."""


class Phase(Record):
    """Memory of one GPU in a phase of a stage."""

    name: str
    """vision, prefill, decode, update or loading."""
    items: dict[str, int]
    """Bytes by item at the phase's peak; items of the traced code, then the allowances."""
    total: int
    """Their sum."""
    knobs: list[str]
    """What lowers it, most effective first."""


class Speed(Record):
    """How long a step takes under the stated assumptions."""

    rollout_seconds: float
    """Of sampling."""
    update_seconds: float
    """Of the passes and the optimizer step."""
    assumes: str
    """The assumptions, as a list in words."""


class StageEstimate(Record):
    """One stage."""

    key: str
    """As requested."""
    phases: list[Phase]
    """In order of time."""
    host_bytes: int
    """Memory of each host."""
    disk_bytes: int
    """Of the checkpoints in the store."""
    speed: Speed | None
    """Of a training step; None for a stage that trains nothing."""
    notes: list[str]
    """What the figures leave out or depend on."""


class Estimate(Record):
    """The answer."""

    model: str
    """Name of the configuration that was used."""
    parameters: int
    """Of the base model."""
    gpu_bytes: int
    """As requested."""
    stages: list[StageEstimate]
    """In order."""
    fits: bool
    """Whether every phase fits."""
    verdict: str
    """The end of the report: what would run out first, and what changes it."""

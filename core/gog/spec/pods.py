"""Pods, on a cluster: how many, how large, where. One machine reads past this."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from gog.spec.base import Quantity, Spec


class WorkersSpec(Spec):
    """Pods of a stage's job, on a cluster. On one machine a stage is one process."""

    replicas: int = Field(
        1,
        ge=1,
        le=256,
        description="Pods; they start together or not at all. More would not fit into one job, which tells of every pod.",
    )
    processes: int | None = Field(
        None, ge=1, le=64, description="Processes in each pod. Default: one per GPU, at least one."
    )
    gpus: int = Field(0, ge=0, le=64, description="GPUs of each pod.")
    cpu: Quantity | None = Field(None, description="Cores of each pod, as request and limit. Default: no limit.")
    memory: Quantity | None = Field(None, description="Memory of each pod, as request and limit. Default: no limit.")
    shared_memory: Quantity | None = Field(
        None, description="Size of /dev/shm. Default: 1Gi with GPUs, else the node's 64Mi."
    )


ResourceName = Annotated[str, Field(max_length=253)]


class ResourcesSpec(Spec):
    """Of one server's pod, as Kubernetes writes them."""

    requests: dict[ResourceName, Quantity] = Field(
        default_factory=dict, max_length=16, description="What the node must have free, by resource: `cpu: 500m`."
    )
    limits: dict[ResourceName, Quantity] = Field(
        default_factory=dict, max_length=16, description="What the pod may use at most: `nvidia.com/gpu: 1`."
    )


class TolerationSpec(Spec):
    """A taint of nodes that pods put up with, as Kubernetes writes it."""

    key: str | None = Field(None, max_length=316, description="Of the taint. Default: every key, with Exists.")
    operator: Literal["Exists", "Equal"] = Field("Equal", description="Whether `value` must be the taint's.")
    value: str | None = Field(None, max_length=63, description="Of the taint, with Equal. Default: empty.")
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = Field(
        None, description="Of the taint. Default: every effect."
    )
    toleration_seconds: int | None = Field(
        None, ge=0, description="How long a pod stays on a node so tainted, with NoExecute. Default: for ever."
    )


LabelKey = Annotated[str, Field(max_length=317)]
LabelValue = Annotated[str, Field(max_length=63)]


class SchedulingSpec(Spec):
    """Where pods of a run may go, on a cluster."""

    queue: str = Field("default", max_length=63, description="Volcano queue of the stages' jobs.")
    priority_class_name: str | None = Field(
        None, max_length=253, description="PriorityClass of the pods. Default: the cluster's default class."
    )
    node_selector: dict[LabelKey, LabelValue] = Field(
        default_factory=dict, max_length=32, description="Labels that a node must have."
    )
    tolerations: tuple[TolerationSpec, ...] = Field(
        (), max_length=32, description="Taints that pods put up with. Default: none."
    )


class Placement(Spec):
    """What a manifest says of a stage besides its recipe's settings."""

    workers: WorkersSpec = Field(WorkersSpec(), description="Pods of the stage's job, on a cluster.")

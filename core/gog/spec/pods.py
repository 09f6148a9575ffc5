"""Pods on a cluster: number, size, placement. Ignored on one machine."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from gog.spec.base import LABEL_KEY, LABEL_VALUE, KubeName, Quantity, Spec

GPU_RESOURCE = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?/(gpu|mig-)[-A-Za-z0-9_.]*$"
"""Pattern of the names of resources that are GPUs or parts of them."""


class WorkersSpec(Spec):
    """Pods of a stage's job, on a cluster. On one machine a stage is one process."""

    replicas: int = Field(
        1,
        ge=1,
        le=256,
        description="Pods; they start together or not at all. The limit is what the status of one job can hold.",
    )
    processes: int | None = Field(
        None, ge=1, le=64, description="Processes in each pod. Default: one per GPU, at least one."
    )
    gpus: int = Field(0, ge=0, le=64, description="GPUs of each pod.")
    gpu_resource: str = Field(
        "nvidia.com/gpu",
        max_length=253,
        pattern=GPU_RESOURCE,
        description="Resource by which the cluster counts its GPUs: `nvidia.com/mig-3g.40gb`, `amd.com/gpu`.",
    )
    cpu: Quantity | None = Field(None, description="Cores of each pod, as request and limit. Default: no limit.")
    memory: Quantity | None = Field(None, description="Memory of each pod, as request and limit. Default: no limit.")
    shared_memory: Quantity | None = Field(
        None, description="Size of /dev/shm. Default: 1Gi with GPUs, else the node's 64Mi."
    )


ResourceName = Annotated[str, Field(max_length=253)]


class ResourcesSpec(Spec):
    """Resources of a server's pod, in the form of Kubernetes."""

    requests: dict[ResourceName, Quantity] = Field(
        default_factory=dict,
        max_length=16,
        description="Amounts that the scheduler reserves on the node, by resource: `cpu: 500m`.",
    )
    limits: dict[ResourceName, Quantity] = Field(
        default_factory=dict,
        max_length=16,
        description="Amounts that the pod cannot exceed, by resource: `nvidia.com/gpu: 1`.",
    )


class TolerationSpec(Spec):
    """A taint of nodes that pods tolerate, in the form of Kubernetes."""

    key: str | None = Field(
        None,
        max_length=316,
        pattern=LABEL_KEY,
        description="Key of the taint. Default: every key, with operator Exists.",
    )
    operator: Literal["Exists", "Equal"] = Field(
        "Equal", description="Equal: `value` must equal the taint's; Exists: any value."
    )
    value: str | None = Field(
        None, max_length=63, pattern=LABEL_VALUE, description="Value of the taint, with operator Equal. Default: empty."
    )
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = Field(
        None, description="Effect of the taint. Default: every effect."
    )
    toleration_seconds: int | None = Field(
        None,
        ge=0,
        description="Seconds that a pod stays on a node with this taint, with effect NoExecute. Default: no limit.",
    )


LabelKey = Annotated[str, Field(max_length=317)]
LabelValue = Annotated[str, Field(max_length=63, pattern=LABEL_VALUE)]


class SchedulingSpec(Spec):
    """Where pods of a run are scheduled, on a cluster."""

    queue: KubeName = Field("default", max_length=63, description="Volcano queue of the stages' jobs.")
    priority_class_name: KubeName | None = Field(
        None, description="PriorityClass of the pods. Default: the cluster's default class."
    )
    node_selector: dict[LabelKey, LabelValue] = Field(
        default_factory=dict, max_length=32, description="Labels that a node must have."
    )
    tolerations: tuple[TolerationSpec, ...] = Field(
        (), max_length=32, description="Taints that pods tolerate. Default: none."
    )


class Placement(Spec):
    """Settings of a stage's pods, beside those of its recipe."""

    workers: WorkersSpec = Field(WorkersSpec(), description="Pods of the stage's job, on a cluster.")

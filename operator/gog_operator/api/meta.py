"""What every object of the API group carries besides its own spec and status.

The shapes are Kubernetes' own, so that one file is read by `gog run` and by `kubectl apply`. Only fields that gog
reads or writes are here: what a cluster adds (managedFields, selfLink) is dropped by whoever talks to the cluster.
"""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from gog.spec import Spec

API_VERSION = "gog.dev/v1alpha1"
CANCEL = "gog.dev/cancel"
"""Annotation by which a person asks for the end of a run; its value is of no matter."""
CONTROLLER = "gog.dev/operator"
"""Our own name in spec.managedBy; an object of another's name is left alone."""
RUN_LABEL = "gog.dev/run"

ObjectName = Annotated[str, Field(pattern=r"^[a-z]([-a-z0-9]*[a-z0-9])?$", max_length=63)]


class Reason(StrEnum):
    """Every reason a condition may give: programs compare these, people read the message."""

    PREPARING = "PreparingData"
    STARTING = "Starting"
    WAITING = "WaitingForEndpoints"
    RUNNING = "Running"
    RETRYING = "Retrying"
    CURATING = "Curating"
    FINE_TUNING = "FineTuning"
    STRATIFYING = "Stratifying"
    TRAINING = "Training"
    EVALUATING = "Evaluating"
    SUSPENDED = "Suspended"
    RESUMED = "Resumed"
    COMPLETE = "Complete"
    STAGE_FAILED = "StageFailed"
    DATA_FAILED = "DataFailed"
    SERVER_FAILED = "ServerFailed"
    RESTARTING = "Restarting"
    READY = "Ready"
    EXTERNAL = "External"
    CHECKING = "CheckingCheckpoint"
    REPORTING = "WritingReport"
    SERVING = "LoadingPolicy"
    JUDGE_DOWN = "JudgeDown"
    TOOL_DOWN = "ToolDown"
    PENDING = "PodsPending"
    UNSCHEDULABLE = "Unschedulable"
    IMAGE_MISSING = "ImageMissing"
    SECRET_MISSING = "SecretMissing"
    QUEUE_MISSING = "QueueMissing"
    CRD_MISSING = "CustomResourceMissing"
    REFUSED = "RefusedByCluster"
    NAMESPACE_ENDING = "NamespaceTerminating"
    NAME_TAKEN = "NameTaken"
    STORE_MISSING = "StoreMissing"
    STORE_FAILED = "StoreFailed"
    BACKOFF_LIMIT = "BackoffLimitExceeded"
    INVALID_INPUT = "InvalidInput"
    CANCELLED = "Cancelled"


class OwnerReference(Spec):
    api_version: str = API_VERSION
    kind: str
    name: str
    uid: str
    controller: bool = True


class Metadata(Spec):
    name: ObjectName = Field(description="Lower-case letters, digits and hyphens; names the run folder, too.")
    namespace: str | None = None
    labels: dict[str, str] = Field(default_factory=dict)
    annotations: dict[str, str] = Field(default_factory=dict)
    uid: str = Field("", description="Given at creation; tells an object from a later one of the same name.")
    generation: int = Field(1, description="Counts changes of spec.")
    resource_version: str = Field("", description="Changes with every write; a write from an older one is refused.")
    creation_timestamp: datetime | None = None
    owner_references: tuple[OwnerReference, ...] = ()


MESSAGE_LENGTH = 32_768
Message = Annotated[
    str,
    Field(max_length=MESSAGE_LENGTH),
    BeforeValidator(lambda text: text if len(text) <= MESSAGE_LENGTH else f"{text[: MESSAGE_LENGTH - 1]}…"),
]
"""Cut rather than refused: it may quote a program's last words, and a status must always be writable."""


class Condition(Spec):
    """A fact about the object."""

    type: Literal["Ready", "Suspended", "Complete", "Failed", "Progressing"] = Field(description="What the fact is.")
    status: Literal["True", "False", "Unknown"] = Field(description="Whether it holds.")
    reason: Reason = Field(description="Why, in one word for programs.")
    message: Message = Field("", description="Why, in a sentence for people.")
    observed_generation: int = Field(1, description="The metadata.generation that the condition tells of.")
    last_transition_time: datetime = Field(description="When `status` last changed.")

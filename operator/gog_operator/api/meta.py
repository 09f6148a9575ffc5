"""Metadata, owner references, conditions, reasons and images, which every object of the API group has.

They have the form of Kubernetes' own, so that `gog run` and `kubectl apply` read the same file. Only fields that gog reads
or writes are here; what a cluster adds (managedFields, selfLink) is dropped where gog reads from the cluster.
"""

from __future__ import annotations

import re
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import (
    BeforeValidator,
    Field,
    PlainSerializer,
    ValidationError,
    ValidationInfo,
    ValidatorFunctionWrapHandler,
    WrapValidator,
)

from gog.spec import Spec

API_VERSION = "gog.dev/v1alpha1"
GROUP, VERSION = API_VERSION.split("/")
CANCEL = "gog.dev/cancel"
"""Annotation that cancels a run or a stage, where its value is one of AFFIRMATIVE."""
ROLLBACK = "gog.dev/rollback"
"""Annotation of an agent with the version that is rolled back: one that is tried or served."""
AFFIRMATIVE = ("true", "yes")
"""Values with which an annotation requests something, in any case."""
FOLLOW = "gog.dev/follow-upgrades"
"""Annotation of a stage or a ToolServer that lets it follow the operator's default image, where its value is one of
AFFIRMATIVE."""
KEEP = "gog.dev/keep-artifacts"
"""Annotation of a run that lets its deletion go on without erasing its artifacts, where its value is one of AFFIRMATIVE."""
ARTIFACTS = "gog.dev/artifacts"
"""Finalizer of a run whose artifacts are erased before it disappears."""
WORKERS = "gog.dev/run-workers"
"""Annotation of a run's stage with the workers that the run gave it last, as JSON."""
CONTROLLER = "gog.dev/operator"
"""Value of spec.managedBy of objects that gog manages; others are ignored."""
RUN_LABEL = "gog.dev/run"
"""Label with the name of the run that an object belongs to."""

_NAME, _NAME_LENGTH = r"^[a-z]([-a-z0-9]*[a-z0-9])?$", 63
ObjectName = Annotated[str, Field(pattern=_NAME, max_length=_NAME_LENGTH)]


def is_name(word: object) -> bool:
    """Whether an object of the API group can have this name."""
    return isinstance(word, str) and len(word) <= _NAME_LENGTH and re.fullmatch(_NAME, word) is not None


class Reason(StrEnum):
    """Every reason that a condition may have. Programs compare reasons; people read the message."""

    PREPARING = "PreparingData"
    STARTING = "Starting"
    WAITING = "WaitingForToolServers"
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
    REPLICAS = "ReplicasMissing"
    EXTERNAL = "External"
    CHECKING = "CheckingStore"
    CHECKING_TOOLS = "CheckingTools"
    TOOLS_ANSWER = "ToolsAnswer"
    TOOLS_FAILED = "ToolsFailed"
    TOOLS_DOWN = "ToolsDown"
    REPORTING = "WritingReport"
    SERVING = "LoadingPolicy"
    GATE = "CheckingGate"
    GATE_PASSED = "GatePassed"
    GATE_FAILED = "GateFailed"
    CANARY = "Canary"
    PROMOTED = "Promoted"
    ROLLED_BACK = "RolledBack"
    REPLACED = "Replaced"
    JUDGE_DOWN = "JudgeDown"
    TOOL_DOWN = "ToolDown"
    PENDING = "PodsPending"
    QUEUED = "Queued"
    UNSCHEDULABLE = "Unschedulable"
    IMAGE_MISSING = "ImageMissing"
    UNKNOWN_FIELDS = "UnknownFields"
    PINNED = "Pinned"
    IMAGE_UNRESOLVED = "ImageUnresolved"
    IMAGES_DIFFER = "ImagesDiffer"
    ERASING = "ErasingArtifacts"
    ERASED = "Erased"
    ERASE_FAILED = "EraseFailed"
    STORE_SHARED = "StoreShared"
    KEPT = "ArtifactsKept"
    SECRET_MISSING = "SecretMissing"
    SOURCE_UNAVAILABLE = "SourceUnavailable"
    FETCHING = "FetchingModel"
    FETCHED = "Fetched"
    FETCH_FAILED = "FetchFailed"
    QUEUE_MISSING = "QueueMissing"
    CRD_MISSING = "CustomResourceMissing"
    RUNTIME_MISSING = "RuntimeNotFound"
    REFUSED = "RefusedByCluster"
    NAMESPACE_ENDING = "NamespaceTerminating"
    NAME_TAKEN = "NameTaken"
    STORE_MISSING = "StoreMissing"
    STORE_FAILED = "StoreFailed"
    BACKOFF_LIMIT = "BackoffLimitExceeded"
    INVALID_INPUT = "InvalidInput"
    CANCELLED = "Cancelled"

    @classmethod
    def newer(cls, word: str) -> Reason:
        """A reason of a newer version: equal to its word, and no member of the vocabulary."""
        reason = str.__new__(cls, word)
        reason._name_ = reason._value_ = word
        return reason


LENIENT = {"newer_conditions": True}
"""Validation context in which a condition's type and reason may be ones that this version does not know."""
UNKNOWN_REASON = "Unknown"
"""Reason of a condition that gives none."""
_REASON = re.compile(r"[A-Za-z]([A-Za-z0-9_,:]{0,1022}[A-Za-z0-9_])?")
"""Reasons that the API conventions of Kubernetes allow."""


ConditionType = Literal[
    "Ready",
    "Suspended",
    "Complete",
    "Failed",
    "Progressing",
    "ToolsChecked",
    "Served",
    "Promoted",
    "ModelFetched",
    "Reconciling",
    "Stalled",
    "ImagePinned",
    "FieldsIgnored",
    "ArtifactsErased",
]
"""The types of conditions that gog sets and reads. Others, of a newer version, are kept and have no effect."""
_TYPE = re.compile(r"([a-z0-9][-a-z0-9.]*/)?[A-Za-z0-9][-A-Za-z0-9_.]*")
"""Condition types, much as the API conventions of Kubernetes allow them."""
_TYPE_LENGTH = 316
"""Most characters of a condition type."""


def _read_type(word: Any, handler: ValidatorFunctionWrapHandler, info: ValidationInfo) -> Any:
    try:
        return handler(word)
    except ValidationError:
        if (
            info.context != LENIENT
            or not isinstance(word, str)
            or len(word) > _TYPE_LENGTH
            or not _TYPE.fullmatch(word)
        ):
            raise
        return word


def _read_reason(word: Any, handler: ValidatorFunctionWrapHandler, info: ValidationInfo) -> Any:
    try:
        return handler(word)
    except ValidationError:
        if info.context != LENIENT or not isinstance(word, str) or not _REASON.fullmatch(word):
            raise
        return Reason.newer(word)


class OwnerReference(Spec):
    """A reference to the object that owns another."""

    api_version: str = Field(API_VERSION, description="Group and version of the owner.")
    kind: str = Field(description="Kind of the owner.")
    name: str = Field(description="Name of the owner.")
    uid: str = Field(description="uid of the owner.")
    controller: bool = Field(True, description="Whether the owner manages the object.")


class Metadata(Spec):
    """Metadata of an object, as gog reads it."""

    name: ObjectName = Field(description="Lower-case letters, digits and hyphens; also the name of the run folder.")
    namespace: str | None = Field(None, description="Namespace, on a cluster.")
    labels: dict[str, str] = Field(default_factory=dict, description="Labels.")
    annotations: dict[str, str] = Field(default_factory=dict, description="Annotations.")
    uid: str = Field("", description="Set at creation; distinguishes an object from a later one of the same name.")
    generation: int = Field(1, description="Number of the present spec; every change of the spec increments it.")
    resource_version: str = Field("", description="Changes with every write; a write based on an older one is refused.")
    creation_timestamp: datetime | None = Field(None, description="When the object was created.")
    deletion_timestamp: datetime | None = Field(None, description="When its deletion was requested; None before.")
    finalizers: tuple[str, ...] = Field((), description="What must happen before it disappears.")
    owner_references: tuple[OwnerReference, ...] = Field((), description="The objects that own it.")


MESSAGE_LENGTH = 32_768
"""Most characters of a condition's message."""
Message = Annotated[
    str,
    Field(max_length=MESSAGE_LENGTH),
    BeforeValidator(lambda text: text if len(text) <= MESSAGE_LENGTH else f"{text[: MESSAGE_LENGTH - 1]}…"),
]
"""Text that is cut rather than refused: it may quote a log, and a status must always be writable."""


class Condition(Spec):
    """One condition of an object."""

    type: Annotated[ConditionType, WrapValidator(_read_type), PlainSerializer(str)] = Field(
        description="Type of the condition."
    )
    status: Literal["True", "False", "Unknown"] = Field(description="Whether it holds.")
    reason: Annotated[Reason, WrapValidator(_read_reason)] = Field(
        description="Why, as one CamelCase word for programs."
    )
    message: Message = Field("", description="Why, in a sentence for people.")
    observed_generation: int = Field(1, description="The metadata.generation that the condition refers to.")
    last_transition_time: datetime = Field(description="When `status` last changed.")


_BY_DIGEST = re.compile(r"[^\s,@]+@sha256:[0-9a-f]{64}")
"""A reference by digest."""


class ImageStatus(Spec):
    """The image of an object's pods."""

    reference: str = Field("", max_length=1024, description="Reference that the pods are created with.")
    id: str = Field(
        "",
        max_length=4096,
        description="What the nodes resolved it to, as they report it: `registry/name@sha256:…`, or the id of an image that "
        "was not pulled. Several, where pods differ.",
    )

    @property
    def pullable(self) -> str:
        """Reference by digest, from which any node pulls the same image; empty where there is none."""
        _, _, plain = self.id.rpartition("://")
        return plain if _BY_DIGEST.fullmatch(plain) else ""


class JobReference(Spec):
    """The job of an attempt."""

    api_version: str = Field("", max_length=253, description="Group and version of the job.")
    kind: str = Field("", max_length=63, description="Kind of the job.")
    name: str = Field("", max_length=63, description="Name of the job.", json_schema_extra={"pattern": _NAME})
    """Checked by the API server; a status that has another one all the same must be readable."""

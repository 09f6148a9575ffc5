"""The custom resources: GoGRun, five stages, ToolServer.

A stage's spec is its recipe's own configuration (`gog.spec`) plus a lifecycle, so that the recipe reads exactly what the
manifest says. Objects are frozen; a change is a copy. Fields that a user did not set are never written (`document()`),
because the model family's preset takes precedence over a default.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import Field, PrivateAttr

from gog import catalog
from gog import spec as settings
from gog.spec import Spec
from gog_operator.api import conditions, names
from gog_operator.api.lifecycle import MANAGED_BY, SERVICE_ACCOUNT, Lifecycle
from gog_operator.api.meta import (
    AFFIRMATIVE,
    API_VERSION,
    CANCEL,
    FOLLOW,
    Condition,
    ImageStatus,
    JobReference,
    Metadata,
    OwnerReference,
    is_name,
)
from gog_operator.api.records import AttemptEnd, CanaryStatus, Erasure, Preparation, StoreCheck, ToolCheck

if TYPE_CHECKING:
    Role = str
else:
    Role = Literal[catalog.ROLES]  # one value for each row of the catalogue


class Committed(Spec):
    """A checkpoint, as the job that wrote it reports it."""

    ref: str = Field(max_length=128, description="Key and step: `sft/180`.")
    complete: bool = Field(False, description="Whether it is the stage's last.")


class WaitingFor(Spec):
    """A service that a stage waits for, because it is down."""

    reason: str = Field("", max_length=128, description="One word for programs: `JudgeDown`, `ToolDown`.")
    message: str = Field("", max_length=1024, description="Which service, and why its last call failed.")
    since: datetime | None = Field(None, description="When the wait began.")
    until: datetime | None = Field(None, description="When the stage gives up; its attempt then fails and is retried.")


class Progress(Spec):
    """The last progress report of a stage."""

    step: int = Field(0, description="Completed optimizer steps, or questions in stages without steps.")
    total: int = Field(0, description="Number of steps or questions in all.")
    metrics: dict[settings.Text, Any] = Field(
        default_factory=dict, max_length=256, description="The recipe's metrics, by name."
    )
    checkpoint: Committed | None = Field(None, description="The newest committed checkpoint.")
    waiting: WaitingFor | None = Field(None, description="The service that the stage waits for. Default: none.")


class Summary(Spec):
    """The figures of `kubectl get`, as text, because a column cannot format numbers."""

    stage: str = Field("", max_length=63, description="Key of a run's current stage: `grpo`, `grpo-no-gaze`.")
    progress: str = Field("", max_length=32, description="Completed steps of all: `41/120`.")
    reward: str = Field("", max_length=32, description="Mean reward of the last steps: `0.47`.")
    tool_failures: str = Field("", max_length=32, description="Fraction of tool calls that failed: `1.8%`.")


class Status(Spec):
    """The observed state. Written by gog only."""

    conditions: tuple[Condition, ...] = Field((), max_length=16, description="Conditions of the object.")
    observed_generation: int = Field(0, description="The metadata.generation that this status refers to.")
    start_time: datetime | None = Field(None, description="When work on it started.")
    completion_time: datetime | None = Field(None, description="When it completed or failed.")
    preparation: Preparation = Field(Preparation(), description="The repeated fetch of its sources, or of its dataset.")


class RunStatus(Status, settings.FetchedSources):
    """The observed state of a run. Written by gog only."""

    stage: str = Field("", max_length=63, description="Name of the current stage object.")
    summary: Summary = Field(Summary(), description="The figures of `kubectl get`.")
    tool_check: ToolCheck = Field(ToolCheck(), description="The check of its tools.")
    images: dict[settings.Text, settings.Text] = Field(
        default_factory=dict, max_length=128, description="Image of each stage, by its key, on a cluster."
    )
    erasure: Erasure = Field(Erasure(), description="The erasure of its artifacts, once it is being deleted.")
    version: str = Field("", max_length=128, description="Version of its agent that the run has published.")
    jobs_removed_time: datetime | None = Field(
        None, description="When its ended jobs were deleted, with their pods and logs, after jobTtlSeconds."
    )


class StageStatus(Status):
    """The observed state of a stage. Written by gog only."""

    attempt: int = Field(0, description="Number of the newest attempt; written before its job is created.")
    attempt_time: datetime | None = Field(None, description="When the attempt was numbered.")
    running_time: datetime | None = Field(
        None, description="When the first pod of the attempt was seen running; activeDeadlineSeconds counts from it."
    )
    store_check: StoreCheck = Field(StoreCheck(), description="The look at what the attempt left in the store.")
    failures: int = Field(0, description="Number of failed attempts; interrupted attempts do not count.")
    retry_time: datetime | None = Field(
        None, description="When the next attempt starts; set when the failure of an attempt is counted."
    )
    progress: Progress | None = Field(None, description="The last progress report.")
    summary: Summary = Field(Summary(), description="The figures of `kubectl get`.")
    checkpoint: str = Field("", max_length=128, description="Newest committed checkpoint: `sft/180`.")
    observed_attempt: int = Field(
        0, description="Newest attempt whose job was observed; if that job disappears, it is not created again."
    )
    ended: AttemptEnd | None = Field(None, description="How the newest attempt ended, once it has.")
    image: ImageStatus = Field(ImageStatus(), description="Image of the newest attempt, on a cluster.")
    job_ref: JobReference | None = Field(None, description="Job of the newest attempt, on a cluster.")
    pods: tuple[settings.Text, ...] = Field(
        (), max_length=256, description="Names of the newest attempt's pods, once they have started."
    )
    jobs_removed_time: datetime | None = Field(
        None, description="When its ended jobs were deleted, with their pods and logs, after jobTtlSeconds."
    )


class ToolServerStatus(Status):
    """The observed state of a ToolServer. Written by gog only."""

    url: str = Field("", max_length=1024, description="Base URL of the server.")
    replicas: int = Field(0, description="Number of pods; read by `kubectl scale` and autoscalers.")
    pods: tuple[settings.Text, ...] = Field(
        (), max_length=256, description="Names of its pods, as they were when it last became ready or lacked one."
    )
    selector: str = Field("", max_length=256, description="Label selector of its pods; read by autoscalers.")
    version: str = Field("", max_length=256, description="Checkpoint that every pod serves: `grpo/120`.")
    port: int = Field(0, description="Local port; the same after a restart.")
    restarts: int = Field(0, description="Number of restarts of the server.")
    failures: int = Field(0, description="Number of starts in a row that never became ready.")
    retry_time: datetime | None = Field(None, description="When the server is restarted.")
    image: ImageStatus = Field(ImageStatus(), description="Image of its pods, on a cluster.")
    canary: CanaryStatus = Field(CanaryStatus(), description="New version of an agent that is tried.")


class Object(Spec):
    """An object of the API group."""

    api_version: Literal["gog.dev/v1alpha1"] = "gog.dev/v1alpha1"
    """Group and version."""
    kind: str
    """Kind."""
    metadata: Metadata
    """Metadata."""
    spec: Spec
    """The desired state."""
    status: Status = Status()
    """The observed state."""
    _ignored: tuple[str, ...] = PrivateAttr(())

    @property
    def ignored(self) -> tuple[str, ...]:
        """Parts of its spec that this version does not know and ignores."""
        return self._ignored

    def without(self, ignored: tuple[str, ...]) -> Self:
        """The object, read without parts of its spec."""
        (copied := self.model_copy())._ignored = ignored
        return copied

    @property
    def name(self) -> str:
        return self.metadata.name

    @property
    def key(self) -> tuple[str, str]:
        return self.kind, self.name

    @property
    def finished(self) -> bool:
        return conditions.finished(self.status.conditions)

    @property
    def cancelled(self) -> bool:
        """Whether its annotation requests the end; another value than true or yes does not."""
        return self.is_annotated(CANCEL)

    @property
    def is_terminating(self) -> bool:
        """Whether its deletion was requested; finalizers still hold it."""
        return self.metadata.deletion_timestamp is not None

    @property
    def follows_upgrades(self) -> bool:
        """Whether its annotation requests the operator's present default image instead of the pinned one."""
        return self.is_annotated(FOLLOW)

    def is_annotated(self, name: str) -> bool:
        """Whether an annotation is true or yes."""
        return self.metadata.annotations.get(name, "").strip().lower() in AFFIRMATIVE

    def holds(self, type_: str) -> bool:
        return conditions.holds(self.status.conditions, type_)

    def condition(self, type_: str) -> Condition | None:
        return conditions.find(self.status.conditions, type_)

    def owner_reference(self) -> OwnerReference:
        return OwnerReference(kind=self.key[0], name=self.name, uid=self.metadata.uid)

    def owned_by(self, owner: Object) -> bool:
        return any(each.uid == owner.metadata.uid for each in self.metadata.owner_references)


class GoGRun(Object):
    """A training run: makes demonstrations, fine-tunes the model, grades the questions by difficulty, improves the policy by
    GRPO with live tool calls, and evaluates it. It owns a stage object for each of these and a ToolServer for each server.
    """

    kind: Literal["GoGRun"] = "GoGRun"
    spec: settings.RunSpec
    status: RunStatus = RunStatus()


class StageSpec(settings.StageConfig, Lifecycle):
    """What the specs of the five stage kinds have in common."""


class CurateSpec(settings.CurateConfig, StageSpec):
    """Settings of the recipe and of its pods."""


class SFTSpec(settings.SFTConfig, StageSpec):
    """Settings of the recipe and of its pods."""


class StratifySpec(settings.StratifyConfig, StageSpec):
    """Settings of the recipe and of its pods."""


class GRPOSpec(settings.GRPOConfig, StageSpec):
    """Settings of the recipe and of its pods."""


class EvaluateSpec(settings.EvaluateConfig, StageSpec):
    """Settings of the recipe and of its pods."""


class Stage(Object):
    """What the five stage kinds have in common."""

    spec: StageSpec
    """The desired state."""
    status: StageStatus = StageStatus()
    """The observed state."""

    @property
    def stage(self) -> str:
        """curate, sft, stratify, grpo or evaluate."""
        return STAGE_OF[self.key[0]]

    @property
    def store_key(self) -> str:
        return self.spec.key

    @property
    def job_name(self) -> str:
        """Name of the newest attempt's job, as it was written with the attempt's number."""
        known = self.status.job_ref
        return known.name if known is not None and is_name(known.name) else names.job(self.name, self.status.attempt)


class CurateStage(Stage):
    """Makes demonstrations: trajectories of a teacher that uses the run's own tools. Owned by a run, or standalone."""

    kind: Literal["CurateStage"] = "CurateStage"
    spec: CurateSpec


class SFTStage(Stage):
    """Fine-tunes LoRA adapters of the base model on demonstrations. Owned by a run, or standalone."""

    kind: Literal["SFTStage"] = "SFTStage"
    spec: SFTSpec


class StratifyStage(Stage):
    """Grades questions by how often the fine-tuned model solves them. Owned by a run, or standalone."""

    kind: Literal["StratifyStage"] = "StratifyStage"
    spec: StratifySpec


class GRPOStage(Stage):
    """Improves a policy by GRPO, with live tool calls. Owned by a run, or standalone."""

    kind: Literal["GRPOStage"] = "GRPOStage"
    spec: GRPOSpec


class EvaluateStage(Stage):
    """Compares policies on held-out questions. Owned by a run, or standalone."""

    kind: Literal["EvaluateStage"] = "EvaluateStage"
    spec: EvaluateSpec


class ToolServerSpec(settings.PolicyEndpointSpec, settings.Patched):
    """A server that gog starts (backend), or one that exists already (url)."""

    role: Role = Field(description="Role of the server.")
    data: settings.DataSpec | None = Field(None, description="Dataset that the server answers from. Default: none.")
    store: settings.StoreSpec | None = Field(
        None,
        description="Store from which datasets at s3:// addresses and the policy's adapters are read, on a cluster. "
        "Default: none.",
    )
    base: str = Field(
        "",
        max_length=1024,
        description="Model of the server, as a run's model.base; required by role policy and by runtime vllm. Default: none.",
    )
    base_secret_name: settings.KubeName | None = Field(
        None, description="Secret with HF_TOKEN, as a run's model.secretName. Default: none."
    )
    dtype: Literal["float32", "bfloat16"] | None = Field(
        None, description="Type of the policy server's weights. Default: as the base model stores them."
    )
    max_pixels: int | None = Field(
        None,
        ge=784,
        le=50_000_000,
        description="Most pixels of an image that the policy sees, as a run's model.maxPixels. With runtime vllm it is "
        "among the options (mm-processor-kwargs). Default: that of the base's image processor, but at most 1,003,520.",
    )
    min_pixels: int | None = Field(
        None,
        ge=784,
        le=50_000_000,
        description="Fewest pixels of an image that the policy sees, as a run's model.minPixels. Default: that of the "
        "base's image processor.",
    )
    version: str = Field(
        "",
        max_length=256,
        description="Checkpoint that the policy serves: `grpo/120`; further ones after it, separated by spaces, are loaded for "
        "clients that name them. Of an agent: the version that it is to serve. Default: the base.",
    )
    agent: settings.AgentSpec | None = Field(
        None, description="What an agent answers with; required by role agent. Default: none."
    )
    scheduling: settings.SchedulingSpec = Field(
        settings.SchedulingSpec(), description="Scheduling of its pods, on a cluster."
    )
    service_account_name: settings.KubeName | None = Field(None, description=SERVICE_ACCOUNT)
    image: str | None = Field(
        None, max_length=512, description="Image of its pods. Default: the operator's image for the role."
    )
    suspend: bool = Field(False, description="Remove the pods and keep the object.")
    managed_by: str | None = Field(None, max_length=63, description=MANAGED_BY)


class ToolServer(Object):
    """A server: a tool of the agent (grounding, image search, text search), the judge, the policy, or an agent that owns its
    tools and its policy. Owned by a run or an agent, or standalone.
    """

    kind: Literal["ToolServer"] = "ToolServer"
    spec: ToolServerSpec
    status: ToolServerStatus = ToolServerStatus()


_STAGE_CLASSES = (CurateStage, SFTStage, StratifyStage, GRPOStage, EvaluateStage)
STAGE_KINDS: dict[str, type[Stage]] = {
    stage.name: cls for stage in catalog.STAGES for cls in _STAGE_CLASSES if cls.__name__ == stage.kind
}
STAGE_OF = {cls.__name__: stage for stage, cls in STAGE_KINDS.items()}
KINDS: dict[str, type[Object]] = {
    "GoGRun": GoGRun,
    **{cls.__name__: cls for cls in STAGE_KINDS.values()},
    "ToolServer": ToolServer,
}


def document(thing: Object) -> dict[str, Any]:
    """An object as it is written to a file or sent to a cluster: only fields that are set, camelCase."""
    body = thing.model_dump(mode="json", by_alias=True, exclude_unset=True)
    return {"apiVersion": API_VERSION, "kind": thing.kind} | body


def parse(body: dict[str, Any]) -> Object:
    """The object of a document that gog wrote. A user's file is read by `manifest.load`."""
    return KINDS[body["kind"]].model_validate(body)

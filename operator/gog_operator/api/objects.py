"""The custom resources: GoGRun, five stages, Endpoint.

A stage's spec is its recipe's own configuration (`gog.spec`) plus a lifecycle, so that the recipe reads exactly what the
manifest says. Objects are frozen; a change is a copy. Fields that a user did not set are never written (`document()`),
because the model family's preset takes precedence over a default.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from gog import catalog
from gog import spec as settings
from gog.spec import Spec
from gog_operator.api import conditions, names
from gog_operator.api.meta import API_VERSION, CANCEL, CANCELLING, Condition, Message, Metadata, OwnerReference

if TYPE_CHECKING:
    Role = str
else:
    Role = Literal[catalog.SERVER_NAMES]  # one value for each row of the catalogue


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


class AttemptEnd(Spec):
    """How an attempt ended."""

    attempt: int = Field(description="Number of the attempt.")
    message: Message = Field(
        "", description="How it ended: `invalid input: …`, `exit 1: …`, `suspended at checkpoint sft/5`."
    )


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


class ToolCheck(Spec):
    """The check of a run's tools."""

    number: int = Field(0, description="Number of the newest check; written before its job is created.")
    waited_seconds: float = Field(
        0.0, description="Seconds waited between checks since the run was created or resumed; ends at the patience."
    )
    retry_time: datetime | None = Field(None, description="When the next check starts, after a fault that may pass.")


class RunStatus(Status):
    """The observed state of a run. Written by gog only."""

    stage: str = Field("", max_length=63, description="Name of the current stage object.")
    summary: Summary = Field(Summary(), description="The figures of `kubectl get`.")
    tool_check: ToolCheck = Field(ToolCheck(), description="The check of its tools.")


class StoreCheck(Spec):
    """Looks at the store that failed since the attempt ended."""

    failures: int = Field(0, description="Number of failed looks.")
    retry_time: datetime | None = Field(None, description="When the store is looked at again.")


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


class EndpointStatus(Status):
    """The observed state of an Endpoint. Written by gog only."""

    url: str = Field("", max_length=1024, description="Base URL of the server.")
    replicas: int = Field(0, description="Number of pods; read by `kubectl scale` and autoscalers.")
    selector: str = Field("", max_length=256, description="Label selector of its pods; read by autoscalers.")
    version: str = Field("", max_length=128, description="Checkpoint that every pod serves: `grpo/120`.")
    port: int = Field(0, description="Local port; the same after a restart.")
    restarts: int = Field(0, description="Number of restarts of the server.")
    failures: int = Field(0, description="Number of starts in a row that never became ready.")
    retry_time: datetime | None = Field(None, description="When the server is restarted.")


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
        return self.metadata.annotations.get(CANCEL, "").strip().lower() in CANCELLING

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
    GRPO with live tool calls, and evaluates it. It owns a stage object for each of these and an Endpoint for each server.
    """

    kind: Literal["GoGRun"] = "GoGRun"
    spec: settings.RunSpec
    status: RunStatus = RunStatus()


MANAGED_BY = (
    "Controller that manages the object; gog ignores an object of another one. Default: gog.dev/operator, which is gog."
)
SERVICE_ACCOUNT = "Service account of the pods, on a cluster; gives them credentials without a Secret. Default: none."


class Lifecycle(settings.Placement):
    """What the control plane, not the recipe, reads of a stage."""

    suspend: bool = Field(False, description="Stop at the last checkpoint and wait.")
    backoff_limit: int = Field(3, ge=0, le=100, description="Number of failed attempts that are retried.")
    active_deadline_seconds: int | None = Field(
        None, ge=1, description="Seconds that one attempt may take, from its first running pod. Default: no limit."
    )
    queue_deadline_seconds: int | None = Field(
        None,
        ge=1,
        description="Seconds that one attempt may wait for its first running pod, on a cluster. Default: no limit.",
    )
    ttl_seconds_after_finished: int | None = Field(
        None,
        ge=0,
        description="Seconds after which a finished stage is deleted, on a cluster; the contents of the store are kept. "
        "Default: never.",
    )
    managed_by: str | None = Field(None, max_length=63, description=MANAGED_BY)
    scheduling: settings.SchedulingSpec = Field(
        settings.SchedulingSpec(), description="Scheduling of its pods, on a cluster."
    )
    service_account_name: settings.KubeName | None = Field(None, description=SERVICE_ACCOUNT)
    image: str | None = Field(
        None, max_length=512, description="Image of its pods. Default: the operator's trainer image."
    )
    retention: settings.RetentionSpec | None = Field(None, description="Which checkpoints are kept. Default: all.")
    endpoint_secrets: dict[settings.Text, settings.KubeName] = Field(
        default_factory=dict,
        max_length=8,
        description="Secret with the API key of an endpoint that requires one, by its name under `endpoints`. Default: none.",
    )
    promote_to: settings.StoreSpec | None = Field(
        None, description="Store to which the last checkpoint is copied after it was verified. Default: none."
    )


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
        return names.job(self.name, self.status.attempt)


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


class EndpointObjectSpec(settings.PolicyEndpointSpec):
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
        description="Base model of the policy server, as a run's model.base. Required by role policy. Default: none.",
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
        "", max_length=128, description="Checkpoint that the policy serves: `grpo/120`. Default: the base."
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


class Endpoint(Object):
    """A server: a tool of the agent (grounding, image search, text search), the judge, or the policy. Owned by a run, or
    standalone.
    """

    kind: Literal["Endpoint"] = "Endpoint"
    spec: EndpointObjectSpec
    status: EndpointStatus = EndpointStatus()


_STAGE_CLASSES = (CurateStage, SFTStage, StratifyStage, GRPOStage, EvaluateStage)
STAGE_KINDS: dict[str, type[Stage]] = {
    stage.name: cls for stage in catalog.STAGES for cls in _STAGE_CLASSES if cls.__name__ == stage.kind
}
STAGE_OF = {cls.__name__: stage for stage, cls in STAGE_KINDS.items()}
KINDS: dict[str, type[Object]] = {
    "GoGRun": GoGRun,
    **{cls.__name__: cls for cls in STAGE_KINDS.values()},
    "Endpoint": Endpoint,
}


def document(thing: Object) -> dict[str, Any]:
    """An object as it is written to a file or sent to a cluster: only fields that are set, camelCase."""
    body = thing.model_dump(mode="json", by_alias=True, exclude_unset=True)
    return {"apiVersion": API_VERSION, "kind": thing.kind} | body


def parse(body: dict[str, Any]) -> Object:
    """The object of a document that gog wrote. A user's file is read by `manifest.load`."""
    return KINDS[body["kind"]].model_validate(body)

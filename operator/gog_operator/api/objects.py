"""The custom resources: GoGRun, five stages, Endpoint.

A stage's spec is its recipe's own configuration (`gog.spec`) and a lifecycle, nothing in between: what a manifest says
is what the recipe reads. Objects are frozen; a change is a copy. What a user left out stays left out
(`document()` writes set fields only), because the model family's preset may know better than a default.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from gog import catalog
from gog import spec as settings
from gog.spec import Spec
from gog_operator.api import conditions, names
from gog_operator.api.meta import API_VERSION, CANCEL, Condition, Message, Metadata, OwnerReference

if TYPE_CHECKING:
    Role = str
else:
    Role = Literal[catalog.SERVER_NAMES]  # one value for each row of the catalogue


class Committed(Spec):
    """A checkpoint as the job that wrote it tells of it."""

    ref: str = Field(max_length=128, description="Key and step: `sft/180`.")
    complete: bool = Field(False, description="Whether it is the stage's last.")


class WaitingFor(Spec):
    """A service that a stage waits for, because it is down."""

    reason: str = Field("", max_length=128, description="One word for programs: `JudgeDown`, `ToolDown`.")
    message: str = Field("", max_length=1024, description="Which service, and why its last call failed.")
    since: datetime | None = Field(None, description="When the wait began.")
    until: datetime | None = Field(None, description="When the stage gives up; its attempt then fails and is retried.")


class Progress(Spec):
    """What the stage last told of itself."""

    step: int = Field(0, description="Optimizer steps done, or questions, in stages without steps.")
    total: int = Field(0, description="How many there will be.")
    metrics: dict[settings.Text, Any] = Field(
        default_factory=dict, max_length=256, description="The recipe's figures, by name."
    )
    checkpoint: Committed | None = Field(None, description="The newest checkpoint that it has committed.")
    waiting: WaitingFor | None = Field(None, description="The service that the stage waits for. Default: none.")


class AttemptEnd(Spec):
    """How an attempt ended."""

    attempt: int = Field(description="Number of the attempt.")
    message: Message = Field(
        "", description="How it ended: `invalid input: …`, `exit 1: …`, `suspended at checkpoint sft/5`."
    )


class Summary(Spec):
    """The figures that `kubectl get` shows: text, because a column cannot compute."""

    stage: str = Field("", max_length=63, description="Key of a run's current stage: `grpo`, `grpo-no-gaze`.")
    progress: str = Field("", max_length=32, description="Steps done and to do: `41/120`.")
    reward: str = Field("", max_length=32, description="Mean reward of the last steps: `0.47`.")
    tool_failures: str = Field("", max_length=32, description="Share of tool calls that failed: `1.8%`.")


class Status(Spec):
    """What gog has found out and done. Written by gog only."""

    conditions: tuple[Condition, ...] = Field((), max_length=16, description="What holds, each with its history.")
    observed_generation: int = Field(0, description="The metadata.generation that this status tells of.")
    start_time: datetime | None = Field(None, description="When work on it began.")
    completion_time: datetime | None = Field(None, description="When it was complete, or had failed.")


class RunStatus(Status):
    stage: str = Field("", max_length=63, description="Name of the stage object that is current.")
    summary: Summary = Field(Summary(), description="The figures that `kubectl get` shows.")


class StageStatus(Status):
    attempt: int = Field(0, description="Number of the newest attempt; written before its job is created.")
    attempt_time: datetime | None = Field(None, description="When that number was given.")
    failures: int = Field(0, description="Failed attempts; interrupted ones do not count.")
    retry_time: datetime | None = Field(
        None, description="Set once an attempt's failure is counted: when to try again."
    )
    progress: Progress | None = Field(None, description="What the stage last told of itself.")
    summary: Summary = Field(Summary(), description="The figures that `kubectl get` shows.")
    checkpoint: str = Field("", max_length=128, description="Newest committed checkpoint: `sft/180`.")
    seen_attempt: int = Field(
        0, description="Newest attempt whose job was seen: should it be gone, it is not made anew."
    )
    ended: AttemptEnd | None = Field(None, description="How the newest attempt ended, once it has.")


class EndpointStatus(Status):
    url: str = Field("", max_length=1024, description="Where the server answers.")
    replicas: int = Field(0, description="Pods that there are; read by `kubectl scale` and autoscalers.")
    version: str = Field("", max_length=128, description="Checkpoint that every pod serves, verified: `grpo/120`.")
    port: int = Field(0, description="Local port, kept over restarts.")
    restarts: int = Field(0, description="How often the server was started again.")
    failures: int = Field(0, description="Starts in a row that never got ready.")
    retry_time: datetime | None = Field(None, description="When it is started again.")


class Object(Spec):
    """Anything with metadata, spec and status."""

    api_version: Literal["gog.dev/v1alpha1"] = "gog.dev/v1alpha1"
    kind: str
    metadata: Metadata
    spec: Spec
    status: Status = Status()

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
        return CANCEL in self.metadata.annotations

    def holds(self, type_: str) -> bool:
        return conditions.holds(self.status.conditions, type_)

    def condition(self, type_: str) -> Condition | None:
        return conditions.find(self.status.conditions, type_)

    def owner_reference(self) -> OwnerReference:
        return OwnerReference(kind=self.key[0], name=self.name, uid=self.metadata.uid)

    def owned_by(self, owner: Object) -> bool:
        return any(each.uid == owner.metadata.uid for each in self.metadata.owner_references)


class GoGRun(Object):
    """One training of a model: makes demonstrations, fine-tunes, sorts the questions by difficulty, improves the policy
    by GRPO with live tool calls, and evaluates it. It owns a stage object for each of these and an Endpoint for each server.
    """

    kind: Literal["GoGRun"] = "GoGRun"
    spec: settings.RunSpec
    status: RunStatus = RunStatus()


MANAGED_BY = "Name of another controller that has it in hand; gog leaves it alone then. Default: gog."
SERVICE_ACCOUNT = "Of its pods, on a cluster; the way to credentials without a Secret. Default: none."


class Lifecycle(settings.Placement):
    """What the control plane, not the recipe, needs to know of a stage."""

    suspend: bool = Field(False, description="Stop at the last checkpoint and wait.")
    backoff_limit: int = Field(3, ge=0, le=100, description="Failed attempts that are tried again.")
    active_deadline_seconds: int | None = Field(
        None, ge=1, description="Seconds that one attempt may take. Default: no limit."
    )
    ttl_seconds_after_finished: int | None = Field(
        None,
        ge=0,
        description="Seconds after which a finished stage is deleted, on a cluster; what is in the store stays. "
        "Default: never.",
    )
    managed_by: str | None = Field(None, max_length=63, description=MANAGED_BY)
    scheduling: settings.SchedulingSpec = Field(
        settings.SchedulingSpec(), description="Where its pods may go, on a cluster."
    )
    service_account_name: str | None = Field(None, max_length=253, description=SERVICE_ACCOUNT)
    image: str | None = Field(None, max_length=512, description="Of its pods. Default: the operator's trainer image.")
    retention: settings.RetentionSpec | None = Field(None, description="Which checkpoints stay. Default: all.")
    endpoint_secrets: dict[settings.LabelValue, settings.Text] = Field(
        default_factory=dict,
        max_length=8,
        description="Secret with the key of an endpoint, by its name under `endpoints`, where one wants a key. Default: none.",
    )
    promote_to: settings.StoreSpec | None = Field(
        None, description="Store to which the last checkpoint is copied once it is verified. Default: none."
    )


class StageSpec(settings.StageConfig, Lifecycle):
    """What the specs of the five stage kinds share."""


class CurateSpec(settings.CurateConfig, StageSpec):
    """The recipe's settings, and where and how its pods run."""


class SFTSpec(settings.SFTConfig, StageSpec):
    """The recipe's settings, and where and how its pods run."""


class StratifySpec(settings.StratifyConfig, StageSpec):
    """The recipe's settings, and where and how its pods run."""


class GRPOSpec(settings.GRPOConfig, StageSpec):
    """The recipe's settings, and where and how its pods run."""


class EvaluateSpec(settings.EvaluateConfig, StageSpec):
    """The recipe's settings, and where and how its pods run."""


class Stage(Object):
    """What the five stage kinds share."""

    spec: StageSpec
    status: StageStatus = StageStatus()

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
    """Makes demonstrations: trajectories of a teacher that uses the run's own tools. Owned by a run, or alone."""

    kind: Literal["CurateStage"] = "CurateStage"
    spec: CurateSpec


class SFTStage(Stage):
    """Fine-tunes LoRA adapters of the base model on demonstrations. Owned by a run, or alone."""

    kind: Literal["SFTStage"] = "SFTStage"
    spec: SFTSpec


class StratifyStage(Stage):
    """Sorts questions by how often the fine-tuned model solves them. Owned by a run, or alone."""

    kind: Literal["StratifyStage"] = "StratifyStage"
    spec: StratifySpec


class GRPOStage(Stage):
    """Improves a policy by GRPO, with live tool calls. Owned by a run, or alone."""

    kind: Literal["GRPOStage"] = "GRPOStage"
    spec: GRPOSpec


class EvaluateStage(Stage):
    """Compares policies on held-out questions. Owned by a run, or alone."""

    kind: Literal["EvaluateStage"] = "EvaluateStage"
    spec: EvaluateSpec


class EndpointObjectSpec(settings.EndpointSpec):
    """A server to be started (backend), or one that is there already (url)."""

    role: Role = Field(description="What the server does.")
    data: settings.DataSpec | None = Field(
        None, description="Dataset that the server answers from, for `world`. Default: none."
    )
    store: settings.StoreSpec | None = Field(
        None,
        description="Store that datasets at s3:// addresses and the policy's adapters are read from, on a cluster. "
        "Default: none.",
    )
    base: str = Field(
        "",
        max_length=1024,
        description="Base model of the policy server, as a run's model.base. Needed by role policy. Default: none.",
    )
    version: str = Field(
        "", max_length=128, description="Checkpoint that the policy serves: `grpo/120`. Default: the base."
    )
    scheduling: settings.SchedulingSpec = Field(
        settings.SchedulingSpec(), description="Where its pods may go, on a cluster."
    )
    service_account_name: str | None = Field(None, max_length=253, description=SERVICE_ACCOUNT)
    image: str | None = Field(
        None, max_length=512, description="Of its pods. Default: the operator's image for the role."
    )
    suspend: bool = Field(False, description="Take the pods away and keep the object.")
    managed_by: str | None = Field(None, max_length=63, description=MANAGED_BY)


class Endpoint(Object):
    """A server: a tool of the agent (grounding, image search, text search), the judge, or the policy. Owned by a run, or
    alone.
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
    """An object as it is written to a file or sent to a cluster: set fields only, camelCase."""
    body = thing.model_dump(mode="json", by_alias=True, exclude_unset=True)
    return {"apiVersion": API_VERSION, "kind": thing.kind} | body


def parse(body: dict[str, Any]) -> Object:
    """The object of a document that gog itself wrote. A user's file goes through `manifest.load`."""
    return KINDS[body["kind"]].model_validate(body)

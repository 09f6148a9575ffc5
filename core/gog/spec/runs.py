"""The spec of a GoGRun: the whole content of a manifest."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from gog.spec.base import MAX_SEED, STAGES, KubeName, Name, Spec, StageName, Text
from gog.spec.curation import CurateSettings
from gog.spec.endpoints import EndpointsSpec
from gog.spec.evaluation import EvaluateSettings
from gog.spec.pod_patches import PodPatch
from gog.spec.pods import Placement, SchedulingSpec
from gog.spec.serving import ServeSpec
from gog.spec.sources import DataSpec, ModelCacheSpec, ModelSpec, RetentionSpec, StoreSpec
from gog.spec.stages import AgentSettings, GRPOSettings, SFTSettings, StratifySettings
from gog.spec.tools import ToolsSpec
from gog.spec.traces import TracesSpec

SERVED_BY_URL = "serve loads versions into a policy server that gog starts: remove serve, or endpoints.policy.url"
SERVED_UNSEEN = "serve needs the stage evaluate, whose result the gate reads: remove it from stages.skip"


class Curate(CurateSettings, AgentSettings, Placement):
    """Makes demonstrations: trajectories of the teacher with the run's own tools."""


class SFT(SFTSettings, Placement):
    """Aligns the model: LoRA fine-tuning on the demonstrations."""


class Stratify(StratifySettings, AgentSettings, Placement):
    """Grades the training questions by how often the fine-tuned model solves them."""


class GRPO(GRPOSettings, AgentSettings, Placement):
    """Improves the policy by GRPO, with live tool calls."""


class Evaluate(EvaluateSettings, AgentSettings, Placement):
    """Compares policies on held-out questions."""


class Stages(Spec):
    """Settings by stage; what is left out takes the model family's preset. `skip` leaves out whole stages."""

    curate: Curate = Field(Curate(), description="Makes demonstrations with the run's own tools.")
    sft: SFT = Field(SFT(), description="Aligns the model: LoRA fine-tuning on the demonstrations.")
    stratify: Stratify = Field(
        Stratify(), description="Grades the questions by how often the fine-tuned model solves them."
    )
    grpo: GRPO = Field(GRPO(), description="Improves the policy by GRPO, with live tool calls.")
    evaluate: Evaluate = Field(Evaluate(), description="Compares policies on held-out questions.")
    skip: tuple[StageName, ...] = Field(
        (),
        max_length=len(STAGES),
        description="Stages to leave out; the checkpoints that later stages start from must then be in the store. Default: none.",
    )


class ImagesSpec(Spec):
    """Container images, on a cluster."""

    trainer: str | None = Field(
        None,
        max_length=512,
        description="Image of stages and of the policy server. Default: the operator's trainer image.",
    )
    tools: str | None = Field(
        None,
        max_length=512,
        description="Image of the other servers and of store jobs. Default: the operator's tools image.",
    )


class Arm(Spec):
    """A variant of a run's later stages; the earlier ones are shared."""

    name: Name = Field(description="Suffix of the names of the arm's stages: `<run>-grpo-<arm>`.")
    set: dict[Text, Any] = Field(
        min_length=1,
        max_length=64,
        description="Values by dotted path under spec: `stages.grpo.gaze: off`. Only stages, tools, model and seed may "
        "differ.",
    )


class RunSpec(Spec):
    """What to train, on what, and where. Only model and data are required, on a cluster also the store."""

    model: ModelSpec = Field(description="The base model, for which LoRA adapters are trained.")
    data: DataSpec = Field(description="The dataset: exactly one of world, path, uri.")
    store: StoreSpec | None = Field(
        None,
        description="Store for checkpoints and the report. Default on one machine: the run folder. Required on a cluster.",
    )
    model_cache: ModelCacheSpec | None = Field(
        None,
        description="Where a base model and a dataset at hf:// or s3:// are fetched once, on a cluster. Default: the "
        "installation's (the chart's modelCache.claimName); without one each pod fetches them.",
    )
    seed: int = Field(0, ge=0, le=MAX_SEED, description="Seed of every stage.")
    endpoints: EndpointsSpec = Field(
        EndpointsSpec(), description="The servers of the run. Default: those of the embedded world."
    )
    tools: ToolsSpec = Field(ToolsSpec(), description="How tools and the judge are called.")
    check_tools: bool = Field(
        True,
        description="Call every tool once before the first stage, as `gog tools check` does. A wrong key or address ends the "
        "run before it asks for a GPU; a tool that is down is called again, for `tools.outage.patienceSeconds` times the "
        "attempts of a stage.",
    )
    traces: TracesSpec | None = Field(None, description="Collector that traces are sent to. Default: no traces.")
    stages: Stages = Field(
        Stages(), description="Settings by stage; what is left out takes the model family's preset, else its default."
    )
    arms: tuple[Arm, ...] = Field(
        (),
        max_length=16,
        description="Variants of the later stages (ablations); the earlier ones are shared. Default: none.",
    )
    scheduling: SchedulingSpec = Field(
        SchedulingSpec(), description="Where pods of the run are scheduled, on a cluster."
    )
    pods: tuple[PodPatch, ...] = Field(
        (),
        max_length=8,
        description="Patches of the run's pods, on a cluster, applied in order: what they need besides what gog writes. "
        "Default: none.",
    )
    runtime: KubeName | None = Field(
        None,
        max_length=63,
        description="GoGRuntime with patches and defaults of the pods of this run, on a cluster; its content is copied into "
        "each stage and server when that is created. Default: none.",
    )
    service_account_name: KubeName | None = Field(
        None,
        description="Service account of every pod of the run, on a cluster; it can grant credentials without a Secret. Default: none.",
    )
    images: ImagesSpec = Field(ImagesSpec(), description="Container images, on a cluster.")
    retention: RetentionSpec | None = Field(None, description="Which checkpoints are kept. Default: all.")
    promote_to: StoreSpec | None = Field(
        None,
        description="Store to which the last checkpoint of every stage is copied after verification. Default: none.",
    )
    serve: ServeSpec | None = Field(
        None,
        description="Serve the result as an agent, behind OpenAI's chat protocol, once the run is complete and its evaluation "
        "passes the gate. Default: it is not served.",
    )
    suspend: bool = Field(
        False, description="Stop the current stage at its last checkpoint, and continue when this is false again."
    )
    backoff_limit: int = Field(
        3, ge=0, le=100, description="Retries of a stage after failed attempts; interrupted attempts do not count."
    )
    active_deadline_seconds: int | None = Field(
        None,
        ge=1,
        description="Seconds that one attempt of a stage may run, from its first running pod. Default: no limit.",
    )
    queue_deadline_seconds: int | None = Field(
        None,
        ge=1,
        description="Seconds that one attempt of a stage may wait for its first running pod, on a cluster. Default: no "
        "limit.",
    )
    ttl_seconds_after_finished: int | None = Field(
        None,
        ge=0,
        description="Seconds after which a finished run is deleted, on a cluster, with its artifacts if artifactPolicy is "
        "Delete. Default: never.",
    )
    job_ttl_seconds: int | None = Field(
        None,
        ge=0,
        description="Seconds after which the ended jobs of a finished run and of its stages are deleted, on a cluster, with "
        "their pods and logs; its status stays. Default: the installation's (the chart's jobs.ttlSeconds).",
    )
    artifact_policy: Literal["Retain", "Delete"] = Field(
        "Retain",
        description="What becomes of the run's checkpoints, journals and report in the store when the run is deleted, on a "
        "cluster: Retain keeps them; Delete erases what the run wrote, unless another run uses the store's prefix. On one "
        "machine delete the run folder.",
    )
    managed_by: str | None = Field(
        None,
        max_length=63,
        description="Controller that manages this run; gog ignores a run of another one. Default: gog.dev/operator, which "
        "is gog.",
    )

    @model_validator(mode="after")
    def _gog_starts_the_policy_that_an_agent_serves(self) -> RunSpec:
        if self.serve is not None and self.endpoints.policy is not None and self.endpoints.policy.url is not None:
            raise ValueError(SERVED_BY_URL)
        if self.serve is not None and "evaluate" in self.stages.skip:
            raise ValueError(SERVED_UNSEEN)
        return self

"""How a run is described: one typed model that manifests, custom resources and recipe configurations all embed.

A field's description is its documentation everywhere (`kubectl explain`, `gog validate`, the docs); it says unit,
default and source. Marks: [paper] the authors' README or a reading note of the paper, [peer] DeepMMSearch-R1 or
MMSearch-R1, whose recipe the paper's matches value for value, [ours] our assumption. Manifests write camelCase,
recipe YAML writes snake_case; both parse into the same class. Settings that a model family needs otherwise (a tiny model
learns at a thousand times the rate) live in `gog_recipes/configs/<family>/<stage>.yaml`, not here.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from pydantic.alias_generators import to_camel

STAGES = ("curate", "sft", "stratify", "grpo", "evaluate")
TOOLS = ("grounding", "imageSearch", "textSearch", "judge")
POLICIES = ("direct", "whole-image", "first-candidate", "prompted", "sft", "grpo")

Name = Annotated[str, Field(pattern=r"^[a-z]([-a-z0-9]*[a-z0-9])?$", max_length=40)]
Gaze = Annotated[
    Literal["select", "direct", "off"],
    BeforeValidator(lambda value: "off" if value is False else value),  # YAML 1.1 reads a bare off as false
]
Level = Annotated[
    Literal["easy", "1", "2"], BeforeValidator(lambda value: str(value) if isinstance(value, int) else value)
]


class Spec(BaseModel):
    """Frozen; refuses unknown fields; accepts camelCase and snake_case."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, alias_generator=to_camel, populate_by_name=True, use_attribute_docstrings=True
    )


class ModelSpec(Spec):
    base: str = Field(
        min_length=1, description="`tiny` (shipped with gog), or a folder or s3:// prefix in Hugging Face form."
    )
    family: Literal["tiny", "qwen2.5-vl"] | None = Field(
        None, description="Which preset of recipe settings applies. Default: tiny for base tiny, else qwen2.5-vl."
    )
    dtype: Literal["float32", "bfloat16"] = Field("float32", description="Type of the weights while training.")

    @property
    def preset(self) -> str:
        return self.family or ("tiny" if self.base == "tiny" else "qwen2.5-vl")

    @property
    def style(self) -> Literal["full", "terse"]:
        """Of prompts and observations (gog.prompts): the tiny model knows a few hundred words only."""
        return "terse" if self.preset == "tiny" else "full"


class WorldSpec(Spec):
    """The embedded world: pictures, questions, an image index and a corpus, made from a seed."""

    seed: int = Field(7, ge=0, description="Everything in the world follows from it.")
    train: int = Field(3200, ge=1, le=1_000_000, description="Questions to train on.")
    test: int = Field(
        600, ge=1, le=1_000_000, description="Held-out questions, about entities never shown in training."
    )


class DataSpec(Spec):
    """Where the questions are: exactly one of world, path, uri."""

    world: WorldSpec | None = Field(None, description="Make the embedded world.")
    path: str | None = Field(None, description="A dataset folder on this machine.")
    uri: str | None = Field(None, description="A dataset folder in a store, s3:// or file://.")

    @model_validator(mode="after")
    def _exactly_one(self) -> DataSpec:
        given = [name for name in ("world", "path", "uri") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"give exactly one of world, path, uri (given: {', '.join(given) or 'none'})")
        return self


class StoreSpec(Spec):
    """A checkpoint store. Credentials are never written here: on a cluster they come from the Secret or from the
    service account of the pods, elsewhere from the environment."""

    uri: str = Field(
        pattern=r"^(file|s3)://",
        max_length=1024,
        description="Where checkpoints and reports go. Default: the run folder.",
    )
    secret_name: str | None = Field(
        None,
        max_length=253,
        description="Secret in the run's namespace with AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, and perhaps ca.crt. "
        "Default: whatever the pods' service account may do.",
    )
    endpoint_url: str | None = Field(
        None, pattern=r"^https?://", max_length=1024, description="Address of an S3 server that is not Amazon's."
    )
    region: str | None = Field(None, max_length=64, description="Region of the bucket. Default: the environment's.")
    path_style: bool = Field(
        False, description="Write the bucket into the path, not the host name, as most servers but Amazon's want."
    )
    ca_bundle: str | None = Field(
        None,
        max_length=1024,
        description="PEM file of the authority to trust. Default on a cluster: ca.crt of the Secret.",
    )
    kms_key_id: str | None = Field(
        None, max_length=2048, description="Key that the server encrypts objects with (SSE-KMS)."
    )


class RetentionSpec(Spec):
    """Which checkpoints of a stage stay. The newest, tagged ones and what others were made from always do."""

    keep_last: int = Field(3, ge=1, le=10_000, description="The newest so many.")
    keep_best: int = Field(0, ge=0, le=10_000, description="Besides, the best so many by `metric`.")
    metric: str = Field("reward_last", max_length=64, description="Key of the checkpoint's meta; larger is better.")
    grace_seconds: int = Field(
        86_400, ge=0, description="Blobs younger than this are never swept: a publication may be under way."
    )


Quantity = Annotated[str, Field(pattern=r"^[0-9]+(\.[0-9]+)?(m|k|M|G|T|Ki|Mi|Gi|Ti)?$", max_length=32)]
"""An amount as Kubernetes writes it: `500m`, `4Gi`."""


class WorkersSpec(Spec):
    """Pods of a stage's job, on a cluster. On one machine a stage is one process."""

    replicas: int = Field(1, ge=1, le=1024, description="Pods; they start together or not at all.")
    processes: int | None = Field(
        None, ge=1, le=64, description="Processes in each pod. Default: one per GPU, at least one."
    )
    gpus: int = Field(0, ge=0, le=64, description="GPUs of each pod.")
    cpu: Quantity | None = Field(None, description="Cores of each pod, as request and limit. Default: no limit.")
    memory: Quantity | None = Field(None, description="Memory of each pod, as request and limit. Default: no limit.")
    shared_memory: Quantity | None = Field(
        None, description="Size of /dev/shm. Default: 1Gi with GPUs, else the node's 64Mi."
    )


class ResourcesSpec(Spec):
    """Of one server's pod, as Kubernetes writes them."""

    requests: dict[str, Quantity] = Field(default_factory=dict, max_length=16)
    limits: dict[str, Quantity] = Field(default_factory=dict, max_length=16)


class TolerationSpec(Spec):
    key: str | None = Field(None, max_length=316)
    operator: Literal["Exists", "Equal"] = "Equal"
    value: str | None = Field(None, max_length=63)
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None
    toleration_seconds: int | None = Field(None, ge=0)


class SchedulingSpec(Spec):
    """Where pods of a run may go, on a cluster."""

    queue: str = Field("default", max_length=63, description="Volcano queue of the stages' jobs.")
    priority_class_name: str | None = Field(None, max_length=63)
    node_selector: dict[str, str] = Field(default_factory=dict, max_length=32)
    tolerations: tuple[TolerationSpec, ...] = Field((), max_length=32)


class Placement(Spec):
    """What a manifest says of a stage besides its recipe's settings."""

    workers: WorkersSpec = WorkersSpec()


class FailureInjection(Spec):
    """Failures on purpose, to see what they do to a run. Never set it for a run whose numbers you publish."""

    rate: float = Field(0.0, ge=0, le=1, description="Share of requests that fail.")
    kinds: tuple[Literal["timeout", "429", "5xx", "malformed", "empty"], ...] = Field(
        ("timeout", "429", "5xx", "malformed", "empty"), min_length=1, description="Chosen among with equal chance."
    )
    seed: int = Field(0, ge=0)


class EndpointSpec(Spec):
    """A server the run needs: started by us (backend) or somebody's already (url)."""

    backend: str = Field("world", description="`world`: the embedded tools that see pixels and text only.")
    url: str | None = Field(None, pattern=r"^https?://", description="An existing server; nothing is started then.")
    model: str = Field("", description="Model name to ask for, where the server has several.")
    secret_name: str | None = Field(None, max_length=253, description="Secret with the server's key.")
    replicas: int = Field(1, ge=0, le=64, description="Pods, on a cluster; `kubectl scale` changes it.")
    resources: ResourcesSpec = Field(ResourcesSpec(), description="Of each pod, on a cluster.")
    startup_seconds: int = Field(600, ge=1, le=86_400, description="A server that has not answered by then has failed.")
    port: int = Field(0, ge=0, le=65535, description="Local port; 0 takes a free one.")
    failures: FailureInjection = FailureInjection()


class EndpointsSpec(Spec):
    grounding: EndpointSpec = EndpointSpec()
    image_search: EndpointSpec = EndpointSpec()
    text_search: EndpointSpec = EndpointSpec()
    judge: EndpointSpec = EndpointSpec()
    policy: EndpointSpec | None = Field(None, description="Only when rollouts go through a policy server.")


class CacheSpec(Spec):
    """Answers of tools, by content. Failures are never kept."""

    mode: Literal["off", "live", "record", "replay-or-live", "replay-strict"] = Field(
        "live",
        description="live: in memory, for this process; record: also to `path`; replay-or-live: from `path`, asking for "
        "what is missing and recording it; replay-strict: a miss is a failure.",
    )
    path: str | None = Field(None, description="SQLite file of the recorded answers.")
    max_entries: int = Field(200_000, ge=1, description="In memory; the least recently used go first.")

    @model_validator(mode="after")
    def _recording_needs_a_file(self) -> CacheSpec:
        if self.mode in ("record", "replay-or-live", "replay-strict") and not self.path:
            raise ValueError(f"mode {self.mode} needs a path")
        return self


class ToolsSpec(Spec):
    """How tools are called: one policy for all of them."""

    concurrency: int = Field(4, ge=1, le=1024, description="Calls in flight per tool and process [paper: 4 threads].")
    attempts: int = Field(3, ge=1, le=10, description="Tries per call, the first included [ours].")
    deadline_seconds: float = Field(10.0, gt=0, description="Of one attempt [ours].")
    budget_seconds: float = Field(30.0, gt=0, description="Of one call with its retries [ours].")
    backoff_seconds: float = Field(
        0.2, ge=0, description="Before the first retry, doubled for each further one, jittered [ours]."
    )
    breaker_failures: int = Field(20, ge=1, description="Failed attempts in a row that open the breaker [ours].")
    breaker_seconds: float = Field(
        5.0, gt=0, description="How long an open breaker refuses before it tries again [ours]."
    )
    top: int = Field(5, ge=1, le=50, description="Results asked of a search [peer].")
    max_candidates: int = Field(5, ge=1, le=20, description="Candidates shown per grounding call [ours].")
    min_box_side: int = Field(4, ge=1, description="Pixels; smaller boxes are dropped [peer: 30 for photographs].")
    max_box_aspect: float = Field(100.0, ge=1, description="Longer boxes are dropped [peer].")
    overlap: float = Field(0.7, gt=0, le=1, description="Boxes that overlap more (IoU) count as one [ours].")
    pad: int = Field(2, ge=0, description="Pixels added around a box before it is cut out [ours].")
    crop_side: int | None = Field(
        None, ge=1, description="Cut squares and bring them to this side, in pixels; null cuts the box as it is [ours]."
    )
    cache: CacheSpec = CacheSpec()


class AgentSettings(Spec):
    """The limits of one episode."""

    gaze: Gaze = Field(
        "select",
        description="select: the model chooses among numbered candidates; direct: the best-scored candidate is searched "
        "unseen (as DeepMMSearch-R1 does); off: no grounding, every image search takes the whole picture (the paper's ablation).",
    )
    reasoning: Literal["required", "optional"] = Field(
        "required", description="Whether a turn without <think>…</think> counts as badly formed."
    )
    max_calls: int = Field(10, ge=0, description="Tool calls per episode [peer: 10].")
    max_turns: int = Field(12, ge=1, description="Model turns per episode [ours].")
    max_turn_tokens: int = Field(512, ge=1, description="Generated tokens per turn [ours].")
    max_tokens: int = Field(8192, ge=16, description="Tokens of an episode, prompt and observations included [paper].")
    concurrent_episodes: int = Field(160, ge=1, description="Episodes at work at once in one process [ours].")


class CurateSettings(Spec):
    trajectories: int = Field(5750, ge=1, description="Trajectories to make [brief: GoG-Instruct has 5,750].")
    teacher: Literal["scripted"] = Field("scripted", description="scripted: follows the dataset's evidence marks.")
    care: float = Field(
        1.0,
        ge=0,
        le=1,
        description="Share of demonstrations without a slip; the embedded world uses 0.5, a stand-in for a teacher that "
        "is good but careless, so that RL has something to improve [ours].",
    )


class LoraSettings(Spec):
    rank: int = Field(8, ge=1, le=512, description="[paper: 8]")
    alpha: int = Field(16, ge=1, description="[ours]")
    dropout: float = Field(0.0, ge=0, lt=1)


class OptimizerSettings(Spec):
    """Any torch optimizer by its dotted path, as torchtune configurations name components."""

    component: str = Field("torch.optim.AdamW", alias="_component_")
    betas: tuple[float, float] = (0.9, 0.95)
    weight_decay: float = 0.0


class SFTSettings(Spec):
    demonstrations: str | None = Field(
        None,
        description="Trajectory archive to learn from where the store holds no curate checkpoint; `sample`: gog's own.",
    )
    epochs: int = Field(3, ge=1, description="[paper: 3]")
    max_steps: int | None = Field(None, ge=1, description="Stop after so many optimizer steps.")
    batch_size: int = Field(8, ge=1, description="Trajectories per optimizer step, all ranks together [paper: 8].")
    learning_rate: float = Field(1e-4, gt=0, description="[paper: 1e-4]")
    warmup_steps: int = Field(30, ge=0, description="[peer: a tenth of the steps]")
    schedule: Literal["constant", "cosine"] = Field("cosine", description="After the warm-up [peer: cosine].")
    clip_grad_norm: float = Field(1.0, gt=0)
    lora: LoraSettings = LoraSettings()
    optimizer: OptimizerSettings = OptimizerSettings()
    save_every: int = Field(50, ge=1, description="Steps between checkpoints.")


class StratifySettings(Spec):
    questions: int | None = Field(None, ge=1, description="Take only the first so many of the training questions.")
    rollouts: int = Field(5, ge=1, le=64, description="Samples per question, N [brief: 5].")
    level1: tuple[float, float] = Field(
        (0.5, 0.6), description="Pass rates of level 1, both ends included; level 2 lies below [brief, ours]."
    )
    temperature: float = Field(1.0, gt=0)


class GRPOSettings(Spec):
    steps: int = Field(120, ge=1, description="Optimizer steps.")
    questions_per_step: int = Field(32, ge=1, description="Groups per step [peer: 32 on one node].")
    group_size: int = Field(5, ge=2, le=64, description="N [brief: 5; paper note: 4].")
    levels: tuple[Level, ...] = Field(("2",), min_length=1, description="Levels trained on [paper: 2].")
    keep_unsolved: bool = Field(
        True, description="Keep questions that no sample solved; they are flagged either way [ours]."
    )
    learning_rate: float = Field(2e-6, gt=0, description="[paper: 2e-6]")
    warmup_steps: int = Field(5, ge=0)
    clip: float = Field(0.2, gt=0, description="Clip range of the probability ratio [peer: 0.2].")
    kl: float = Field(0.001, ge=0, description="β, weight of the KL to the adapter-off reference [paper: 0.001].")
    format_weight: float = Field(0.1, ge=0, le=1, description="λ in r = (1-λ)·accuracy + λ·format [peer: 0.1].")
    search_penalty: float = Field(
        0.0, ge=0, le=1, description="Accuracy is multiplied by 1 - this when a search was made [peer: 0.1; GoG: none]."
    )
    temperature: float = Field(1.0, gt=0)
    failures: Literal["mask", "drop", "keep"] = Field(
        "mask",
        description="Trajectories touched by a tool failure. mask: neither loss nor group statistics; drop: the whole "
        "group is left out; keep: as if nothing had happened [ours].",
    )
    clip_grad_norm: float = Field(1.0, gt=0)
    lora: LoraSettings = LoraSettings()
    optimizer: OptimizerSettings = OptimizerSettings()
    save_every: int = Field(10, ge=1, description="Steps between checkpoints.")
    keep_trajectories: int = Field(40, ge=0, description="Trajectories kept for the report from each saved step.")


class EvaluateSettings(Spec):
    split: str = Field("test", description="Which questions: `<split>.jsonl` of the dataset.")
    questions: int | None = Field(None, ge=1, description="Take only the first so many.")
    policies: tuple[Literal["direct", "whole-image", "first-candidate", "prompted", "sft", "grpo"], ...] = Field(
        ("direct", "whole-image", "sft", "grpo"),
        min_length=1,
        description="direct: may not search; whole-image: may only search the whole picture; first-candidate: searches the "
        "best-scored candidate unseen (all three with the SFT weights); prompted: the base model; sft; grpo.",
    )
    temperature: float = Field(0.0, ge=0, description="0 takes the most probable token.")
    bootstrap: int = Field(10_000, ge=100, description="Resamples of the intervals.")
    keep_trajectories: int = Field(60, ge=0, description="Per policy, for the report.")


class StageConfig(Spec):
    """What every stage needs to know besides its own settings. The spec of a stage's custom resource and its recipe's
    YAML are this plus the settings."""

    kind: ClassVar[str] = ""

    run: Name = Field("run", description="Name of the run; label of metrics.")
    stage: str = Field("", max_length=63, description="Key of the stage's checkpoints in the store; default: its kind.")
    seed: int = Field(0, ge=0, description="Seeds sampling, order and initialisation.")
    model: ModelSpec
    data: DataSpec
    store: StoreSpec
    inputs: dict[str, str] = Field(
        default_factory=dict,
        description="Checkpoints of earlier stages by kind: `sft: sft/180`, or `sft: sft` for the newest.",
    )
    endpoints: dict[str, str] = Field(
        default_factory=dict,
        description="URL of each tool (grounding, imageSearch, textSearch, judge), or the name of its Endpoint.",
    )
    tools: ToolsSpec = ToolsSpec()
    workdir: str | None = Field(None, description="Scratch folder for progress and logs; default: a temporary one.")

    @property
    def key(self) -> str:
        return self.stage or self.kind


class CurateConfig(CurateSettings, AgentSettings, StageConfig):
    kind: ClassVar[str] = "curate"


class SFTConfig(SFTSettings, StageConfig):
    kind: ClassVar[str] = "sft"


class StratifyConfig(StratifySettings, AgentSettings, StageConfig):
    kind: ClassVar[str] = "stratify"


class GRPOConfig(GRPOSettings, AgentSettings, StageConfig):
    kind: ClassVar[str] = "grpo"


class EvaluateConfig(EvaluateSettings, AgentSettings, StageConfig):
    kind: ClassVar[str] = "evaluate"


CONFIGS: dict[str, type[StageConfig]] = {
    cls.kind: cls for cls in (CurateConfig, SFTConfig, StratifyConfig, GRPOConfig, EvaluateConfig)
}
NEEDS: dict[str, tuple[str, ...]] = {
    "curate": (),
    "sft": ("curate",),
    "stratify": ("sft",),
    "grpo": ("sft", "stratify"),
    "evaluate": ("sft", "grpo"),
}
"""Which stages' checkpoints a stage starts from."""
NEEDS_TOOLS: dict[str, bool] = {"curate": True, "sft": False, "stratify": True, "grpo": True, "evaluate": True}


class Curate(CurateSettings, AgentSettings, Placement):
    """stages.curate of a manifest."""


class SFT(SFTSettings, Placement):
    """stages.sft of a manifest."""


class Stratify(StratifySettings, AgentSettings, Placement):
    """stages.stratify of a manifest."""


class GRPO(GRPOSettings, AgentSettings, Placement):
    """stages.grpo of a manifest."""


class Evaluate(EvaluateSettings, AgentSettings, Placement):
    """stages.evaluate of a manifest."""


class Stages(Spec):
    """Settings by stage; what is absent takes the model family's preset. `skip` leaves a stage out."""

    curate: Curate = Curate()
    sft: SFT = SFT()
    stratify: Stratify = Stratify()
    grpo: GRPO = GRPO()
    evaluate: Evaluate = Evaluate()
    skip: tuple[Literal["curate", "sft", "stratify", "grpo", "evaluate"], ...] = ()


class ImagesSpec(Spec):
    """Container images, on a cluster. Default: the operator's own."""

    trainer: str | None = Field(None, max_length=512, description="Of stages and of the policy server.")
    tools: str | None = Field(None, max_length=512, description="Of the other servers.")


class Arm(Spec):
    """A variant of a run's later stages; the earlier ones are shared."""

    name: Name
    set: dict[str, Any] = Field(
        min_length=1, description="Dotted paths under spec and their values: `stages.grpo.gaze: off`."
    )


class RunSpec(Spec):
    """spec of a GoGRun."""

    model: ModelSpec
    data: DataSpec
    store: StoreSpec | None = Field(None, description="Default on one machine: the run folder. Required on a cluster.")
    seed: int = Field(0, ge=0, description="Seeds every stage.")
    endpoints: EndpointsSpec = EndpointsSpec()
    tools: ToolsSpec = ToolsSpec()
    stages: Stages = Stages()
    arms: tuple[Arm, ...] = Field((), max_length=16)
    scheduling: SchedulingSpec = SchedulingSpec()
    service_account_name: str | None = Field(
        None,
        max_length=253,
        description="Of every pod of the run, on a cluster; the way to credentials without a Secret.",
    )
    images: ImagesSpec = ImagesSpec()
    retention: RetentionSpec | None = Field(None, description="Which checkpoints stay. Default: all.")
    promote_to: StoreSpec | None = Field(
        None, description="Store to which the last checkpoint of every stage is copied once it is verified."
    )
    suspend: bool = Field(False, description="Stop the current stage at its last checkpoint and wait.")
    backoff_limit: int = Field(3, ge=0, le=100, description="Failed attempts of a stage that are tried again.")
    active_deadline_seconds: int | None = Field(None, ge=1, description="Of one attempt of a stage.")
    ttl_seconds_after_finished: int | None = Field(
        None, ge=0, description="A finished run is deleted after so long, on a cluster; what is in the store stays."
    )
    managed_by: str | None = Field(
        None, max_length=63, description="Name of another controller that has this run in hand; gog leaves it alone."
    )

"""How a run is described: one typed model that manifests, custom resources and recipe configurations all embed.

A field's description is its documentation everywhere (`kubectl explain`, `gog validate`, the docs); it says unit and
source, and the default where that is no plain value (a plain one is added where descriptions are shown). Marks: [paper]
the authors' README or a reading note of the paper, [brief] the method as it was described to us, [peer] DeepMMSearch-R1
or MMSearch-R1, whose recipe the paper's matches value for value, [ours] our assumption. Manifests write camelCase,
recipe YAML writes snake_case; both parse into the same class. Settings that a model family needs otherwise (a tiny model
learns at a thousand times the rate) live in `gog_recipes/configs/<family>/<stage>.yaml`, not here. Every text, list and
map is bounded: the API server refuses rules about what it cannot bound.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from pydantic.alias_generators import to_camel

STAGES = ("curate", "sft", "stratify", "grpo", "evaluate")
TOOLS = ("grounding", "imageSearch", "textSearch", "judge")
POLICIES = ("direct", "whole-image", "first-candidate", "prompted", "sft", "grpo")

Text = Annotated[str, Field(max_length=1024)]
Name = Annotated[str, Field(pattern=r"^[a-z]([-a-z0-9]*[a-z0-9])?$", max_length=40)]
Gaze = Annotated[
    Literal["select", "direct", "off"],
    BeforeValidator(  # YAML 1.1, which kubectl reads, too, takes a bare off for false
        lambda value: "off" if value is False else value,
        json_schema_input_type=Literal["select", "direct", "off", False],
    ),
]
Level = Annotated[
    Literal["easy", "1", "2"],
    BeforeValidator(
        lambda value: str(value) if isinstance(value, int) else value,
        json_schema_input_type=Literal["easy", "1", "2", 1, 2],
    ),
]
Share = Annotated[float, Field(ge=0, le=1)]
_Amount = Annotated[str, Field(pattern=r"^[0-9]+(\.[0-9]+)?(m|k|M|G|T|Ki|Mi|Gi|Ti)?$", max_length=32)]
Quantity = Annotated[
    _Amount,
    BeforeValidator(
        lambda value: str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value,
        json_schema_input_type=int | _Amount,
    ),
]
"""An amount as Kubernetes writes it: `2`, `500m`, `4Gi`."""


class Spec(BaseModel):
    """Frozen; refuses unknown fields; accepts camelCase and snake_case."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, alias_generator=to_camel, populate_by_name=True, use_attribute_docstrings=True
    )


class ModelSpec(Spec):
    """The base model, which LoRA adapters are trained for."""

    base: str = Field(
        min_length=1,
        max_length=1024,
        description="`tiny` (shipped with gog), or a folder or s3:// prefix in Hugging Face form. On a cluster a folder "
        "is one of the trainer image.",
    )
    family: Literal["tiny", "qwen2.5-vl"] | None = Field(
        None,
        description="Which preset of recipe settings applies to what the manifest leaves out. "
        "Default: tiny for base tiny, else qwen2.5-vl.",
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
    path: str | None = Field(
        None,
        max_length=1024,
        description="A dataset folder on this machine. Not on a cluster: its pods have no such folder.",
    )
    uri: str | None = Field(
        None,
        pattern=r"^(file|s3)://",
        max_length=1024,
        description="A dataset in a store: s3://bucket/prefix, as `gog move push` publishes it, or file:///folder. It is "
        "reached as the run's store is (endpointUrl, secretName and so on).",
    )

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
        description="s3://bucket/prefix, or file:///folder on one machine.",
    )
    secret_name: str | None = Field(
        None,
        max_length=253,
        description="Secret in the run's namespace with AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, and perhaps ca.crt. "
        "Default: whatever the pods' service account may do.",
    )
    endpoint_url: str | None = Field(
        None, pattern=r"^https?://", max_length=1024, description="Address of an S3 server. Default: Amazon's."
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
        None, max_length=2048, description="Key that the server encrypts objects with (SSE-KMS). Default: none."
    )


class RetentionSpec(Spec):
    """Which checkpoints of a stage stay. The newest, tagged ones and what others were made from always do."""

    keep_last: int = Field(3, ge=1, le=10_000, description="The newest so many.")
    keep_best: int = Field(0, ge=0, le=10_000, description="Besides, so many of the best by `metric`.")
    metric: str = Field("reward_last", max_length=64, description="Key of the checkpoint's meta; larger is better.")
    grace_seconds: int = Field(
        86_400, ge=0, description="Seconds; younger blobs are never swept: a publication may be under way."
    )


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


class FailureInjection(Spec):
    """Failures on purpose, to see what they do to a run. Never set it for a run whose numbers you publish."""

    rate: float = Field(0.0, ge=0, le=1, description="Share of requests that fail.")
    kinds: tuple[Literal["timeout", "429", "5xx", "malformed", "empty"], ...] = Field(
        ("timeout", "429", "5xx", "malformed", "empty"),
        min_length=1,
        max_length=5,
        description="Chosen among with equal chance.",
    )
    seed: int = Field(0, ge=0, description="Which requests fail follows from it.")


class EndpointSpec(Spec):
    """A server the run needs: started by us (backend) or somebody's already (url)."""

    backend: str = Field(
        "world",
        max_length=253,
        description="What answers: `world`, the embedded tools that see pixels and text only; for grounding also "
        "`module:factory` of a detector that the image holds.",
    )
    url: str | None = Field(
        None,
        pattern=r"^https?://",
        max_length=1024,
        description="An existing server; nothing is started then. Default: one is started.",
    )
    model: str = Field(
        "", max_length=253, description="Model name to ask for, where the server has several. Default: its only one."
    )
    secret_name: str | None = Field(
        None, max_length=253, description="Secret with the server's key. Default: the server asks for none."
    )
    replicas: int = Field(1, ge=0, le=64, description="Pods, on a cluster; `kubectl scale` changes it.")
    resources: ResourcesSpec = Field(ResourcesSpec(), description="Of each pod, on a cluster.")
    startup_seconds: int = Field(
        600, ge=1, le=86_400, description="Seconds; a server that has not answered by then has failed."
    )
    port: int = Field(0, ge=0, le=65535, description="Local port; 0 takes a free one.")
    failures: FailureInjection = Field(
        FailureInjection(), description="Failures on purpose, to see what they do to a run. Default: none."
    )

    @model_validator(mode="after")
    def _a_url_starts_nothing(self) -> EndpointSpec:
        ours = [name for name in ("backend", "resources", "failures") if name in self.model_fields_set]
        if self.url is not None and ours:
            raise ValueError(f"url names a server that is there, {ours[0]} one to be started: leave one of them out")
        return self


class EndpointsSpec(Spec):
    """The servers of a run, by what they do. What is left out is the embedded world's."""

    grounding: EndpointSpec = Field(EndpointSpec(), description="Proposes candidates: boxes for an expression.")
    image_search: EndpointSpec = Field(EndpointSpec(), description="Finds pages by a picture.")
    text_search: EndpointSpec = Field(EndpointSpec(), description="Finds pages by words.")
    judge: EndpointSpec = Field(EndpointSpec(), description="Says whether an answer is right.")
    policy: EndpointSpec | None = Field(
        None, description="Serves the trained policy once the run is complete, on a cluster. Default: nothing does."
    )


class CacheSpec(Spec):
    """Answers of tools, by content. Failures are never kept."""

    mode: Literal["off", "live", "record", "replay-or-live", "replay-strict"] = Field(
        "live",
        description="live: in memory, for this process; record: also to `path`; replay-or-live: from `path`, asking for "
        "what is missing and recording it; replay-strict: a miss is a failure.",
    )
    path: str | None = Field(
        None,
        max_length=1024,
        description="SQLite file of the recorded answers. Needed by every mode but off and live. Default: none.",
    )
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
    deadline_seconds: float = Field(10.0, gt=0, description="Seconds that one attempt may take [ours].")
    budget_seconds: float = Field(30.0, gt=0, description="Seconds that one call may take with its retries [ours].")
    backoff_seconds: float = Field(
        0.2, ge=0, description="Seconds before the first retry, doubled for each further one, jittered [ours]."
    )
    breaker_failures: int = Field(20, ge=1, description="Failed attempts in a row that open the breaker [ours].")
    breaker_seconds: float = Field(
        5.0, gt=0, description="Seconds that an open breaker refuses before it tries again [ours]."
    )
    top: int = Field(5, ge=1, le=50, description="Results asked of a search [peer].")
    max_candidates: int = Field(5, ge=1, le=20, description="Candidates shown per grounding call [ours].")
    min_box_side: int = Field(4, ge=1, description="Pixels; smaller boxes are dropped [peer: 30 for photographs].")
    max_box_aspect: float = Field(
        100.0, ge=1, description="Longer side by shorter side; longer boxes are dropped [peer]."
    )
    overlap: float = Field(0.7, gt=0, le=1, description="Boxes that overlap more (IoU) count as one [ours].")
    pad: int = Field(2, ge=0, description="Pixels added around a box before it is cut out [ours].")
    crop_side: int | None = Field(
        None,
        ge=1,
        description="Cut squares and bring them to this side, in pixels [ours]. Default: the box is cut as it is; 28 in the "
        "tiny preset.",
    )
    cache: CacheSpec = Field(CacheSpec(), description="Answers of tools, by content. Failures are never kept.")


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
    """Low-rank adapters on every linear layer of the language model; the vision tower stays as it is."""

    rank: int = Field(8, ge=1, le=512, description="Rank of the update [paper: 8].")
    alpha: int = Field(16, ge=1, description="The update is scaled by alpha / rank [ours].")
    dropout: float = Field(0.0, ge=0, lt=1, description="Share of the adapters' inputs left out while training [ours].")


class OptimizerSettings(Spec):
    """Any torch optimizer by its dotted path, as torchtune configurations name components."""

    component: str = Field(
        "torch.optim.AdamW", alias="_component_", max_length=253, description="Dotted path of its class [ours]."
    )
    betas: tuple[Share, Share] = Field((0.9, 0.95), description="Decay rates of the two running means [ours].")
    weight_decay: float = Field(0.0, ge=0, description="Pull of the weights towards zero [ours].")


class SFTSettings(Spec):
    demonstrations: str | None = Field(
        None,
        max_length=1024,
        description="Trajectory archive to learn from where the store holds no curate checkpoint; `sample`: gog's own. "
        "Default: none; `sample` in the tiny preset.",
    )
    epochs: int = Field(3, ge=1, description="Passes over the trajectories [paper: 3].")
    max_steps: int | None = Field(
        None, ge=1, description="Stop after so many optimizer steps. Default: when the epochs are over."
    )
    batch_size: int = Field(8, ge=1, description="Trajectories per optimizer step, all ranks together [paper: 8].")
    learning_rate: float = Field(1e-4, gt=0, description="Its highest, after the warm-up [paper: 1e-4].")
    warmup_steps: int = Field(
        30, ge=0, description="Optimizer steps over which the rate rises from 0 [peer: a tenth of the steps]."
    )
    schedule: Literal["constant", "cosine"] = Field(
        "cosine", description="Of the learning rate after the warm-up [peer: cosine]."
    )
    clip_grad_norm: float = Field(1.0, gt=0, description="Longest gradient; longer ones are scaled down to it [ours].")
    lora: LoraSettings = Field(LoraSettings(), description="The adapters that are trained.")
    optimizer: OptimizerSettings = Field(OptimizerSettings(), description="Any torch optimizer, by its dotted path.")
    save_every: int = Field(50, ge=1, description="Optimizer steps between checkpoints [ours].")


class StratifySettings(Spec):
    questions: int | None = Field(
        None, ge=1, description="Take only the first so many of the training questions. Default: all."
    )
    rollouts: int = Field(5, ge=1, le=64, description="Samples per question, N [brief: 5].")
    level1: tuple[Share, Share] = Field(
        (0.5, 0.6),
        description="Lowest and highest pass rate of level 1, both included; level 2 lies below [brief, ours].",
    )
    temperature: float = Field(1.0, gt=0, description="Of sampling [ours].")

    @model_validator(mode="after")
    def _a_band_has_a_lower_and_an_upper_end(self) -> StratifySettings:
        low, high = self.level1
        if low > high:
            raise ValueError(f"level1 is [lowest, highest], not [{low:g}, {high:g}]: swap the two")
        return self


class GRPOSettings(Spec):
    steps: int = Field(120, ge=1, description="Optimizer steps.")
    questions_per_step: int = Field(32, ge=1, description="Groups per step [peer: 32 on one node].")
    group_size: int = Field(5, ge=2, le=64, description="Trajectories per question, N [brief: 5; paper note: 4].")
    levels: tuple[Level, ...] = Field(
        ("2",), min_length=1, max_length=3, description="Levels of difficulty trained on [paper: 2]."
    )
    keep_unsolved: bool = Field(
        True, description="Keep questions that no sample solved; they are flagged either way [ours]."
    )
    learning_rate: float = Field(2e-6, gt=0, description="Its highest, after the warm-up [paper: 2e-6].")
    warmup_steps: int = Field(5, ge=0, description="Optimizer steps over which the rate rises from 0 [ours].")
    clip: float = Field(0.2, gt=0, description="Clip range of the probability ratio [peer: 0.2].")
    kl: float = Field(0.001, ge=0, description="β, weight of the KL to the adapter-off reference [paper: 0.001].")
    format_weight: float = Field(0.1, ge=0, le=1, description="λ in r = (1-λ)·accuracy + λ·format [peer: 0.1].")
    search_penalty: float = Field(
        0.0, ge=0, le=1, description="Accuracy is multiplied by 1 - this when a search was made [peer: 0.1; GoG: none]."
    )
    temperature: float = Field(1.0, gt=0, description="Of sampling [ours].")
    failures: Literal["mask", "drop", "keep"] = Field(
        "mask",
        description="Trajectories touched by a tool failure. mask: neither loss nor group statistics; drop: the whole "
        "group is left out; keep: as if nothing had happened [ours].",
    )
    clip_grad_norm: float = Field(1.0, gt=0, description="Longest gradient; longer ones are scaled down to it [ours].")
    lora: LoraSettings = Field(LoraSettings(), description="The adapters that are trained: as in sft.")
    optimizer: OptimizerSettings = Field(OptimizerSettings(), description="Any torch optimizer, by its dotted path.")
    save_every: int = Field(10, ge=1, description="Optimizer steps between checkpoints [ours].")
    keep_trajectories: int = Field(
        40, ge=0, description="Trajectories kept for the report from each saved step [ours]."
    )


class EvaluateSettings(Spec):
    split: str = Field("test", max_length=63, description="Which questions: `<split>.jsonl` of the dataset.")
    questions: int | None = Field(None, ge=1, description="Take only the first so many. Default: all.")
    policies: tuple[Literal["direct", "whole-image", "first-candidate", "prompted", "sft", "grpo"], ...] = Field(
        ("direct", "whole-image", "sft", "grpo"),
        min_length=1,
        max_length=6,
        description="direct: may not search; whole-image: may only search the whole picture; first-candidate: searches the "
        "best-scored candidate unseen (all three with the SFT weights); prompted: the base model; sft; grpo.",
    )
    temperature: float = Field(0.0, ge=0, description="Of sampling; 0 takes the most probable token [ours].")
    bootstrap: int = Field(10_000, ge=100, description="Resamples of the confidence intervals [ours].")
    keep_trajectories: int = Field(60, ge=0, description="Trajectories kept for the report, of each policy [ours].")


class StageConfig(Spec):
    """What every stage needs to know besides its own settings. The spec of a stage's custom resource and its recipe's
    YAML are this plus the settings."""

    kind: ClassVar[str] = ""

    run: Name = Field("run", description="Name of the run; label of metrics.")
    stage: str = Field("", max_length=63, description="Key of the stage's checkpoints in the store. Default: its kind.")
    seed: int = Field(0, ge=0, description="Seeds sampling, order and initialisation.")
    model: ModelSpec = Field(description="The base model, which LoRA adapters are trained for.")
    data: DataSpec = Field(description="Where the questions are: exactly one of world, path, uri.")
    store: StoreSpec = Field(description="Where checkpoints are read from and go to.")
    inputs: dict[Text, Text] = Field(
        default_factory=dict,
        max_length=16,
        description="Checkpoints of earlier stages by kind: `sft: sft/180`, or `sft: sft` for the newest.",
    )
    endpoints: dict[Text, Text] = Field(
        default_factory=dict,
        max_length=16,
        description="URL of each tool (grounding, imageSearch, textSearch, judge), or the name of its Endpoint.",
    )
    tools: ToolsSpec = Field(ToolsSpec(), description="How tools are called: one policy for all of them.")
    workdir: str | None = Field(
        None,
        max_length=1024,
        description="Scratch folder for progress and logs. Default: a temporary one; on a cluster /work.",
    )

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
    """Makes demonstrations: the teacher's trajectories, with the run's own tools."""


class SFT(SFTSettings, Placement):
    """Aligns the model: LoRA fine-tuning on the demonstrations."""


class Stratify(StratifySettings, AgentSettings, Placement):
    """Sorts the training questions by how often the fine-tuned model solves them."""


class GRPO(GRPOSettings, AgentSettings, Placement):
    """Improves the policy by GRPO, with live tool calls."""


class Evaluate(EvaluateSettings, AgentSettings, Placement):
    """Compares policies on held-out questions."""


class Stages(Spec):
    """Settings by stage; what is absent takes the model family's preset. `skip` leaves a stage out."""

    curate: Curate = Field(Curate(), description="Makes demonstrations with the run's own tools.")
    sft: SFT = Field(SFT(), description="Aligns the model: LoRA fine-tuning on the demonstrations.")
    stratify: Stratify = Field(
        Stratify(), description="Sorts the questions by how often the fine-tuned model solves them."
    )
    grpo: GRPO = Field(GRPO(), description="Improves the policy by GRPO, with live tool calls.")
    evaluate: Evaluate = Field(Evaluate(), description="Compares policies on held-out questions.")
    skip: tuple[Literal["curate", "sft", "stratify", "grpo", "evaluate"], ...] = Field(
        (),
        max_length=5,
        description="Stages to leave out; what later ones start from must then be in the store. Default: none.",
    )


class ImagesSpec(Spec):
    """Container images, on a cluster. Default: the operator's own."""

    trainer: str | None = Field(
        None, max_length=512, description="Of stages and of the policy server. Default: the operator's trainer image."
    )
    tools: str | None = Field(
        None, max_length=512, description="Of the other servers and of movers. Default: the operator's tools image."
    )


class Arm(Spec):
    """A variant of a run's later stages; the earlier ones are shared."""

    name: Name = Field(description="Ends the names of the arm's stages: `<run>-grpo-<arm>`.")
    set: dict[Text, Any] = Field(
        min_length=1,
        max_length=64,
        description="Dotted paths under spec and their values: `stages.grpo.gaze: off`. Only stages, tools, model and seed "
        "may change.",
    )


class RunSpec(Spec):
    """What to train, on what, and where. Only model and data must be said, on a cluster also the store."""

    model: ModelSpec = Field(description="The base model, which LoRA adapters are trained for.")
    data: DataSpec = Field(description="Where the questions are: exactly one of world, path, uri.")
    store: StoreSpec | None = Field(
        None,
        description="Where checkpoints and the report go. Default on one machine: the run folder. Required on a cluster.",
    )
    seed: int = Field(0, ge=0, description="Seeds every stage.")
    endpoints: EndpointsSpec = Field(
        EndpointsSpec(), description="The servers of the run. Default: those of the embedded world."
    )
    tools: ToolsSpec = Field(ToolsSpec(), description="How tools are called: one policy for all of them.")
    stages: Stages = Field(
        Stages(), description="Settings by stage; what is left out takes the model family's preset, else its default."
    )
    arms: tuple[Arm, ...] = Field(
        (),
        max_length=16,
        description="Variants of the later stages (ablations); the earlier ones are shared. Default: none.",
    )
    scheduling: SchedulingSpec = Field(SchedulingSpec(), description="Where pods of the run may go, on a cluster.")
    service_account_name: str | None = Field(
        None,
        max_length=253,
        description="Of every pod of the run, on a cluster; the way to credentials without a Secret. Default: none.",
    )
    images: ImagesSpec = Field(ImagesSpec(), description="Container images, on a cluster.")
    retention: RetentionSpec | None = Field(None, description="Which checkpoints stay. Default: all.")
    promote_to: StoreSpec | None = Field(
        None,
        description="Store to which the last checkpoint of every stage is copied once it is verified. Default: none.",
    )
    suspend: bool = Field(False, description="Stop the current stage at its last checkpoint and wait.")
    backoff_limit: int = Field(3, ge=0, le=100, description="Failed attempts of a stage that are tried again.")
    active_deadline_seconds: int | None = Field(
        None, ge=1, description="Seconds that one attempt of a stage may take. Default: no limit."
    )
    ttl_seconds_after_finished: int | None = Field(
        None,
        ge=0,
        description="Seconds after which a finished run is deleted, on a cluster; what is in the store stays. "
        "Default: never.",
    )
    managed_by: str | None = Field(
        None,
        max_length=63,
        description="Name of another controller that has this run in hand; gog leaves it alone then. Default: gog.",
    )

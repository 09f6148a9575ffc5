"""Settings of each stage's recipe, and the limits of an episode."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from gog.spec.base import Gaze, Level, Share, Spec, YamlWords
from gog.spec.objective import FailureSettings, LossSettings, OverlapSettings, RewardSettings
from gog.spec.profiling import ProfileSettings

Checkpointing = Annotated[Literal["auto", "on", "off"], YamlWords()]


Quantization = Literal["none", "nf4"]
Offload = Literal["none", "cpu"]


class ThumbnailSettings(Spec):
    """Thumbnails of search results that the model is shown."""

    count: int = Field(
        0,
        ge=0,
        le=10,
        description="Thumbnails shown after an image search at most, all selected candidates together; 0 shows titles only. "
        "The back end must return thumbnails, by an option of its own [ours].",
    )
    side: int = Field(
        224, ge=28, le=1_024, description="Longest side in pixels; a larger thumbnail is made smaller [ours]."
    )
    max_bytes: int = Field(
        1_000_000, ge=1_000, le=10_000_000, description="Bytes of a thumbnail at most; a larger one is left out [ours]."
    )
    max_pixels: int = Field(
        4_000_000,
        ge=1_000,
        le=40_000_000,
        description="Pixels of a thumbnail at most; a larger one is left out undecoded [ours].",
    )


class AgentSettings(Spec):
    """The limits of one episode."""

    gaze: Gaze = Field(
        "select",
        description="select: the model selects among numbered candidates; direct: the best-scored candidate is searched without "
        "being shown (as DeepMMSearch-R1 does); off: no grounding, image search takes the whole image (the paper's ablation).",
    )
    reasoning: Literal["required", "optional"] = Field(
        "required", description="Whether a turn without <think>…</think> is malformed."
    )
    max_calls: int = Field(10, ge=0, description="Tool calls per episode at most [peer: 10].")
    max_turns: int = Field(12, ge=1, description="Turns of the model per episode at most [ours].")
    max_turn_tokens: int = Field(512, ge=1, description="Generated tokens per turn at most [ours].")
    max_tokens: int = Field(
        8192, ge=16, description="Tokens of an episode at most, prompt and observations included [paper]."
    )
    thumbnails: ThumbnailSettings = Field(
        ThumbnailSettings(), description="Which thumbnails of search results the model is shown [ours]. Default: none."
    )
    concurrent_episodes: int = Field(160, ge=1, description="Episodes that run at the same time in one process [ours].")


FeatureBytes = Annotated[
    int,
    Field(
        ge=1 << 20,
        description="Bytes of image features kept in CPU memory at most, in each process. The least recently used ones are "
        "encoded again when they are needed [ours: 4 GiB, some 450 one-megapixel images of Qwen2.5-VL-7B].",
    ),
]


class BaseSettings(Spec):
    """How the base model is kept in memory."""

    base_quantization: Quantization = Field(
        "none",
        description="How frozen linears and experts of the language model are kept. none: in model.dtype; nf4: in 4.5 bits "
        "per weight, unpacked at each use, with float32 adapters beside them (QLoRA). Less memory, slower sampling. It "
        "changes what the base computes, so set it alike in all stages [ours, after QLoRA].",
    )


class EngineSettings(BaseSettings):
    """What samples the turns of a stage that plays rollouts."""

    feature_cache_bytes: FeatureBytes = 4 << 30

    engine: str = Field(
        "transformers",
        max_length=253,
        pattern=r"^([a-z_][a-z0-9_]*|[A-Za-z_][A-Za-z0-9_.]*:[A-Za-z_][A-Za-z0-9_]*)$",
        description="transformers: in the stage's own process; vllm: by the servers of endpoints.policy; or `module:factory` "
        "of a gog.engine.Engine that the image holds [ours].",
    )

    @field_validator("engine")
    @classmethod
    def _training_needs_tokens(cls, engine: str) -> str:
        if engine == "chat":
            raise ValueError(
                "a chat endpoint returns no tokens and no log-probs, which stages need: only evaluate compares one, with "
                "policies: [endpoint] and endpoint: {url: …, model: …}"
            )
        return engine

    kv_cache_bytes: int | None = Field(
        None,
        ge=1,
        description="Bytes of the transformers engine's key-value cache in one process, at most. Conversations beyond it "
        "wait. Default: half of the GPU memory that is free when the engine starts, 8 GiB on a CPU [ours].",
    )
    prefill_tokens: int = Field(
        8192,
        ge=1,
        description="Tokens that one step of the transformers engine reads of prompts and observations, at most, padding "
        "included; longer ones are read in parts [peer: 8,192].",
    )
    deterministic: bool = Field(
        False,
        description="Whether the transformers engine advances each conversation by itself, so that its tokens and "
        "log-probs are the same, bit for bit, in whatever company and after an interruption. Slower [ours].",
    )

    @model_validator(mode="after")
    def _vllm_plays_a_base_that_is_not_quantized(self) -> Self:
        if self.engine == "vllm" and self.base_quantization != "none":
            raise ValueError(
                "base_quantization nf4 with engine vllm, which serves the base as it is: set base_quantization to none, or "
                "engine to transformers"
            )
        return self


class LoraSettings(Spec):
    """Low-rank adapters on every linear layer of the language model; the vision tower is frozen."""

    rank: int = Field(8, ge=1, le=512, description="Rank of the update [paper: 8].")
    alpha: int = Field(16, ge=1, description="The update is scaled by alpha / rank [ours].")
    dropout: float = Field(
        0.0, ge=0, lt=1, description="Dropout probability of the adapters' inputs during training [ours]."
    )


class OptimizerSettings(Spec):
    """A torch optimizer by its dotted path, in the form of torchtune configurations."""

    component: str = Field(
        "torch.optim.AdamW",
        alias="_component_",
        max_length=253,
        description="Dotted path of the optimizer's class [ours].",
    )
    betas: tuple[Share, Share] = Field(
        (0.9, 0.95), description="Decay rates of the running means of gradient and squared gradient [ours]."
    )
    weight_decay: float = Field(0.0, ge=0, description="Weight decay [ours].")


class PassSettings(BaseSettings):
    """Memory of forward and backward passes. Their bounds change no result."""

    micro_batch_tokens: int = Field(
        16_384,
        ge=16,
        description="Tokens of one forward and backward pass at most, per process; gradients add up over passes, so it "
        "bounds memory and changes nothing else. A longer trajectory forms a pass of its own [ours].",
    )
    activation_checkpointing: Checkpointing = Field(
        "auto",
        description="Whether decoder layers are computed again in the backward pass instead of being kept: a fraction of the "
        "memory for a third more computation. auto: on where a pass of `micro_batch_tokens` would keep more than 2 GiB "
        "[ours].",
    )
    offload: Offload = Field(
        "none",
        description="What the CPU keeps between its uses on a GPU. cpu: the optimizer's state; with several processes also "
        "each one's shard of the weights and gradients, which take part in every pass from there. Less GPU memory, slower. "
        "Without effect on a CPU [ours].",
    )


class SFTSettings(PassSettings):
    """How the model is fine-tuned on demonstrations."""

    demonstrations: str | None = Field(
        None,
        max_length=1024,
        description="Trajectory archive to train on where the store holds no curate checkpoint; `sample` is shipped with gog. "
        "Default: none; `sample` in the tiny preset.",
    )
    reviews: str | None = Field(
        None,
        max_length=1024,
        description="Review decisions of `gog view --reviews`: rejected demonstrations, and those whose last gaze is not at the "
        "box that the review fixed, are not learned from. Default: none [ours, after the checks by humans in the paper].",
    )
    unverified: Literal["skip", "keep"] = Field(
        "skip",
        description="Demonstrations whose answer neither the judge nor a comparison with the accepted answers confirmed, or "
        "that are malformed. skip: they are not learned from, and counted; keep: they are, as the tiny preset does, whose "
        "teacher slips on purpose [ours, after the checks by humans in the paper].",
    )
    eval_share: float = Field(
        0.02,
        ge=0,
        le=0.5,
        description="Share of the questions whose demonstrations are held out and evaluated during training; 0 for none "
        "[ours].",
    )
    eval_every: int = Field(
        50, ge=1, description="Optimizer steps between evaluations of held-out demonstrations [ours]."
    )
    select: Literal["last", "best"] = Field(
        "last",
        description="Adapter that later stages start from: that of the last step, or the one with the lowest loss on "
        "held-out demonstrations. The loss of some demonstrations is a weak proxy of success with live tools, and the "
        "schedule ends at rate 0, so the default is last [ours].",
    )
    epochs: int = Field(3, ge=1, description="Passes over the trajectories [paper: 3].")
    max_steps: int | None = Field(None, ge=1, description="Optimizer steps at most. Default: those of all epochs.")
    max_tokens: int = Field(
        8192,
        ge=16,
        description="Tokens of a demonstration at most, prompt, observations and images included; a longer one is skipped "
        "[peer: 8,192].",
    )
    batch_size: int = Field(8, ge=1, description="Trajectories per optimizer step, over all ranks [paper: 8].")
    learning_rate: float = Field(1e-4, gt=0, description="Learning rate after the warm-up [paper: 1e-4].")
    warmup_steps: int = Field(
        30, ge=0, description="Optimizer steps over which the learning rate rises from 0 [peer: a tenth of the steps]."
    )
    schedule: Literal["constant", "cosine"] = Field(
        "cosine", description="Schedule of the learning rate after the warm-up [peer: cosine]."
    )
    clip_grad_norm: float = Field(1.0, gt=0, description="Norm to which larger gradients are scaled down [ours].")
    lora: LoraSettings = Field(LoraSettings(), description="The adapters that are trained.")
    optimizer: OptimizerSettings = Field(OptimizerSettings(), description="The optimizer.")
    save_every: int = Field(50, ge=1, description="Optimizer steps between checkpoints [ours].")
    profile: ProfileSettings | None = Field(None, description="Traces of some steps. Default: none [ours].")
    feature_cache_bytes: FeatureBytes = 4 << 30


class StratifySettings(EngineSettings):
    """How questions are graded by difficulty."""

    questions: int | None = Field(
        None, ge=1, description="Number of training questions to grade, from the first on. Default: all."
    )
    undemonstrated: bool = Field(
        False,
        description="Whether to grade only questions that the SFT policy was not shown a demonstration of. Its pass rate "
        "on the others may come from memory, so levels and GRPO say less about new images [ours].",
    )
    rollouts: int = Field(5, ge=1, le=64, description="Samples per question, N [brief: 5].")
    level1: tuple[Share, Share] = Field(
        (0.5, 0.6),
        description="Lowest and highest pass rate of level 1, inclusive; level 2 is below [brief, ours].",
    )
    max_unknown_share: Share = Field(
        0.5,
        description="Largest fraction of questions that may stay without a level because failures of tools or the judge "
        "left too few valid samples. Above it they are played again while `tools.outage` has patience, then the attempt "
        "fails and is retried [ours].",
    )
    temperature: float = Field(1.0, gt=0, description="Sampling temperature [ours].")

    @model_validator(mode="after")
    def _a_band_has_a_lower_and_an_upper_end(self) -> StratifySettings:
        low, high = self.level1
        if low > high:
            raise ValueError(f"level1 is [lowest, highest], not [{low:g}, {high:g}]: swap the two")
        return self


class GRPOSettings(RewardSettings, FailureSettings, LossSettings, OverlapSettings, PassSettings, EngineSettings):
    """How the policy is improved by reinforcement learning."""

    steps: int = Field(
        120,
        ge=1,
        description="Steps: in each, questions are played and learned from. What counts steps counts these, not the optimizer "
        "steps of `updatesPerRollout`.",
    )
    questions_per_step: int = Field(
        32, ge=1, description="Questions per step, one group of trajectories for each [peer: 32 on one node]."
    )
    group_size: int = Field(5, ge=2, le=64, description="Trajectories per question, N [brief: 5; paper note: 4].")
    updates_per_rollout: int = Field(
        1,
        ge=1,
        description="Optimizer steps into which the groups of a step are divided. Above 1 the policy differs from the one that "
        "sampled, so probability ratios and their clip range take effect. Fewer are made where fewer groups carry a signal "
        "[ours; peer: verl ppo_mini_batch_size].",
    )
    levels: tuple[Level, ...] = Field(
        ("2",), min_length=1, max_length=3, description="Levels of difficulty to train on [paper: 2]."
    )
    curriculum: Literal["mixed", "annealed"] = Field(
        "mixed",
        description="How a step's questions are divided among `levels`. mixed: as they occur; annealed: the first step takes "
        "the easiest of the levels, the last one the hardest, and the share between moves evenly [ours; GoG: level 2 only].",
    )
    max_oversampling: float = Field(
        1.0,
        ge=1,
        le=16,
        description="Questions that a step may play at most, as a multiple of `questionsPerStep`. Above 1, groups without "
        "reward variance, penalties aside, are replaced by those of further questions, until `questionsPerStep` groups carry a "
        "signal or this is reached. 1: they are only counted [peer: DAPO dynamic sampling; GoG: none].",
    )
    keep_unsolved: bool = Field(
        True, description="Train on questions that no sample solved, too; the report flags them in any case [ours]."
    )
    learning_rate: float = Field(2e-6, gt=0, description="Learning rate after the warm-up [paper: 2e-6].")
    warmup_steps: int = Field(5, ge=0, description="Steps over which the learning rate rises from 0 [ours].")
    kl_coef: float = Field(0.001, ge=0, description="β, weight of the KL to the adapter-off reference [paper: 0.001].")
    tis_cap: float = Field(
        2.0,
        ge=1,
        description="Largest importance weight exp(trainer's log-probability - engine's) of a token; larger ones are "
        "truncated [peer: verl and TRL 2; AReaL 5].",
    )
    max_logprob_gap: float | None = Field(
        None,
        gt=0,
        description="Mean difference between the engine's and the trainer's log-probability of a step's tokens, in nats, "
        "above which the stage stops. Default: 0.001 in float32, 0.1 in bfloat16 [ours].",
    )
    temperature: float = Field(1.0, gt=0, description="Sampling temperature [ours].")
    max_excluded_share: Share = Field(
        0.5,
        description="Largest share of a step's trajectories that failures of tools or the judge may exclude. A step above "
        "it is not learned from, because those that remain are mostly the ones that called no tool: its questions are "
        "played again while `tools.outage` has patience, then the attempt fails and is retried [ours].",
    )
    max_no_signal_steps: int = Field(
        10,
        ge=1,
        description="Steps in a row in which every group has zero reward variance, so nothing is learned, after which the "
        "stage warns or stops [ours].",
    )
    no_signal: Literal["warn", "stop"] = Field(
        "warn",
        description="What happens after `maxNoSignalSteps` steps without a signal. warn: a line in the log, which recurs; "
        "stop: the stage fails and is not retried [ours].",
    )
    clip_grad_norm: float = Field(1.0, gt=0, description="Norm to which larger gradients are scaled down [ours].")
    lora: LoraSettings = Field(
        LoraSettings(), description="The adapters that are trained, with the fields of sft.lora."
    )
    optimizer: OptimizerSettings = Field(OptimizerSettings(), description="The optimizer.")
    save_every: int = Field(10, ge=1, description="Steps between checkpoints [ours].")
    profile: ProfileSettings | None = Field(None, description="Traces of some steps. Default: none [ours].")
    keep_trajectories: int = Field(
        40, ge=0, description="Trajectories of each saved step that are kept for the report [ours]."
    )

    @field_validator("levels")
    @classmethod
    def _each_level_is_named_once(cls, levels: tuple[Level, ...]) -> tuple[Level, ...]:
        if len(set(levels)) < len(levels):
            raise ValueError("a level is named twice, which adds no questions: name each once")
        return levels

    @model_validator(mode="after")
    def _a_refill_replaces_groups_that_carry_no_signal(self) -> Self:
        if self.advantages == "batch" and self.max_oversampling > 1:
            raise ValueError(
                "maxOversampling replaces groups of equal rewards, and with advantages batch these carry a signal, so there "
                "is nothing to refill: set it to 1, or advantages to group_batch"
            )
        return self

    @model_validator(mode="after")
    def _an_annealed_curriculum_has_two_levels(self) -> Self:
        if self.curriculum == "annealed" and len(set(self.levels)) < 2:
            raise ValueError(
                f"curriculum annealed moves from one level to another, and levels has only {self.levels[0]}: name two, such "
                "as ['1', '2'], or set curriculum to mixed"
            )
        return self

    @model_validator(mode="after")
    def _every_optimizer_step_has_a_group(self) -> Self:
        if self.updates_per_rollout > self.questions_per_step:
            raise ValueError(
                f"updatesPerRollout {self.updates_per_rollout} divides the groups of a step, and questionsPerStep is "
                f"{self.questions_per_step}: set it to {self.questions_per_step} or less, or raise questionsPerStep"
            )
        return self

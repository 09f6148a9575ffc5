"""The settings of each stage's recipe, and the limits of an episode."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from gog.spec.base import Gaze, Level, Share, Spec


class AgentSettings(Spec):
    """The limits of one episode."""

    gaze: Gaze = Field(
        "select",
        description="select: the model chooses among numbered candidates; direct: the best-scored candidate is searched "
        "unseen (as DeepMMSearch-R1 does); off: no grounding, every image search takes the whole image (the paper's ablation).",
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
    teacher_accuracy: float = Field(
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
    max_tokens: int = Field(
        8192,
        ge=16,
        description="Tokens of a demonstration, prompt, observations and images included; a longer one is skipped "
        "[peer: 8,192].",
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
    max_unknown_share: Share = Field(
        0.5,
        description="Largest share of questions that may stay without a level, because failures of tools or the judge left "
        "too few valid samples. Above it they are played again while `tools.outage` has patience, then the attempt fails "
        "and is retried [ours].",
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
    loss: str = Field(
        "grpo",
        pattern=r"^([a-z_][a-z0-9_]*|[A-Za-z_][A-Za-z0-9_.]*:[A-Za-z_][A-Za-z0-9_]*)$",
        max_length=253,
        description="Loss of the update: a file of gog_recipes/losses, or `module:function` of one that the image holds [brief: GRPO].",
    )
    clip: float = Field(0.2, gt=0, description="Clip range of the probability ratio [peer: 0.2].")
    kl_coef: float = Field(0.001, ge=0, description="β, weight of the KL to the adapter-off reference [paper: 0.001].")
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
    max_excluded_share: Share = Field(
        0.5,
        description="Largest share of a step's trajectories that failures of tools or the judge may exclude. A step above "
        "it is not learned from, because those that remain are mostly the ones that called no tool: its questions are "
        "played again while `tools.outage` has patience, then the attempt fails and is retried [ours].",
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
        description="direct: may not search; whole-image: may only search the whole image; first-candidate: searches the "
        "best-scored candidate unseen (all three with the SFT weights); prompted: the base model; sft; grpo.",
    )
    temperature: float = Field(0.0, ge=0, description="Of sampling; 0 takes the most probable token [ours].")
    bootstrap: int = Field(10_000, ge=100, description="Resamples of the confidence intervals [ours].")
    keep_trajectories: int = Field(60, ge=0, description="Trajectories kept for the report, of each policy [ours].")

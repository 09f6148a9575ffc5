"""What GRPO optimises (the reward, what tool failures make of it, the loss), and how old the samples of an update may be."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from gog.spec.base import Advantages, Share, Spec, ToolFailures

FATAL_FAILURES = 3
"""Default of `fatalFailures`."""


class LossSettings(Spec):
    """The loss, and what it may choose itself."""

    loss: str = Field(
        "grpo",
        pattern=r"^([a-z_][a-z0-9_]*|[A-Za-z_][A-Za-z0-9_.]*:[A-Za-z_][A-Za-z0-9_]*)$",
        max_length=253,
        description="Loss of the update: grpo, dr_grpo, dapo, gspo, cispo, rloo, reinforce_plus_plus, another file of "
        "gog_recipes/losses, or `module:function` in the trainer image [brief: GRPO].",
    )
    clip: float | None = Field(
        None,
        gt=0,
        description="ε, clip range of the probability ratio: from 1-ε to 1+ε, or to 1+clipHigh. Default: that of the loss; "
        "0.2 for grpo [peer: 0.2].",
    )
    clip_high: float | None = Field(
        None,
        gt=0,
        description="Upper clip range where it differs from `clip`, such as 0.28 in DAPO. Default: `clip` where it is set, "
        "else that of the loss [peer].",
    )
    kl_estimator: Literal["k1", "k2", "k3"] | None = Field(
        None,
        description="Estimator of that KL per token, with r = policy's - reference's log-probability. k1: r, with the "
        "gradient of its expectation, which is that of k2; k2: r²/2; k3: exp(-r) - 1 + r. Default: that of the loss; k3 for "
        "grpo [peer].",
    )
    advantages: Advantages | None = Field(
        None,
        description="How rewards become advantages. group: minus the group's mean, divided by its deviation; centred: minus "
        "the group's mean; leave_one_out: minus the mean of the group's others; batch: minus the step's mean, divided by "
        "its deviation; group_batch: minus the group's mean, divided by the deviation of these over the step. Default: "
        "that of the loss; group for grpo [peer].",
    )

    @field_validator("loss")
    @classmethod
    def _no_loss_needs_a_critic(cls, loss: str) -> str:
        if loss == "ppo":
            raise ValueError(
                "ppo needs a value head, which gog does not train: reinforce_plus_plus has the same clipped ratio, with "
                "advantages normalised over the step in place of a critic's"
            )
        return loss


class RewardSettings(Spec):
    """The reward of an episode."""

    format_weight: float = Field(0.1, ge=0, le=1, description="λ in r = (1-λ)·accuracy + λ·format [peer: 0.1].")
    search_penalty: float = Field(
        0.0,
        ge=0,
        le=1,
        description="Accuracy is multiplied by 1 minus this value when the episode searched [peer: 0.1; GoG: none].",
    )
    call_penalty: Share = Field(
        0.0,
        description="Share of the accuracy that each tool call costs, cached or not: a right answer with fewer calls earns "
        "more, and a wrong one nothing less [ours; GoG: none].",
    )
    token_penalty: Share = Field(
        0.0, description="Share of the accuracy that 1,000 generated tokens cost [ours; GoG: none]."
    )
    overlong_share: Share | None = Field(
        None,
        description="Share of `maxTokens`, at its end, in which the reward of an episode falls linearly by up to "
        "`overlongPenalty`; one that the cap ends loses all of that. Default: that of the loss; 0.2 for dapo, 0 (never) for "
        "the others [peer: DAPO].",
    )
    overlong_penalty: Share = Field(
        1.0, description="What the reward of an episode of `maxTokens` tokens loses [peer: DAPO 1]."
    )


class FailureSettings(Spec):
    """What tool failures make of a trajectory."""

    tool_failures: ToolFailures = Field(
        "exclude",
        description="Treatment of trajectories with a tool failure. exclude: they count neither in the loss nor in the "
        "group's statistics; mask: they count, but the turn of the first failed call and all later ones are not learned; "
        "drop: their whole group is excluded; keep: they are learned like any other; zero: they are learned with reward 0; "
        "fatal-clamp: after `fatalFailures` failed turns in a row, these and all later ones are not learned, and the "
        "advantage is at least 0 [ours].",
    )
    fatal_failures: int = Field(
        FATAL_FAILURES,
        ge=1,
        le=64,
        description="Turns in a row with a tool failure that are fatal; only with `toolFailures: fatal-clamp` [peer: 3].",
    )

    survivor_correction: Literal["none", "inverse-probability"] = Field(
        "none",
        description="What makes up for long episodes being excluded more often. inverse-probability: a trajectory that counts "
        "is weighted by 1 / the probability that none of its calls failed, estimated from the step's failed calls of each "
        "tool; only with `toolFailures: exclude` [ours].",
    )

    @model_validator(mode="after")
    def _only_exclusion_leaves_survivors(self) -> Self:
        if self.survivor_correction != "none" and self.tool_failures != "exclude":
            raise ValueError(
                f"survivorCorrection weights what toolFailures exclude leaves, and toolFailures is {self.tool_failures}: set "
                "it to exclude, or survivorCorrection to none"
            )
        return self

    @model_validator(mode="after")
    def _only_one_rule_counts_failures_in_a_row(self) -> Self:
        if self.fatal_failures != FATAL_FAILURES and self.tool_failures != "fatal-clamp":
            raise ValueError(
                f"fatalFailures is used by toolFailures fatal-clamp only, and toolFailures is {self.tool_failures}: remove "
                "it, or set toolFailures to fatal-clamp"
            )
        return self


class AsyncSettings(Spec):
    """How far rollouts run ahead of the updates that learn from them."""

    max_staleness: int = Field(
        2,
        ge=1,
        le=64,
        description="Steps between the oldest weights that sampled a step and those that learn from it, at most; so "
        "many steps are played ahead [ours].",
    )

    @field_validator("max_staleness", mode="before")
    @classmethod
    def _none_is_synchronous(cls, value: object) -> object:
        if type(value) is int and value == 0:
            raise ValueError("0 is the synchronous loop, the default: remove async, or allow 1 or more")
        return value


class OverlapSettings(Spec):
    """Whether rollouts and updates overlap."""

    asynchronous: AsyncSettings | None = Field(
        None,
        alias="async",
        description="Plays the next steps while one is learned. Default: none; rollouts and updates take turns [ours].",
    )

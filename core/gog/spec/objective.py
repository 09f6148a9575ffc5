"""What GRPO optimises: the reward of an episode, and the loss of an update."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator

from gog.spec.base import Advantages, Share, Spec


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

"""The Dr. GRPO loss: GRPO without its two biases. Pure.

    loss = sum over trajectories and tokens of -w·min(ρ·A, clip(ρ)·A) + β·KL, divided by trajectories · longest

A mean over a trajectory's tokens makes long wrong answers cheap; here every token of a step weighs the same, whatever
else there is in the step. A group's deviation favours questions that are nearly always right or wrong; advantages are only
centred. `longest` is the most that the caps of an episode let a trajectory generate, a constant.
"""

from __future__ import annotations

from gog_recipes import losses
from gog_recipes.losses import LossConfig, LossInputs, LossTerms, parts


@losses.preset(advantages="centred")
def dr_grpo(inputs: LossInputs, config: LossConfig) -> LossTerms:
    """The Dr. GRPO loss of t trajectories with k learned tokens in all.

    Source:
        Liu et al., Understanding R1-Zero-Like Training (arXiv 2503.20783); published without a KL.
    """
    terms, clipped = parts.pessimistic(parts.token_ratio(inputs), inputs, config)
    return parts.total(terms, clipped, 1 / (inputs.trajectories * config.longest), inputs, config)

"""The RLOO loss: REINFORCE on whole trajectories, each with the mean of its group's others as baseline. Pure.

    loss = mean over trajectories of sum over its tokens of -w·c·A·logp + β·KL

c = min(ρ, 5) as a constant corrects for an earlier policy, one token at a time, and is 1 where there is none. Unlike the
other losses it does not divide by a trajectory's length, so gradients are larger by about the mean length; see
`clipGradNorm`.
"""

from __future__ import annotations

from gog_recipes import losses
from gog_recipes.losses import LossConfig, LossInputs, LossTerms, parts


@losses.preset(clip_low=1.0, clip_high=4.0, advantages="leave_one_out")
def rloo(inputs: LossInputs, config: LossConfig) -> LossTerms:
    """The RLOO loss of t trajectories with k learned tokens in all.

    Source:
        Ahmadian et al., Back to Basics (arXiv 2402.14740), equations 2 and 8; the KL as a term of the loss instead of the
        reward.
    """
    terms, clipped = parts.reinforce(inputs, config)
    return parts.total(terms, clipped, 1 / inputs.trajectories, inputs, config)

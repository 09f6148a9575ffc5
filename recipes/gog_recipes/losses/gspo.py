"""The GSPO loss: GRPO with one probability ratio per trajectory, the geometric mean over its tokens. Pure.

    loss = mean over trajectories of -min(s·A, clip(s)·A) + β·KL,   s = exp(mean over tokens of logp - old_logp)

Written per token, with s as the value of every token's ratio and the token's own log-probability as its gradient, so that
each token has its importance weight. Without weights values and gradients are those of the formula. s differs from 1 by far
less than a token's ratio, so the range is narrow.
"""

from __future__ import annotations

from gog_recipes import losses
from gog_recipes.losses import LossConfig, LossInputs, LossTerms, parts


@losses.preset(clip_low=3e-4, clip_high=4e-4)
def gspo(inputs: LossInputs, config: LossConfig) -> LossTerms:
    """The GSPO loss of t trajectories with k learned tokens in all.

    Source:
        Zheng et al., Group Sequence Policy Optimization (arXiv 2507.18071), equations 5 and 13 (per token); published
        without a KL.
    """
    sequence = parts.mean_over_tokens(inputs, (inputs.logp - inputs.old_logp).detach())
    ratio = (parts.per_token(inputs, sequence) + inputs.logp - inputs.logp.detach()).exp()
    terms, clipped = parts.pessimistic(ratio, inputs, config)
    return parts.total(terms, clipped, parts.of_trajectories(inputs), inputs, config)

"""The CISPO loss: the clipped ratio is a weight, so that no token loses its gradient. Pure.

    loss = mean over the step's tokens of -w·c·A·logp + β·KL,   c = clip(ρ, 0, 1+ε_high) as a constant

Its value has no meaning of its own: it falls with the log-probabilities of what was sampled. Its gradient is what counts.
"""

from __future__ import annotations

from gog_recipes import losses
from gog_recipes.losses import LossConfig, LossInputs, LossTerms, parts


@losses.preset(clip_low=1.0, clip_high=4.0)
def cispo(inputs: LossInputs, config: LossConfig) -> LossTerms:
    """The CISPO loss of t trajectories with k learned tokens in all.

    Source:
        MiniMax-M1 (arXiv 2506.13585), equations 4 and 5, without a lower bound; upper bound 5 of ScaleRL (arXiv 2510.13786);
        published without a KL.
    """
    terms, clipped = parts.reinforce(inputs, config)
    return parts.total(terms, clipped, 1 / inputs.tokens, inputs, config)

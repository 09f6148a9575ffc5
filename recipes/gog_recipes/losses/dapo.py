"""The DAPO loss: GRPO with a wider upper clip and a mean over the step's tokens. Pure.

    loss = mean over the step's tokens of -w·min(ρ·A, clip(ρ, 1-0.2, 1+0.28)·A) + β·KL

The wider upper range lets improbable tokens grow, which keeps the policy's entropy up; a token of a long trajectory weighs as
much as one of a short one. DAPO's over-length penalty is part of the reward (`overlongShare`), which this loss switches on.
Its refill of groups without a signal is not, because it plays more episodes: `maxOversampling` switches that on.
"""

from __future__ import annotations

from gog_recipes import losses
from gog_recipes.losses import LossConfig, LossInputs, LossTerms, parts


@losses.preset(clip_high=0.28, overlong_share=0.2)
def dapo(inputs: LossInputs, config: LossConfig) -> LossTerms:
    """The DAPO loss of t trajectories with k learned tokens in all.

    Source:
        Yu et al., DAPO (arXiv 2503.14476), equation 8; published without a KL.
    """
    terms, clipped = parts.pessimistic(parts.token_ratio(inputs), inputs, config)
    return parts.total(terms, clipped, 1 / inputs.tokens, inputs, config)

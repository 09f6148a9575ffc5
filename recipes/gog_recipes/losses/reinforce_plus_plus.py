"""The REINFORCE++ loss: PPO's clipped ratio without a critic, with advantages normalised over the whole step. Pure.

    loss = mean over the step's tokens of -w·min(ρ·A, clip(ρ, 1-ε, 1+ε)·A) + β·KL (k2)

A trajectory is compared with all others of the step. `advantages: group_batch` first subtracts the mean of its group, the
variant that its author recommends where questions have several samples.
"""

from __future__ import annotations

from gog_recipes import losses
from gog_recipes.losses import LossConfig, LossInputs, LossTerms, parts


@losses.preset(kl_estimator="k2", advantages="batch")
def reinforce_plus_plus(inputs: LossInputs, config: LossConfig) -> LossTerms:
    """The REINFORCE++ loss of t trajectories with k learned tokens in all.

    Source:
        Hu, REINFORCE++ (arXiv 2501.03262); the KL as a term of the loss, as in its variant with a group baseline.
    """
    terms, clipped = parts.pessimistic(parts.token_ratio(inputs), inputs, config)
    return parts.total(terms, clipped, 1 / inputs.tokens, inputs, config)

"""The GRPO loss. Pure.

    loss = mean over trajectories of mean over its tokens of
           -w·min(ρ·A, clip(ρ, 1-ε, 1+ε)·A) + β·(exp(d) - d - 1)

ρ = exp(logp - old_logp), A the trajectory's advantage, w the token's importance weight, d = reference_logp - logp. The
last term is the k3 estimator of the KL, which is never negative; the spec may name another.
"""

from __future__ import annotations

from gog_recipes import losses
from gog_recipes.losses import LossConfig, LossInputs, LossTerms, parts


@losses.preset()
def grpo(inputs: LossInputs, config: LossConfig) -> LossTerms:
    """The GRPO loss of t trajectories with k learned tokens in all.

    Source:
        DeepSeekMath (GRPO, sequence mean of token means, arXiv 2402.03300); decoupled PPO (arXiv 2110.00641) for the
        separation of ρ and w.
    """
    terms, clipped = parts.pessimistic(parts.token_ratio(inputs), inputs, config)
    return parts.total(terms, clipped, parts.of_trajectories(inputs), inputs, config)

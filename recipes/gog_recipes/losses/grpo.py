"""The GRPO loss. Pure.

    loss = mean over trajectories of mean over its tokens of
           -w·min(ρ·A, clip(ρ, 1-ε, 1+ε)·A) + β·(exp(d) - d - 1)

ρ = exp(logp - old_logp), A the trajectory's advantage, w the token's importance weight, d = reference_logp - logp. The
last term is the k3 estimator of the KL, which is never negative.
"""

from __future__ import annotations

import torch

from gog_recipes.losses import LossTerms


def grpo(
    logp: torch.Tensor,
    old_logp: torch.Tensor,
    reference_logp: torch.Tensor | None,
    advantages: torch.Tensor,
    lengths: torch.Tensor,
    *,
    clip: float,
    kl_coef: float,
    trajectories: int,
    weights: torch.Tensor | None = None,
) -> LossTerms:
    """The GRPO loss of t trajectories with k learned tokens in all.

    Args:
        logp: [k] log-probabilities by the policy that is trained
        old_logp: [k] log-probabilities by that policy before the update
        reference_logp: [k] by the reference policy, or None for no KL term
        advantages: [t]
        lengths: [t] learned tokens of each trajectory
        clip: ε
        kl_coef: β
        trajectories: how many the mean is taken over, at least t
        weights: [k] importance weights, or None for 1

    Source:
        DeepSeekMath (GRPO, sequence mean of token means); Schulman, "Approximating KL Divergence" (k3); decoupled PPO
        (arXiv 2110.00641) for the separation of ρ and w.
    """
    advantage = advantages.repeat_interleave(lengths)  # [k]
    weight = lengths.to(logp.dtype).reciprocal().repeat_interleave(lengths) / trajectories  # [k]
    ratio = (logp - old_logp).exp()
    clipped = ratio.clamp(1 - clip, 1 + clip)
    per_token = -torch.min(ratio * advantage, clipped * advantage)
    if weights is not None:
        per_token = per_token * weights
    divergence = torch.zeros_like(logp)
    if reference_logp is not None:
        distance = reference_logp - logp
        divergence = distance.exp() - distance - 1
        per_token = per_token + kl_coef * divergence
    binding = (clipped * advantage < ratio * advantage).float()
    return LossTerms(
        loss=(per_token * weight).sum(),
        kl=float(divergence.detach().mean()),
        clip_frac=float(binding.mean()),
    )

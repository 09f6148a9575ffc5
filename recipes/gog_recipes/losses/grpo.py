"""The GRPO loss. Pure.

    loss = mean over trajectories of mean over its tokens of
           -min(ρ·A, clip(ρ, 1-ε, 1+ε)·A) + β·(exp(d) - d - 1)

ρ = exp(logp - sampled), A the trajectory's advantage, d = reference - logp (the k3 estimator of the KL, never
negative). k: learned tokens of all trajectories, concatenated; t: trajectories.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class GRPOTerms:
    """loss: a scalar to differentiate. The others are means over tokens, detached; gap: the largest |logp - sampled|."""

    loss: torch.Tensor
    kl: float
    clip_frac: float
    gap: float


def grpo(
    logp_k: torch.Tensor,
    rollout_logp: torch.Tensor,
    reference_k: torch.Tensor | None,
    advantages_t: torch.Tensor,
    lengths_t: torch.Tensor,
    *,
    clip: float,
    kl_coef: float,
    trajectories: int,
) -> GRPOTerms:
    """trajectories: how many the mean is taken over; more than t when some were left out for having advantage 0."""
    advantage_k = advantages_t.repeat_interleave(lengths_t)
    weight_k = lengths_t.to(logp_k.dtype).reciprocal().repeat_interleave(lengths_t) / trajectories
    log_ratio = logp_k - rollout_logp
    ratio = log_ratio.exp()
    clipped = ratio.clamp(1 - clip, 1 + clip)
    per_token = -torch.min(ratio * advantage_k, clipped * advantage_k)
    divergence = torch.zeros_like(logp_k)
    if reference_k is not None:
        distance = reference_k - logp_k
        divergence = distance.exp() - distance - 1
        per_token = per_token + kl_coef * divergence
    binding = (clipped * advantage_k < ratio * advantage_k).float()
    return GRPOTerms(
        loss=(per_token * weight_k).sum(),
        kl=float(divergence.detach().mean()),
        clip_frac=float(binding.mean()),
        gap=float(log_ratio.detach().abs().max()),
    )

"""What the losses have in common: ratios and their clips, weights of tokens, estimators of the KL. Pure.

Shapes as in `gog_recipes.losses`: t trajectories, k learned tokens.
"""

from __future__ import annotations

import torch

from gog_recipes.losses import LossConfig, LossInputs, LossTerms


def per_token(inputs: LossInputs, values: torch.Tensor) -> torch.Tensor:
    """[t] values of trajectories at each of their tokens, [k]."""
    return values.repeat_interleave(inputs.lengths)


def mean_over_tokens(inputs: LossInputs, values: torch.Tensor) -> torch.Tensor:
    """[k] values of tokens, their mean over each trajectory, [t]."""
    rows = per_token(inputs, torch.arange(len(inputs.lengths), device=values.device))
    return values.new_zeros(len(inputs.lengths)).index_add(0, rows, values) / inputs.lengths


def weighted(terms: torch.Tensor, inputs: LossInputs) -> torch.Tensor:
    """[k] terms of tokens times their importance weights."""
    return terms if inputs.weights is None else terms * inputs.weights


def token_ratio(inputs: LossInputs) -> torch.Tensor:
    """[k] probability ratios of policy and policy before the update, with gradients."""
    return (inputs.logp - inputs.old_logp).exp()


def pessimistic(ratio: torch.Tensor, inputs: LossInputs, config: LossConfig) -> tuple[torch.Tensor, torch.Tensor]:
    """-w·min(ρ·A, clip(ρ)·A): a ratio that left the range in the rewarded direction has no gradient.

    Args:
        ratio: [k] ρ, with gradients
        inputs: advantages A and weights w
        config: the range

    Returns:
        [k] terms; [k] whether the clipped ratio was taken.

    Source:
        Schulman et al., PPO (arXiv 1707.06347), equation 7.
    """
    advantage = per_token(inputs, inputs.advantages)
    clipped = ratio.clamp(1 - config.clip_low, 1 + config.clip_high)
    terms = -torch.min(ratio * advantage, clipped * advantage)
    return weighted(terms, inputs), clipped * advantage < ratio * advantage


def reinforce(inputs: LossInputs, config: LossConfig) -> tuple[torch.Tensor, torch.Tensor]:
    """-w·c·A·logp with the clipped ratio c as a constant, so every token keeps a gradient.

    Returns:
        [k] terms; [k] whether the ratio was clipped.
    """
    ratio = token_ratio(inputs).detach()
    clipped = ratio.clamp(1 - config.clip_low, 1 + config.clip_high)
    terms = -clipped * per_token(inputs, inputs.advantages) * inputs.logp
    return weighted(terms, inputs), clipped != ratio


def divergence(inputs: LossInputs, config: LossConfig) -> torch.Tensor:
    """[k] estimates of KL(policy || reference) at each token, by samples of the policy; zeros without a reference.

    With r = log-probability by the policy - by the reference: k1 = r, unbiased, of either sign; k2 = r²/2; k3 =
    exp(-r) - 1 + r, unbiased, never negative. Their gradients differ more than their values. That of k2 is, on average, the
    gradient of the KL. That of k1 is 0 on average, so k1 has k2's here. That of k3 is, on average, the gradient of
    KL(reference || policy).

    Source:
        Schulman, "Approximating KL Divergence" (2020); Tang and Munos, "On a few pitfalls in KL divergence gradient
        estimation for RL" (arXiv 2506.09477) for the gradients.
    """
    if inputs.reference_logp is None:
        return torch.zeros_like(inputs.logp)
    distance = inputs.reference_logp - inputs.logp
    if config.kl_estimator == "k3":
        return distance.exp() - distance - 1
    square = distance.square() / 2
    return square if config.kl_estimator == "k2" else square - square.detach() - distance.detach()


def of_trajectories(inputs: LossInputs) -> torch.Tensor:
    """[k] weights of tokens for the mean over the step's trajectories of means over their tokens."""
    return per_token(inputs, inputs.lengths.to(inputs.logp.dtype).reciprocal()) / inputs.trajectories


def total(
    terms: torch.Tensor,
    clipped: torch.Tensor,
    weight: torch.Tensor | float,
    inputs: LossInputs,
    config: LossConfig,
) -> LossTerms:
    """The loss of weighted terms, with the KL.

    Args:
        terms: [k] policy-gradient term of each token
        clipped: [k] whether its ratio was clipped
        weight: [k] or scalar, of each token in the step's loss, the KL included
        inputs: log-probabilities for the KL
        config: weight and estimator of the KL
    """
    kl = divergence(inputs, config)
    if inputs.reference_logp is not None:
        terms = terms + config.kl_coef * kl
    return LossTerms(loss=(terms * weight).sum(), kl=float(kl.detach().mean()), clip_frac=float(clipped.float().mean()))

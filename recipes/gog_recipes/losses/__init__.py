"""Losses of GRPO: one file each, chosen by name in the spec (`stages.grpo.loss`).

A file `losses/NAME.py` holds a function NAME with the signature of `Loss`. A function of an installed package is named
`module:function`. A loss must be additive: a step's trajectories are divided among passes and ranks, each of
which calls it for its own part, and the gradients are summed. So it sums over the trajectories it is given and divides by `trajectories`.

Shapes: t trajectories of one call; k learned tokens of all of them, concatenated in order.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Protocol, cast

import torch

from gog.errors import UserError


@dataclass(frozen=True)
class LossTerms:
    """A loss and what is reported of it."""

    loss: torch.Tensor
    """Scalar to differentiate: this call's part of the step's loss."""
    kl: float
    """Estimated KL to the reference, in nats, mean over tokens; 0 without a reference."""
    clip_frac: float
    """Share of tokens for which the clipped ratio was taken."""


class Loss(Protocol):
    """A policy-gradient loss."""

    def __call__(
        self,
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
        """The loss of t trajectories.

        Args:
            logp: [k] log-probabilities by the policy that is trained, with gradients
            old_logp: [k] log-probabilities by the same policy before the update. A rollout is learned in one update, so
                they equal `logp` and the ratio of the two is 1; a gradient flows through `logp` only
            reference_logp: [k] by the reference policy; None where kl_coef is 0
            advantages: [t]
            lengths: [t] learned tokens of each trajectory; they sum to k
            clip: clip range of the probability ratio
            kl_coef: weight of the KL
            trajectories: how many the step's mean is taken over; more than t where others are in another pass, on
                another rank, or were left out because their advantage is 0
            weights: [k] by which each token's policy gradient is multiplied, because the engine that sampled it is not
                quite the policy (gog_recipes.runtime.logprob_gap); None for 1. The KL is not weighted
        """
        ...


def load(name: str) -> Loss:
    """A loss by its name.

    Args:
        name: a file of this folder, or `module:function`

    Raises:
        UserError: there is no loss of that name.
    """
    module, _, function = name.partition(":")
    if not function:
        module, function = f"{__name__}.{name}", name
    try:
        return cast(Loss, getattr(importlib.import_module(module), function))
    except (ImportError, AttributeError, ValueError) as error:
        raise UserError(f"no loss {name!r}: {error}", where="loss", remedy="use grpo, or module:function") from None

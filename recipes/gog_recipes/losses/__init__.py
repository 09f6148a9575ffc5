"""Losses of GRPO: one file each, chosen by name in the spec (`stages.grpo.loss`).

A file `losses/NAME.py` holds a function NAME of `LossInputs` and `LossConfig`; `preset` above it names what the loss takes
for settings that the spec leaves out, and what it needs. A function of an installed package is named `module:function`. A
loss must be additive: the trajectories of an optimizer step are divided among passes and ranks, each of which calls it for
its own part, and the gradients are summed. So it sums over what it is given and divides by figures of the whole optimizer
step: `trajectories` or `tokens`.

By default a rollout is learned in one optimizer step. Then the policy before the update is the present one, ratios are 1, and
no clip binds; losses differ in how they weigh tokens and trajectories, and in their advantages. With `updates_per_rollout`
above 1, `old_logp` is from before the first of several optimizer steps: from the second one on, clips bind.

Shapes: t trajectories of one call; k learned tokens of all of them, concatenated in order.
"""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, Protocol, get_args

import torch

from gog.errors import UserError
from gog.spec import GRPOConfig
from gog.spec.base import Advantages

Need = Literal["reference"]
"""What a loss may need beyond what every step has. reference: `LossInputs.reference_logp`, which takes klCoef above 0."""


@dataclass(frozen=True)
class LossInputs:
    """What a loss is given of t trajectories of an optimizer step."""

    logp: torch.Tensor
    """[k] log-probabilities in nats by the policy that is trained, with gradients."""
    old_logp: torch.Tensor
    """[k] by the policy before the first optimizer step on this rollout, without gradients."""
    reference_logp: torch.Tensor | None
    """[k] by the reference policy, without gradients; None where kl_coef is 0."""
    advantages: torch.Tensor
    """[t] advantage of each trajectory."""
    lengths: torch.Tensor
    """[t] learned tokens of each trajectory; they sum to k."""
    trajectories: int
    """Of the whole optimizer step, those left out because their advantage is 0 included; at least t. Nothing of these is computed, their
    KL neither."""
    tokens: int
    """Learned tokens of those trajectories; at least k."""
    weights: torch.Tensor | None = None
    """[k] by which each token's policy gradient is multiplied, because the engine that sampled it is not quite the policy
    (gog_recipes.runtime.logprob_gap); None for 1. The KL is not weighted."""


@dataclass(frozen=True)
class LossConfig:
    """Settings of a loss: those of the spec, and the loss's own where the spec leaves them out."""

    clip_low: float = 0.2
    """The probability ratio is clipped below at 1 minus this."""
    clip_high: float = 0.2
    """It is clipped above at 1 plus this."""
    kl_coef: float = 0.0
    """β, weight of the KL to the reference."""
    kl_estimator: Literal["k1", "k2", "k3"] = "k3"
    """Estimator of the KL of a token (`parts.divergence`)."""
    advantages: Advantages = "group"
    """Name of the estimator in gog.rewards."""
    overlong_share: float = 0.0
    """Share of an episode's tokens, at the end, over which a penalty of its reward grows (gog.rewards)."""
    longest: int = 1
    """Learned tokens that a trajectory may have at most."""


@dataclass(frozen=True)
class LossTerms:
    """A loss and what is reported of it."""

    loss: torch.Tensor
    """Scalar to differentiate: this call's part of the step's loss."""
    kl: float
    """Estimated KL to the reference, in nats, mean over tokens; 0 without a reference."""
    clip_frac: float
    """Share of tokens for which the clipped ratio was taken."""


class Terms(Protocol):
    """The function of a loss."""

    def __call__(self, inputs: LossInputs, config: LossConfig) -> LossTerms:
        """The part of the step's loss that these trajectories contribute."""
        ...


@dataclass(frozen=True)
class Loss:
    """A policy-gradient loss."""

    terms: Terms
    """Computes it."""
    preset: LossConfig = LossConfig()
    """Its own settings, for those that the spec leaves out."""
    needs: tuple[Need, ...] = ()
    """What it cannot be computed without."""

    def __call__(self, inputs: LossInputs, config: LossConfig) -> LossTerms:
        return self.terms(inputs, config)

    def config(self, cfg: GRPOConfig) -> LossConfig:
        """Its settings in a stage. Raises UserError where it needs what the stage does not give."""
        if "reference" in self.needs and not cfg.kl_coef:
            raise UserError(
                f"loss {cfg.loss!r} needs the reference policy, which is not computed with klCoef 0",
                where="stages.grpo.klCoef",
                remedy="set it above 0, or choose another loss",
            )
        low, high = self.preset.clip_low, self.preset.clip_high
        if cfg.clip is not None:
            low = high = cfg.clip
        return dataclasses.replace(
            self.preset,
            clip_low=low,
            clip_high=high if cfg.clip_high is None else cfg.clip_high,
            kl_coef=cfg.kl_coef,
            kl_estimator=cfg.kl_estimator or self.preset.kl_estimator,
            advantages=cfg.advantages or self.preset.advantages,
            overlong_share=self.preset.overlong_share if cfg.overlong_share is None else cfg.overlong_share,
            longest=min(cfg.max_tokens, cfg.max_turns * cfg.max_turn_tokens),
        )


def preset(*, needs: tuple[Need, ...] = (), **settings: Any) -> Callable[[Terms], Loss]:
    """Makes a loss of a function.

    Args:
        needs: what the loss cannot be computed without
        settings: fields of `LossConfig` that the loss sets where the spec does not

    Raises:
        ValueError: it needs something that no step has.
    """
    if unknown := set(needs) - set(get_args(Need)):
        raise ValueError(f"a loss may need {', '.join(get_args(Need))}, not {', '.join(sorted(unknown))}")
    return lambda terms: Loss(terms, LossConfig(**settings), needs)


def load(name: str) -> Loss:
    """A loss by its name.

    Args:
        name: a file of this folder, or `module:function`

    Raises:
        UserError: there is no loss of that name, or what it needs is unknown.
    """
    module, _, function = name.partition(":")
    if not function:
        module, function = f"{__name__}.{name}", name
    try:
        found = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError, ValueError) as error:
        raise UserError(f"no loss {name!r}: {error}", where="loss", remedy="use grpo, or module:function") from None
    return found if isinstance(found, Loss) else Loss(found)

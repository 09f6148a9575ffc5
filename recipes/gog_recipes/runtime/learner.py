"""The update of GRPO: forward and backward passes over the trajectories of a step, and one optimizer step.

Gradients add up over passes and ranks, so the passes bound memory and change nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from gog import exclusion, stats
from gog.spec import GRPOConfig
from gog.trajectory import Segment, Trajectory
from gog_recipes import losses
from gog_recipes.models import lora, policy_model
from gog_recipes.models.family import Processor
from gog_recipes.models.vision import Vision
from gog_recipes.runtime import optimizer
from gog_recipes.runtime.ranks import Ranks

ROWS_PER_PASS = 64
"""Trajectories per forward and backward pass; gradients add up over passes, so it bounds memory and nothing else."""


@dataclass(frozen=True)
class UpdateStats:
    """Figures of an optimizer step, over all ranks; None where no group had a signal, so that none was made."""

    kl: float | None = None
    """KL to the reference in nats, mean over tokens."""
    clip_frac: float | None = None
    """Share of tokens for which the clipped ratio was taken."""
    logp_diff_max: float | None = None
    """Largest difference, in nats, between the trainer's and the engine's log-probability of a token."""
    grad_norm: float | None = None
    """Norm of the gradient before clipping."""
    loss: float | None = None
    """Of the whole step."""
    learned: int = 0
    """Trajectories that carried a signal."""
    tokens: int = 0
    """Tokens of those trajectories, prompts and observations included."""


@dataclass(frozen=True)
class StepRollout:
    """The groups of a step, with advantages; alike on all ranks, apart from `own`."""

    groups: list[list[Trajectory]]
    """One group per question that could be played."""
    own: list[list[Trajectory]]
    """The groups that this rank played, from which it learns."""
    exclusions: exclusion.Exclusions
    """What failures cost it."""
    skipped: int
    """Questions that could not be played."""

    @property
    def trajectories(self) -> list[Trajectory]:
        """Those of all groups, in order."""
        return [item for group in self.groups for item in group]


class Learner:
    """Makes the optimizer steps of GRPO.

    Args:
        cfg: coefficients of the loss, temperature of sampling and the limit of gradients
        loss: of each pass
        model: the policy with the adapter that is trained
        processor: of the base model
        vision: features of the images that trajectories show
        optimizer: over the trained parameters of `model`
        ranks: among which the trajectories of a step are divided
    """

    def __init__(
        self,
        cfg: GRPOConfig,
        loss: losses.Loss,
        model: torch.nn.Module,
        processor: Processor,
        vision: Vision,
        optimizer: torch.optim.Optimizer,
        ranks: Ranks,
    ) -> None:
        self.cfg, self.loss, self.model = cfg, loss, model
        self.processor, self.vision = processor, vision
        self.optimizer, self.ranks = optimizer, ranks
        self.device = next(model.parameters()).device

    def update(self, rollout: StepRollout, *, step: int) -> UpdateStats:
        """One optimizer step on the trajectories of all ranks that carry a signal; none without such.

        Args:
            rollout: the step's trajectories, with advantages
            step: the step's number, counted from 1, for messages

        Raises:
            UserError: for a loss, gradient or weight that is not finite.
        """
        counted = sum(1 for item in rollout.trajectories if item.advantage is not None)
        learned = [item for item in rollout.trajectories if item.advantage]
        if not learned:
            return UpdateStats()
        terms = []
        for rows in self._passes([item for group in rollout.own for item in group], idle=_without_images(learned[0])):
            part = self._loss(rows, counted)
            if not rows[0].advantage:
                (part.loss * 0).backward()
                continue
            part.loss.backward()
            terms.append((part.kl, part.clip_frac, part.logp_diff_max, float(part.loss.detach())))
        norm = optimizer.clip_gradients(self.model, self.cfg.clip_grad_norm)
        kl, clip_frac, difference, parts = zip(*(term for own in self.ranks.gather(terms) for term in own), strict=True)
        loss = sum(parts)
        optimizer.apply_step(self.optimizer, self.model, self.ranks, step=step, loss=loss, grad_norm=norm)
        tokens = sum(len(segment.tokens) for item in learned for segment in item.segments)
        return UpdateStats(stats.mean(kl), stats.mean(clip_frac), max(difference), norm, loss, len(learned), tokens)

    def _passes(self, own: Sequence[Trajectory], idle: Trajectory) -> list[list[Trajectory]]:
        """The trajectories of each forward and backward pass of this rank.

        Every rank makes as many passes as every other, because a pass gathers the shards of all ranks. One that has
        nothing left to learn passes `idle` through the model, whose loss is multiplied by 0.

        Args:
            own: this rank's trajectories, of which those with a signal are taken, by length
            idle: any trajectory, which needs no images
        """
        learned = sorted(
            (item for item in own if item.advantage),
            key=lambda item: sum(len(segment.tokens) for segment in item.segments),
        )
        passes = [learned[start : start + ROWS_PER_PASS] for start in range(0, len(learned), ROWS_PER_PASS)]
        return passes + [[idle]] * (max(self.ranks.gather(len(passes))) - len(passes))

    def _loss(self, rows: Sequence[Trajectory], counted: int) -> losses.LossTerms:
        """The loss of one pass; counted: trajectories over which the step's mean is taken."""
        batch = policy_model.collate([item.segments for item in rows], self.processor, self.vision, self.device)
        reference = None
        if self.cfg.kl_coef:
            with lora.reference(self.model):
                logits, tokens = policy_model.forward(self.model, batch, self.processor, self.vision)
                reference = policy_model.logprobs(logits, tokens, self.processor, self.cfg.temperature)
        logits, tokens = policy_model.forward(self.model, batch, self.processor, self.vision)
        sampled = [item.model_logprobs() for item in rows]
        return self.loss(
            policy_model.logprobs(logits, tokens, self.processor, self.cfg.temperature),
            torch.tensor([value for values in sampled for value in values], device=self.device),
            reference,
            torch.tensor([item.advantage for item in rows], device=self.device),
            torch.tensor([len(values) for values in sampled], device=self.device),
            clip=self.cfg.clip,
            kl_coef=self.cfg.kl_coef,
            trajectories=counted,
        )


def _without_images(item: Trajectory) -> Trajectory:
    """The model's first turn behind a single token, with advantage 0."""
    first = next(segment for segment in item.segments if segment.source == "model")
    before = Segment(source="prompt", tokens=(first.tokens[0],))
    return item.model_copy(update={"segments": (before, first), "advantage": 0.0})

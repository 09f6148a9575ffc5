"""What the passes of an update find, and the figures of a step's optimizer steps together. Pure."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

from gog import stats
from gog_recipes import losses
from gog_recipes.runtime import flops, logprob_gap

NOTHING = flops.Work()


@dataclass
class Passed:
    """What passes over trajectories have found, of this rank until it is gathered."""

    terms: list[tuple[losses.LossTerms, int]] = dataclasses.field(default_factory=list)
    """Terms of every pass, with its learned tokens."""
    gaps: list[logprob_gap.TrajectoryGap] = dataclasses.field(default_factory=list)
    """The gap of every trajectory that was compared with the engine."""
    suspects: list[str] = dataclasses.field(default_factory=list)
    """Trajectories at fault where a number is not finite."""

    @property
    def loss(self) -> float:
        """The sum over passes."""
        return sum(float(part.loss) for part, _ in self.terms)

    @classmethod
    def total(cls, several: Sequence[Passed]) -> Passed:
        """All of several, one after the other."""
        return cls(
            [each for part in several for each in part.terms],
            [each for part in several for each in part.gaps],
            [each for part in several for each in part.suspects],
        )


@dataclass(frozen=True)
class UpdateStats:
    """Figures of a step's update, over all ranks; None where no group had a signal, so that no optimizer step was made."""

    kl: float | None = None
    """KL to the reference in nats, mean over the tokens of all optimizer steps."""
    clip_frac: float | None = None
    """Share of these tokens for which the clipped ratio was taken."""
    gap: logprob_gap.GapStats | None = None
    """How far the trainer is from the engine that sampled the step."""
    grad_norm: float | None = None
    """Norm of the gradient before clipping, mean over the optimizer steps."""
    loss: float | None = None
    """Mean over the optimizer steps."""
    learned: int = 0
    """Trajectories that carried a signal."""
    updates: int = 0
    """Optimizer steps."""
    work: flops.Work = NOTHING
    """What its passes with gradients computed."""

    @property
    def tokens(self) -> int:
        """Tokens that were read, observations included; a prompt once for all trajectories of a pass that share it."""
        return self.work.tokens

    @classmethod
    def of(
        cls,
        done: Sequence[tuple[Passed, float]],
        gaps: Sequence[logprob_gap.TrajectoryGap],
        *,
        learned: int,
        work: flops.Work,
    ) -> UpdateStats:
        """The figures of one optimizer step or more.

        Args:
            done: what the passes of each optimizer step found on all ranks, and the norm of its gradient
            gaps: of all trajectories that carry a signal
            learned: how many these are
            work: of the passes with gradients
        """
        terms = [each for passed, _ in done for each in passed.terms]
        weights = [tokens for _, tokens in terms]
        return cls(
            kl=stats.weighted_mean([part.kl for part, _ in terms], weights),
            clip_frac=stats.weighted_mean([part.clip_frac for part, _ in terms], weights),
            gap=logprob_gap.total(gaps),
            grad_norm=stats.mean([norm for _, norm in done]),
            loss=stats.mean([passed.loss for passed, _ in done]),
            learned=learned,
            updates=len(done),
            work=work,
        )

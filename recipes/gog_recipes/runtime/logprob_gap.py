"""The gap between the engine that sampled a step's tokens and the trainer that learns them. Pure.

Both compute the same policy, with other kernels, batches and roundings. The gap is measured over all learned tokens of
every step, corrected by truncated importance sampling where it is small, and stops the stage where it is not: then the
engine samples from another policy than the one that is trained, and no weight repairs that.

With d = log-probability by the trainer before the update - log-probability that the engine recorded, tokens are samples
of the engine, so KL(engine || trainer) is the mean of exp(d) - 1 - d (k3, never negative), or of -d (k1).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from gog import stats
from gog.errors import UserError

BOUNDS = {torch.float32: 1e-3, torch.bfloat16: 0.1}
"""Default of `max_logprob_gap` by type of the base weights. Means over a step of the tiny model in the embedded world, in
nats: 1e-6 in float32 and 0.010 to 0.013 in bfloat16 for the same weights, at most 0.04 over a trajectory; 5 to 13 without
the SFT adapter or the images."""

FEW = 64
"""Tokens of the present weights below which the largest of their differences does not count, in a step that older weights
sampled too. Such a step may have a handful of fresh tokens, and in bfloat16 a single one may differ by more than the bound."""


@dataclass(frozen=True)
class TrajectoryGap:
    """The gap of one trajectory's learned tokens."""

    id: str
    """Of the trajectory."""
    tokens: int
    """Learned tokens that the present weights sampled, over which the gap is taken."""
    total: float
    """Sum of |d|, in nats."""
    largest: float
    """Largest |d|."""
    kl: float
    """Sum of exp(d) - 1 - d."""
    kl_sequence: float
    """Sum of -d: how much more probable the engine found the whole trajectory."""
    learned: int
    """All learned tokens, over which the following are taken."""
    weight: float
    """Sum of the truncated importance weights."""
    truncated: int
    """Tokens whose weight was truncated."""

    @property
    def mean(self) -> float:
        """Mean of |d|."""
        return self.total / max(1, self.tokens)


@dataclass(frozen=True)
class GapStats:
    """The gap of a step, over all ranks; None where the present weights sampled none of its tokens."""

    logp_diff_mean: float | None
    """Mean of |d| over tokens, in nats."""
    logp_diff_max: float | None
    """Largest |d|."""
    engine_kl: float | None
    """KL(engine || trainer), nats per token (k3)."""
    engine_kl_sequence: float | None
    """KL(engine || trainer), nats per trajectory (k1; an estimate may be negative)."""
    tis_weight_mean: float
    """Mean of the truncated importance weights; about 1."""
    tis_truncated_frac: float
    """Share of tokens whose weight was truncated."""


def importance_weights(old_logp: torch.Tensor, rollout_logp: torch.Tensor, cap: float) -> torch.Tensor:
    """Truncated importance weights min(exp(old_logp - rollout_logp), cap).

    Args:
        old_logp: [k] by the trainer before the update
        rollout_logp: [k] as the engine recorded them
        cap: largest weight

    Returns:
        [k], without gradients; exactly 1 where the two are equal.

    Source:
        Ionides (2008), Truncated Importance Sampling; as the correction of the engine's log-probabilities: Yao et al.
        (2025), "Your Efficient RL Framework Secretly Brings You Off-Policy RL Training".
    """
    return (old_logp.detach() - rollout_logp).exp().clamp(max=cap)


def measure(
    old_logp: torch.Tensor,
    rollout_logp: torch.Tensor,
    lengths: Sequence[int],
    ids: Sequence[str],
    cap: float,
    *,
    fresh: Sequence[Sequence[bool]] | None = None,
) -> list[TrajectoryGap]:
    """The gap of each of t trajectories.

    Args:
        old_logp: [k] by the trainer before the update
        rollout_logp: [k] as the engine recorded them
        lengths: learned tokens of each trajectory; they sum to k
        ids: of the trajectories
        cap: of the importance weights
        fresh: of each trajectory, whether the present weights sampled each learned token; None: all of them. The others
            differ because the weights do.
    """
    d = (old_logp.detach() - rollout_logp).double().cpu()
    found = []
    for number, (name, every) in enumerate(zip(ids, d.split(list(lengths)), strict=True)):
        own = every if fresh is None else every[torch.tensor(fresh[number], dtype=torch.bool)]
        ratio, weights = own.exp(), every.exp()
        found.append(
            TrajectoryGap(
                id=name,
                tokens=len(own),
                total=float(own.abs().sum()),
                largest=float(own.abs().max()) if len(own) else 0.0,
                kl=float((ratio - 1 - own).sum()),
                kl_sequence=float(-own.sum()),
                learned=len(every),
                weight=float(weights.clamp(max=cap).sum()),
                truncated=int((weights > cap).sum()),
            )
        )
    return found


def total(gaps: Sequence[TrajectoryGap]) -> GapStats:
    """The figures of a step with at least one learned token."""
    tokens, learned = sum(gap.tokens for gap in gaps), sum(gap.learned for gap in gaps)
    return GapStats(
        logp_diff_mean=sum(gap.total for gap in gaps) / tokens if tokens else None,
        logp_diff_max=max(gap.largest for gap in gaps) if tokens else None,
        engine_kl=sum(gap.kl for gap in gaps) / tokens if tokens else None,
        engine_kl_sequence=stats.mean([gap.kl_sequence for gap in gaps if gap.tokens]) if tokens else None,
        tis_weight_mean=sum(gap.weight for gap in gaps) / learned,
        tis_truncated_frac=sum(gap.truncated for gap in gaps) / learned,
    )


def check(gaps: Sequence[TrajectoryGap], bound: float, *, step: int) -> None:
    """Stops the stage where engine and trainer disagree about the step's tokens.

    Args:
        gaps: of every learned trajectory of the step, over all ranks
        bound: of the mean |d| over the step's tokens, in nats
        step: the step's number, counted from 1

    Raises:
        UserError: naming the trajectory with the largest gap and the likely causes.
    """
    found = total(gaps)
    if found.logp_diff_mean is None or not found.logp_diff_mean > bound:
        return
    tokens, learned = sum(gap.tokens for gap in gaps), sum(gap.learned for gap in gaps)
    if tokens < min(FEW, learned) and found.logp_diff_mean - max(gap.largest for gap in gaps) / tokens <= bound:
        return
    worst = max(gaps, key=lambda gap: gap.mean)
    raise UserError(
        f"step {step}: engine and trainer differ by {found.logp_diff_mean:.3g} nats per token, the bound is {bound:g} "
        f"(max_logprob_gap); trajectory {worst.id} differs most, by {worst.mean:.3g}; nothing of the step was saved",
        where="engine",
        remedy="check that the engine applies the adapter of this version, sees the images, and serves the same base "
        "model in the same dtype; raise max_logprob_gap only for a difference that is known",
    )

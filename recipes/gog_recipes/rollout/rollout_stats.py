"""Figures of a set of trajectories. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from gog import behaviour, stats
from gog.trajectory import Trajectory


@dataclass(frozen=True)
class RolloutStats:
    """Means and shares over the counted trajectories, where nothing else is given."""

    n: int
    """Trajectories."""
    accuracy: float | None
    """Mean accuracy, 0 to 1; like the other rewards None where no trajectory counts, because that is not 0."""
    format: float | None
    """Mean format reward, 0 to 1."""
    reward: float | None
    """Mean reward."""
    reward_std: float | None
    """Standard deviation of the reward."""
    tool_calls: float
    """Mean tool calls, of all trajectories."""
    tool_failure_ratio: float
    """Failed tool calls, divided by all of them, of all trajectories."""
    excluded: int
    """Trajectories that do not count."""
    choice_accuracy: float | None
    """Share of choices among candidates that took the right one, of all trajectories; None without such choices."""
    behaviour: dict[str, float]
    """Share of each class of search behaviour (gog.behaviour), of all trajectories."""


def measure(trajectories: Sequence[Trajectory]) -> RolloutStats:
    """Accuracy, format and reward over the counted trajectories; calls, failures and behaviour over all."""
    counted = [item.reward for item in trajectories if not item.excluded and item.reward is not None]
    totals = [reward.total for reward in counted if reward.total is not None]
    calls = sum(item.tool_calls for item in trajectories)
    failed = sum(len(item.failures) for item in trajectories)
    choices = [right for item in trajectories if (right := behaviour.chose_right(item)) is not None]
    mean_reward = stats.mean(totals)
    return RolloutStats(
        n=len(trajectories),
        accuracy=stats.mean([reward.accuracy or 0.0 for reward in counted]) if counted else None,
        format=stats.mean([reward.format for reward in counted]) if counted else None,
        reward=mean_reward if totals else None,
        reward_std=stats.mean([(total - mean_reward) ** 2 for total in totals]) ** 0.5 if totals else None,
        tool_calls=calls / max(1, len(trajectories)),
        tool_failure_ratio=failed / max(1, calls),
        excluded=len(trajectories) - len(counted),
        choice_accuracy=stats.mean([float(right) for right in choices]) if choices else None,
        behaviour={name: round(share, 4) for name, share in behaviour.shares(trajectories).items()},
    )


def figures(trajectories: Sequence[Trajectory]) -> dict[str, Any]:
    """Step metrics of the trajectories of a step, of all ranks."""
    measures = measure(trajectories)
    return {
        "reward_mean": measures.reward,
        "reward_std": measures.reward_std,
        "accuracy_mean": measures.accuracy,
        "format_mean": measures.format,
        "tool_failure_ratio": measures.tool_failure_ratio,
        "trajectories": measures.n,
        "behaviour": measures.behaviour,
        "choice_accuracy": measures.choice_accuracy,
        "tool_calls_mean": measures.tool_calls,
    }


SampledTokens = tuple[float, int, int | None, int]
"""Of a trajectory: sum of the log-probs of the tokens that the model sampled, their number, the oldest version of the weights
that sampled them, None without such tokens, and the sum of their versions."""


def sampled_tokens(item: Trajectory) -> SampledTokens:
    """The sampled tokens of a trajectory in three numbers."""
    values = item.model_logprobs()
    written = [segment for segment in item.segments if segment.source == "model"]
    versions = sum(segment.version * sum(segment.loss_mask()) for segment in written)
    return sum(values), len(values), min((segment.version for segment in written), default=None), versions


def sampled(trajectories: Sequence[SampledTokens], step: int) -> dict[str, float]:
    """Figures of the sampled tokens.

    Returns:
        entropy: mean negative log-probability in nats, an estimate of the policy's entropy
        staleness: optimizer steps between the oldest weights that sampled them and those of `step`
        staleness_mean: the same, mean over tokens
    """
    count = sum(tokens for _, tokens, _, _ in trajectories)
    return {
        "entropy": -sum(logprobs for logprobs, _, _, _ in trajectories) / max(1, count),
        "staleness": max((step - oldest for _, _, oldest, _ in trajectories if oldest is not None), default=0),
        "staleness_mean": (step * count - sum(versions for *_, versions in trajectories)) / max(1, count),
    }

"""How a stage rewards its trajectories."""

from __future__ import annotations

from dataclasses import dataclass

from gog import behaviour, rewards
from gog.spec import GRPOSettings
from gog.spec.base import ToolFailures
from gog.trajectory import Reward, Trajectory


@dataclass(frozen=True)
class RewardConfig:
    """How a trajectory is rewarded; see gog.rewards."""

    format_weight: float = 0.1
    """λ in r = (1 - λ) · accuracy + λ · format."""
    search_penalty: float = 0.0
    """Accuracy is multiplied by 1 minus this when a search was made."""
    tool_failures: ToolFailures = "exclude"
    """Rule for trajectories with a tool failure (gog.failure_rules)."""
    call_penalty: float = 0.0
    """Share of the accuracy that each tool call costs."""
    token_penalty: float = 0.0
    """Share of the accuracy that 1,000 generated tokens cost."""
    overlong_share: float = 0.0
    """Share of an episode's `max_tokens`, at the end, over which the penalty of its length grows; 0 for none."""
    overlong_penalty: float = 1.0
    """What an episode of `max_tokens` tokens loses."""

    @classmethod
    def of(cls, cfg: GRPOSettings, overlong_share: float) -> RewardConfig:
        """That of a GRPO stage, with the share that its loss or its spec chose."""
        return cls(
            cfg.format_weight, cfg.search_penalty, cfg.tool_failures, cfg.call_penalty, cfg.token_penalty, overlong_share,
            cfg.overlong_penalty,
        )  # fmt: skip

    def reward(self, trajectory: Trajectory, accuracy: float | None, *, max_tokens: int) -> Reward:
        """The reward of a trajectory with its parts.

        Args:
            trajectory: with its tokens
            accuracy: the judge's verdict, 0 or 1; None without one
            max_tokens: tokens of an episode at most
        """
        return rewards.reward(
            accuracy,
            trajectory.well_formed,
            format_weight=self.format_weight,
            searched=behaviour.classify(trajectory) != "none",
            search_penalty=self.search_penalty,
            cost=rewards.cost_of(trajectory, call_penalty=self.call_penalty, token_penalty=self.token_penalty),
            overlong=rewards.overlong_penalty(
                trajectory, max_tokens=max_tokens, share=self.overlong_share, penalty=self.overlong_penalty
            ),
        )

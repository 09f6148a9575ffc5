"""What became of a list of questions that several ranks played."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gog.trajectory import Trajectory
from gog_recipes.runtime.ranks import Ranks


@dataclass(frozen=True)
class Skipped:
    """A question that could not be played."""

    question_id: str
    """The question."""
    reason: str
    """Why."""


@dataclass(frozen=True)
class Played:
    """What became of a list of questions; alike on all ranks, apart from `own`."""

    groups: list[list[Trajectory]]
    """One group per question that could be played, in the order of the questions."""
    own: list[int]
    """Which of the groups this rank played, by index."""
    skipped: list[Skipped]
    """The questions that could not be played, in their order."""

    @property
    def trajectories(self) -> list[Trajectory]:
        """Those of all groups, in order."""
        return [trajectory for group in self.groups for trajectory in group]


def collect(ranks: Ranks, own: Sequence[list[Trajectory] | Skipped]) -> Played:
    """What all ranks played. All ranks at once.

    Args:
        ranks: the processes that share the questions.
        own: what became of each question of this rank, in their order.
    """
    groups: list[list[Trajectory]] = []
    mine, skipped = [], []
    for number, played in enumerate(ranks.unshard(own)):
        if isinstance(played, Skipped):
            skipped.append(played)
            continue
        if number % ranks.size == ranks.rank:
            mine.append(len(groups))
        groups.append(played)
    return Played(groups, mine, skipped)

"""What became of a list of questions that several ranks played.

A trajectory of real size is megabytes of tokens and texts. Each rank keeps those that it played; of the others' it gets
outlines, which suffice for every figure.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from gog.trajectory import Trajectory, outline
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
    """What became of a list of questions; alike on all ranks, apart from which trajectories are whole and from `own`."""

    groups: list[list[Trajectory]]
    """One group per question that could be played, in the order of the questions. Those of other ranks are outlines
    (`gog.trajectory.outline`)."""
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
    outlines = [each if isinstance(each, Skipped) else [outline(item) for item in each] for each in own]
    groups: list[list[Trajectory]] = []
    mine, skipped = [], []
    for number, played in enumerate(own if ranks.size == 1 else ranks.unshard(outlines)):
        if isinstance(played, Skipped):
            skipped.append(played)
            continue
        if number % ranks.size == ranks.rank:
            mine.append(len(groups))
            played = own[number // ranks.size]
            assert not isinstance(played, Skipped)
        groups.append(played)
    return Played(groups, mine, skipped)


def gather_whole(ranks: Ranks, wanted: Sequence[Trajectory], own: Iterable[Sequence[Trajectory]]) -> list[Trajectory]:
    """These trajectories with tokens and texts, which the ranks that played them send. All ranks at once.

    Args:
        ranks: the processes that share the questions.
        wanted: few of them; alike on all ranks.
        own: the groups that this rank played.
    """
    names = {item.id for item in wanted}
    mine = {item.id: item for group in own for item in group if item.id in names}
    everything = {name: item for part in ranks.gather(mine) for name, item in part.items()}
    return [everything[item.id] for item in wanted]


def spread(trajectories: Sequence[Trajectory], count: int, group: int) -> list[Trajectory]:
    """At most `count` in whole groups, evenly spread over the step."""
    groups = [trajectories[start : start + group] for start in range(0, len(trajectories), group)]
    wanted = min(len(groups), count // group)
    chosen = [groups[place * len(groups) // wanted] for place in range(wanted)]
    return [trajectory for members in chosen for trajectory in members]

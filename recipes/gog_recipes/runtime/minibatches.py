"""Divides the groups of a step among the optimizer steps of its update (`updatesPerRollout`). Pure.

Groups with a signal are divided as evenly as possible, so that every optimizer step has something to learn from. Those
without count in the means of a loss, so they are divided, too, and each mini-batch has about as many groups of both kinds.
Neighbours in the order of the step's questions stay together: ranks play the questions in turn, so a run of neighbours is
spread over all of them. The division does not depend on the number of ranks.

Not here: advantages, which compare the trajectories of the whole step, and the passes of each mini-batch (the learner).
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from gog import wording
from gog.trajectory import Trajectory


@dataclass(frozen=True)
class Counted:
    """What the means of an optimizer step are taken over, on all ranks: trajectories without a signal included, excluded
    ones not."""

    trajectories: int
    """Trajectories."""
    tokens: int
    """Their learned tokens."""


@dataclass(frozen=True)
class MiniBatch:
    """What an optimizer step learns from."""

    passes: list[list[Trajectory]]
    """This rank's trajectories that carry a signal, by pass; an empty one takes part in that of other ranks."""
    counted: Counted
    """What its means are taken over."""


def divide(groups: Sequence[Sequence[Trajectory]], count: int) -> list[list[int]]:
    """The groups of each mini-batch.

    Args:
        groups: of a step, with advantages, in the order of their questions
        count: mini-batches that are wanted, at least 1

    Returns:
        Indices of the groups of each mini-batch, ascending. Fewer mini-batches where fewer groups have a signal, none
        without a signal. Groups of which nothing counts are in none.
    """
    counts = [index for index, group in enumerate(groups) if any(item.advantage is not None for item in group)]
    signal = [index for index in counts if any(item.advantage for item in groups[index])]
    silent = [index for index in counts if index not in signal]
    found = min(count, len(signal))
    first = _runs(signal, [-((place - len(signal)) // found) for place in range(found)])
    # What does not divide is in the first runs of one kind and in the last ones of the other.
    second = _runs(silent, [(place + len(silent)) // found for place in range(found)])
    return [sorted([*one, *other]) for one, other in zip(first, second, strict=True)]


def line(step: int, made: int, wanted: int) -> str:
    """What to log where a step made fewer optimizer steps than it was to."""
    return (
        f"step {step}: {wording.plural(made, 'optimizer step')} and not stages.grpo.updatesPerRollout {wanted}, because no "
        "more groups carry a signal"
    )


def _runs(items: Sequence[int], sizes: Sequence[int]) -> list[list[int]]:
    """Neighbours, so many in each run."""
    left = iter(items)
    return [list(itertools.islice(left, size)) for size in sizes]

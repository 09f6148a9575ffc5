"""Which conversations share a forward and backward pass, and which of them share their prompt in it. Pure.

Memory of a pass grows with its tokens, so a pass is bounded by tokens, not by conversations. Conversations are packed
one after the other (`attention`), so none is padded. Those that begin with the same prompt form a tree: its prompt is
computed once, and each of them continues it. In training by groups that is half of all tokens or more.

Only whole leading segments that the model did not write are shared, because a learned token belongs to one trajectory.
"""

from __future__ import annotations

import itertools
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

from gog.trajectory import Segment


@dataclass(frozen=True)
class Tree:
    """Neighbours in a packed row: a prefix, and after it conversations that continue it, each without the others."""

    prefix: int
    """Tokens that all of them begin with; 0 for a conversation by itself."""
    suffixes: tuple[int, ...]
    """Further tokens of each, at least 1; a single one where the prefix is 0."""

    @property
    def pieces(self) -> tuple[int, ...]:
        """Tokens of its causal parts, in the order of the row."""
        return (self.prefix, *self.suffixes) if self.prefix else self.suffixes

    @property
    def tokens(self) -> int:
        """All of its tokens, those of the prefix once."""
        return self.prefix + sum(self.suffixes)


def apart(lengths: Sequence[int]) -> tuple[Tree, ...]:
    """The layout of conversations of these lengths that share nothing."""
    return tuple(Tree(0, (length,)) for length in lengths)


def opening(row: Sequence[Segment]) -> Sequence[Segment]:
    """The leading segments of a conversation that others may share: those before the model's first one."""
    return row[: sum(1 for _ in itertools.takewhile(lambda segment: segment.source != "model", row))]


def groups(rows: Sequence[Sequence[Segment]]) -> list[list[int]]:
    """Indices of the conversations that begin alike, in tokens and images, in order of their first one."""
    found: dict[Hashable, list[int]] = {}
    for index, row in enumerate(rows):
        begin = opening(row)
        continues = 0 < length(begin) < length(row)
        key: Hashable = tuple((segment.tokens, segment.images) for segment in begin) if continues else index
        found.setdefault(key, []).append(index)
    return list(found.values())


def passes(rows: Sequence[Sequence[Segment]], budget: int, together: int | None = None) -> list[list[int]]:
    """Divides conversations among passes of at most `budget` tokens, of which a shared prompt counts once.

    Args:
        rows: conversations as segments
        budget: tokens of a pass; a longer conversation forms a pass of its own. A group that exceeds it is divided, and
            each part of it has the prompt again
        together: tokens up to which a pass holds several groups; `budget` by default and at most

    Returns:
        Indices of the conversations of each pass, ascending; every conversation is in exactly one.
    """
    parts = [part for members in groups(rows) for part in _parts(rows, members, budget)]
    sizes = [_size(rows, part) for part in parts]
    limit = budget if together is None else min(budget, together)
    return [sorted(index for place in chosen for index in parts[place]) for chosen in plan(sizes, limit)]


def _parts(rows: Sequence[Sequence[Segment]], members: Sequence[int], budget: int) -> list[list[int]]:
    """A group, divided into parts that fit."""
    if _size(rows, members) <= budget:
        return [list(members)]
    prefix = length(opening(rows[members[0]]))
    rests = [length(rows[index]) - prefix for index in members]
    return [[members[place] for place in part] for part in plan(rests, budget - prefix)]


def _size(rows: Sequence[Sequence[Segment]], members: Sequence[int]) -> int:
    """Tokens of some conversations of a group, whose prompt counts once."""
    again = (len(members) - 1) * length(opening(rows[members[0]]))
    return sum(length(rows[index]) for index in members) - again


def tokens(rows: Sequence[Sequence[Segment]]) -> int:
    """Tokens of a pass over some conversations, in which shared prompts count once."""
    return sum(_size(rows, members) for members in groups(rows))


def plan(lengths: Sequence[int], budget: int) -> list[list[int]]:
    """Divides items among passes of at most `budget` tokens, by first fit from the longest on.

    Args:
        lengths: tokens of each item
        budget: tokens of a pass; a longer item forms a pass of its own

    Returns:
        Indices of the items of each pass, ascending; every item is in exactly one.
    """
    passes: list[list[int]] = []
    room: list[int] = []
    for index in sorted(range(len(lengths)), key=lambda each: (-lengths[each], each)):
        place = next((place for place, left in enumerate(room) if lengths[index] <= left), None)
        if place is None:
            place = len(passes)
            passes.append([])
            room.append(budget)
        passes[place].append(index)
        room[place] -= lengths[index]
    return [sorted(members) for members in passes]


def length(row: Sequence[Segment]) -> int:
    """Tokens of a conversation."""
    return sum(len(segment.tokens) for segment in row)


def learned(row: Sequence[Segment]) -> int:
    """Tokens of a conversation that are learned; its first token, which nothing predicts, never is."""
    mask = [each for segment in row for each in segment.loss_mask()]
    return sum(mask[1:])


def idle(token: int) -> tuple[Segment, Segment]:
    """The shortest conversation with a learned token, for a rank that takes part in a pass without one of its own."""
    return Segment(source="prompt", tokens=(token,)), Segment(source="model", tokens=(token,))

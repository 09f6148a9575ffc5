"""Which conversations share a forward and backward pass. Pure.

Memory of a pass grows with its tokens, so a pass is bounded by tokens, not by conversations. Conversations are packed
one after the other (`attention`), so none is padded.
"""

from __future__ import annotations

from collections.abc import Sequence

from gog.trajectory import Segment


def plan(lengths: Sequence[int], budget: int) -> list[list[int]]:
    """Divides conversations among passes of at most `budget` tokens, by first fit from the longest on.

    Args:
        lengths: tokens of each conversation
        budget: tokens of a pass; a longer conversation forms a pass of its own

    Returns:
        Indices of the conversations of each pass, ascending; every conversation is in exactly one.
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

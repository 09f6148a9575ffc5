"""How a trajectory searched: not at all, in a single way, or in mixed ways. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Literal

from gog import catalog, regions
from gog.trajectory import Candidate, Trajectory, Turn

Behaviour = Literal["none", "single", "mixed"]
_SEARCHES = catalog.SEARCH_TOOLS - {"grounding"}
CLASSES: tuple[Behaviour, ...] = ("none", "single", "mixed")


def classify(trajectory: Trajectory) -> Behaviour:
    """The number of ways in which a trajectory searched: `none`, `single` for one, `mixed` for more.

    The ways are a glance (search of the whole image), a gaze (search of a candidate) and a text search. Grounding alone
    searches nothing, and neither does a turn that a cap or a wrong number stopped.
    """
    ways = {way for turn in trajectory.turns if (way := _way(turn))}
    return "mixed" if len(ways) > 1 else "single" if ways else "none"


def _way(turn: Turn) -> str:
    """How a turn searched; empty if it did not."""
    tool = turn.observation.tool if turn.observation else ""
    if tool == "imageSearch":
        return "gaze" if turn.action == "gaze" or turn.selected else "glance"
    return tool if tool in _SEARCHES else ""


def shares(trajectories: Iterable[Trajectory]) -> dict[Behaviour, float]:
    """The share of each class; shares sum to 1, or are all 0 without trajectories."""
    counts = Counter(classify(trajectory) for trajectory in trajectories)
    total = sum(counts.values())
    return {name: counts[name] / total if total else 0.0 for name in CLASSES}


def chose_right(trajectory: Trajectory) -> bool | None:
    """Whether the first candidate selected among two or more is what the question is about.

    It is if its box overlaps the region that the dataset marks by at least one half (intersection over union).

    Returns:
        None if there was no choice, or no mark in the dataset.
    """
    if trajectory.region is None:
        return None
    for _, choices in _choices(trajectory):
        offer, chosen = choices[0]
        if len(offer) > 1:
            return chosen is not None and not chosen.image and regions.overlap(chosen.box, trajectory.region) >= 0.5
    return None


Choice = tuple[tuple[Candidate, ...], Candidate | None]
"""Candidates that were offered together, and the chosen one of them; None if the number is none of theirs."""


def _choices(trajectory: Trajectory) -> Iterator[tuple[int, list[Choice]]]:
    """Place of each gaze after an offer among the turns, and what each of its numbers chose."""
    offered: list[tuple[Candidate, ...]] = []
    for at, turn in enumerate(trajectory.turns):
        if turn.action == "gaze" and turn.selected and offered:
            yield at, [_choice(offered, number) for number in turn.selected]
        if turn.action == "ground" and turn.observation is not None:
            offered.insert(0, turn.observation.candidates)


def _choice(offered: Sequence[tuple[Candidate, ...]], number: int) -> Choice:
    """The candidate of a number and those beside which it was offered; the newest offer if no candidate has it.

    Args:
        offered: candidates of each grounding, the newest first
        number: that was selected
    """
    for candidates in offered:
        for candidate in candidates:
            if candidate.number == number:
                return candidates, candidate
    return offered[0], None


def gazes(trajectory: Trajectory) -> list[bool]:
    """Of each gaze at candidates of the question's image, in order: whether one of them is what the question is about.

    Returns:
        Nothing without a mark in the dataset.
    """
    return [right for _, right in _gaze_turns(trajectory)]


def reflections(trajectory: Trajectory) -> list[bool]:
    """Of each wrong gaze, in order: whether the model looked elsewhere afterwards, before it answered.

    Looking elsewhere is another gaze at other candidates, a new grounding, or a glance.
    """
    turns = trajectory.turns
    return [
        any(_looks(turn) and turn.selected != turns[at].selected for turn in turns[at + 1 :])
        for at, right in _gaze_turns(trajectory)
        if not right
    ]


def _looks(turn: Turn) -> bool:
    return turn.action in ("gaze", "ground", "glance")


def _gaze_turns(trajectory: Trajectory) -> list[tuple[int, bool]]:
    """Places of gazes among the turns, and whether each was right."""
    if trajectory.region is None:
        return []
    found = []
    for at, choices in _choices(trajectory):
        own = [chosen for _, chosen in choices if chosen is not None and not chosen.image]
        if own:
            found.append((at, any(regions.overlap(each.box, trajectory.region) >= 0.5 for each in own)))
    return found

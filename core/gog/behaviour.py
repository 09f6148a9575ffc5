"""How a trajectory searched: none, single (only images or only text), mixed (both). Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Literal

from gog import regions
from gog.trajectory import Trajectory

Behaviour = Literal["none", "single", "mixed"]
CLASSES: tuple[Behaviour, ...] = ("none", "single", "mixed")


def classify(trajectory: Trajectory) -> Behaviour:
    """By the searches really made; grounding alone is none, nor is a turn that a cap or a wrong number kept from one."""
    tools = {turn.observation.tool for turn in trajectory.turns if turn.observation is not None}
    searched_image, searched_text = "imageSearch" in tools, "textSearch" in tools
    if searched_image and searched_text:
        return "mixed"
    return "single" if searched_image or searched_text else "none"


def shares(trajectories: Iterable[Trajectory]) -> dict[Behaviour, float]:
    """Share of each class; they sum to 1 (all 0 for nothing)."""
    counts = Counter(classify(trajectory) for trajectory in trajectories)
    total = sum(counts.values())
    return {name: counts[name] / total if total else 0.0 for name in CLASSES}


def chose_right(trajectory: Trajectory) -> bool | None:
    """Whether the first candidate selected, among two or more, is the thing asked about; None if there was no choice.

    Needs the dataset's region mark; half an overlap counts as right.
    """
    if trajectory.region is None:
        return None
    offered: tuple = ()
    for turn in trajectory.turns:
        if turn.action == "gaze" and len(offered) > 1:
            chosen = [candidate for candidate in offered if candidate.number == turn.selected[0]]
            return bool(chosen) and regions.overlap(chosen[0].box, trajectory.region) >= 0.5
        if turn.action == "ground" and turn.observation is not None:
            offered = turn.observation.candidates
    return None

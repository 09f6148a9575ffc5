"""How hard a world is: what its scenes, questions and pages hold, level by level. The one list of the levels.

    standard   the world of the example: 1 to 4 things, all of one size and fully visible; English questions
    hard       1 to 6 things, all of them look-alikes, down to two thirds of the size; every third is partly hidden. Two-step
               questions ("the height of the maker of the red ring"), two questions in five in Chinese, and pages with facts
               that look like the right one

The accuracy of a trained policy is near its ceiling in the standard world, so differences between trainings are hard to
see there. A level changes nothing but what this table says; entities and their facts are those of the seed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Difficulty:
    """One level."""

    kinds: Mapping[str, float]
    """Share of each kind of question (gog_recipes.world.scenes)."""
    max_things: int
    """Things in an image at most."""
    several: int
    """Fewest things in an image of which one has to be selected."""
    radii: tuple[int, ...]
    """Radii of things, in pixels."""
    alike: float
    """Share of other things that have the target's colour (at most one half) or its form."""
    hidden: float
    """Share of things of which a side is hidden."""
    languages: Mapping[str, float]
    """Share of questions in each language, by its code (gog.languages)."""
    distractors: bool
    """Whether pages have a maker and an outdated fact, and pages about two names exist."""


LEVELS: Mapping[str, Difficulty] = {
    "standard": Difficulty(
        kinds={"look": 0.15, "text": 0.10, "name": 0.15, "fact1": 0.15, "fact": 0.45},
        max_things=4,
        several=2,
        radii=(8, 9, 10),
        alike=0.9,
        hidden=0.0,
        languages={"en": 1.0},
        distractors=False,
    ),
    "hard": Difficulty(
        kinds={"look": 0.10, "text": 0.10, "name": 0.15, "fact1": 0.10, "fact": 0.30, "chain": 0.25},
        max_things=6,
        several=3,
        radii=(7, 8, 9, 10),
        alike=1.0,
        hidden=0.33,
        languages={"en": 0.6, "zh": 0.4},
        distractors=True,
    ),
}
"""By the name that `data.world.difficulty` has."""

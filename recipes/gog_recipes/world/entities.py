"""What exists in the embedded world: 216 entities, their names and facts, and which of them are kept for test.

A question names colour and form only; the dot, which no question names, decides which of six entities it is about.
So the answer cannot be guessed from words, and whoever wants to know it must search the thing's pixels. Two of the
six dots of every colour and form (72 entities) are never shown in training images.

Vocabulary is fixed (the tiny model's tokenizer knows exactly these words); who is called what follows from the seed.
"""

from __future__ import annotations

import functools
import random
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

Split = Literal["train", "test"]
Colour = tuple[int, int, int]

COLOURS: dict[str, Colour] = {
    "red": (220, 40, 40),
    "green": (40, 180, 60),
    "blue": (50, 80, 230),
    "yellow": (230, 210, 40),
    "purple": (150, 50, 190),
    "white": (245, 245, 245),
}
FORMS = ("circle", "square", "triangle", "cross", "ring", "bar")
DOTS: dict[str, Colour] = {**COLOURS, "black": (0, 0, 0)}
ATTRIBUTES = ("founded", "height", "price")
FACTS = tuple(f"n{number:02d}" for number in range(100))
NAMES = tuple(f"t{number:03d}" for number in range(216))
TEST_DOTS = 2
"""Dots of every colour and form that only test images show."""


@dataclass(frozen=True)
class Entity:
    """A kind of thing. dot: the colour of the small mark on it, never its own colour."""

    colour: str
    form: str
    dot: str

    @property
    def expression(self) -> str:
        return f"{self.colour} {self.form}"


@dataclass(frozen=True)
class Catalogue:
    """names by entity; facts by name, then attribute; the entities that only test images show."""

    names: dict[Entity, str]
    facts: dict[str, dict[str, str]]
    test: frozenset[Entity]

    def entities(self, split: Split) -> list[Entity]:
        return [entity for entity in self.names if (entity in self.test) == (split == "test")]

    def look_alikes(self, colour: str, form: str, split: Split) -> list[Entity]:
        """The split's entities of this colour and form: they differ in their dot."""
        return [e for e in self._kin[colour, form] if (e in self.test) == (split == "test")]

    @functools.cached_property
    def _kin(self) -> dict[tuple[str, str], list[Entity]]:
        return _by_colour_and_form(self.names)


@functools.cache
def build(seed: int) -> Catalogue:
    """The catalogue of a seed."""
    rng = random.Random(f"{seed}/catalogue")
    entities = _all_entities()
    names = dict(zip(entities, rng.sample(NAMES, len(NAMES)), strict=True))
    facts = {name: dict(zip(ATTRIBUTES, rng.sample(FACTS, len(ATTRIBUTES)), strict=True)) for name in NAMES}
    kin = _by_colour_and_form(entities).values()
    return Catalogue(names, facts, frozenset(entity for group in kin for entity in rng.sample(group, TEST_DOTS)))


def page(catalogue: Catalogue, name: str) -> str:
    """What the corpus says of an entity: its facts, in an order that varies by name.

    >>> page(build(7), "t000").count(",")
    2
    """
    order = random.Random(f"page of {name}").sample(ATTRIBUTES, len(ATTRIBUTES))
    return " , ".join(f"{attribute} {catalogue.facts[name][attribute]}" for attribute in order)


def _all_entities() -> list[Entity]:
    return [Entity(colour, form, dot) for colour in COLOURS for form in FORMS for dot in DOTS if dot != colour]


def _by_colour_and_form(entities: Iterable[Entity]) -> dict[tuple[str, str], list[Entity]]:
    groups: dict[tuple[str, str], list[Entity]] = {}
    for entity in entities:
        groups.setdefault((entity.colour, entity.form), []).append(entity)
    return groups

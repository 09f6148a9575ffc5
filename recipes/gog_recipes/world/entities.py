"""The 216 entities of the embedded world, their names and facts, and which of them are kept for test.

A question names colour and form only. The dot, which no question names, decides which of six entities it is about. So
the answer cannot be guessed from words: finding it takes an image search of the entity's pixels. Two of the six dots of
every colour and form (72 entities) never occur in training images.

The vocabulary is fixed, because the tiny model's tokenizer knows exactly these words. Names and facts are drawn from the
seed.
"""

from __future__ import annotations

import functools
import random
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

Split = Literal["train", "test"]
Colour = tuple[int, int, int]
"""RGB, 0 to 255."""

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
MAKER = "maker"
"""Relation between entities: who made a thing, itself an entity with a page."""
OUTDATED = "former"
"""Word before a fact that no longer holds."""
ATTRIBUTES = ("founded", "height", "price")
FACTS = tuple(f"n{number:02d}" for number in range(100))
"""Values of attributes."""
NAMES = tuple(f"t{number:03d}" for number in range(216))
TEST_DOTS = 2
"""Dots of every colour and form that only test images show."""


@dataclass(frozen=True)
class Entity:
    """What a drawn thing is."""

    colour: str
    """Key of COLOURS."""
    form: str
    """One of FORMS."""
    dot: str
    """Colour of the small mark on it, a key of DOTS; never the entity's own colour."""

    @property
    def expression(self) -> str:
        """Words that refer to it in questions; five other entities share them."""
        return f"{self.colour} {self.form}"


@dataclass(frozen=True)
class Entities:
    """All entities of one world."""

    names: dict[Entity, str]
    """One of NAMES for each entity."""
    facts: dict[str, dict[str, str]]
    """By name, then by attribute: one of FACTS."""
    test: frozenset[Entity]
    """Entities that only test images show."""
    makers: dict[str, str]
    """By name: the name of the maker, of the same split, never itself."""
    former: dict[str, tuple[str, str]]
    """By name: an attribute, and a value that is outdated."""

    def of(self, split: Split) -> list[Entity]:
        """The entities of a split, in a fixed order."""
        return [entity for entity in self.names if (entity in self.test) == (split == "test")]

    def look_alikes(self, colour: str, form: str, split: Split) -> list[Entity]:
        """The entities of a split with this colour and form; they differ in their dots."""
        return [e for e in self._by_colour_and_form[colour, form] if (e in self.test) == (split == "test")]

    @functools.cached_property
    def _by_colour_and_form(self) -> dict[tuple[str, str], list[Entity]]:
        return _grouped(self.names)


@functools.cache
def build(seed: int) -> Entities:
    """The entities of the world with this seed."""
    rng = random.Random(f"{seed}/catalogue")  # changing this text would change every world and spoil the shipped model
    entities = _all_entities()
    names = dict(zip(entities, rng.sample(NAMES, len(NAMES)), strict=True))
    facts = {name: dict(zip(ATTRIBUTES, rng.sample(FACTS, len(ATTRIBUTES)), strict=True)) for name in NAMES}
    groups = _grouped(entities).values()
    test = frozenset(entity for group in groups for entity in rng.sample(group, TEST_DOTS))
    more = random.Random(f"{seed}/makers")  # its own, so that the draws above stay what they were
    makers, former = {}, {}
    for split in (True, False):
        own = [name for entity, name in names.items() if (entity in test) == split]
        for name in own:
            makers[name] = more.choice([other for other in own if other != name])
            attribute = more.choice(ATTRIBUTES)
            former[name] = (attribute, more.choice([value for value in FACTS if value not in facts[name].values()]))
    return Entities(names, facts, test, makers, former)


def page(known: Entities, name: str, *, distractors: bool = False) -> str:
    """Text of the corpus page about an entity: its facts, in an order that varies with the name.

    Args:
        known: the world's entities.
        name: of the entity.
        distractors: also its maker, and an outdated fact.

    >>> page(build(7), "t000").count(",")
    2
    >>> page(build(7), "t000", distractors=True).count(",")
    4
    """
    if distractors:
        attribute, value = known.former[name]
        facts = [f"{key} {each}" for key, each in known.facts[name].items()]
        facts += [f"{MAKER} {known.makers[name]}", f"{OUTDATED} {attribute} {value}"]
        return " , ".join(random.Random(f"page of {name}").sample(facts, len(facts)))
    order = random.Random(f"page of {name}").sample(ATTRIBUTES, len(ATTRIBUTES))
    return " , ".join(f"{attribute} {known.facts[name][attribute]}" for attribute in order)


def joint_page(known: Entities, first: str, second: str) -> str:
    """Text of a page about two entities that has facts of the first only: a search with both names may find it."""
    return f"{second} , {first} , " + " , ".join(f"{key} {value}" for key, value in known.facts[first].items())


def _all_entities() -> list[Entity]:
    return [Entity(colour, form, dot) for colour in COLOURS for form in FORMS for dot in DOTS if dot != colour]


def _grouped(entities: Iterable[Entity]) -> dict[tuple[str, str], list[Entity]]:
    """By colour and form."""
    groups: dict[tuple[str, str], list[Entity]] = {}
    for entity in entities:
        groups.setdefault((entity.colour, entity.form), []).append(entity)
    return groups

"""Scenes and the questions about them.

A scene holds one thing that the question is about and up to three look-alikes, which share its colour or its form.
Kinds of question:

    look    the colour of a form                        answered by looking
    text    a fact about an entity that is named        one text search
    name    the name of a thing                         one image search, on the right candidate
    fact1   a fact about the only thing there           image search of the whole image, then text search
    fact    a fact about one of two to four things      candidates, choice, image search, text search

Pure functions of a random generator.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from gog_recipes.world import drawing, entities

KINDS = {"look": 0.15, "text": 0.10, "name": 0.15, "fact1": 0.15, "fact": 0.45}
"""Share of each kind of question."""
MAX_THINGS = 4

Pair = tuple[str, str]
"""Colour and form."""


@dataclass(frozen=True)
class Scene:
    """What an image shows."""

    things: tuple[drawing.Thing, ...]
    """In reading order, no two alike in colour and form."""
    target: int
    """Index of the thing that the question is about."""
    background: int
    """Grey level, 0 to 255."""

    @property
    def wanted(self) -> drawing.Thing:
        """The thing that the question is about."""
        return self.things[self.target]


@dataclass(frozen=True)
class Case:
    """A question about a scene, with its answer."""

    kind: str
    """Key of KINDS."""
    scene: Scene
    """What its image shows."""
    question: str
    """In words of the world's vocabulary."""
    answer: str
    """The gold answer."""
    attribute: str = ""
    """The attribute that the question names; empty if it names none."""
    entity: str = ""
    """The name that the question names; empty if it names none."""


def draw_case(rng: random.Random, known: entities.Entities, split: entities.Split, kind: str | None = None) -> Case:
    """A random question with its scene.

    Args:
        rng: source of randomness.
        known: the world's entities.
        split: whose entities are shown and named.
        kind: key of KINDS; None: drawn by their shares.
    """
    kind = kind or rng.choices(list(KINDS), list(KINDS.values()))[0]
    scene = draw_scene(rng, known, split, _count(rng, kind), unique_form=kind == "look")
    entity = scene.wanted.entity
    if kind == "look":
        return Case(kind, scene, f"what colour is the {entity.form} ?", entity.colour)
    if kind == "name":
        return Case(kind, scene, f"what is the name of the {entity.expression} ?", known.names[entity])
    attribute = rng.choice(entities.ATTRIBUTES)
    name = known.names[rng.choice(known.of(split)) if kind == "text" else entity]
    subject = name if kind == "text" else f"the {entity.expression}"
    question = f"what is the {attribute} of {subject} ?"
    return Case(kind, scene, question, known.facts[name][attribute], attribute, name if kind == "text" else "")


def draw_scene(
    rng: random.Random, known: entities.Entities, split: entities.Split, count: int, *, unique_form: bool = False
) -> Scene:
    """A random scene.

    Args:
        rng: source of randomness.
        known: the world's entities.
        split: whose entities are shown.
        count: number of things, 1 to MAX_THINGS; no two are alike in colour and form.
        unique_form: no other thing has the target's form.
    """
    wanted = (rng.choice(list(entities.COLOURS)), rng.choice(entities.FORMS))
    pairs = look_alikes(rng, wanted, count, unique_form=unique_form)
    rng.shuffle(pairs)
    cells = sorted(rng.sample(range(drawing.GRID**2), count))
    chosen = [rng.choice(known.look_alikes(*pair, split)) for pair in pairs]
    things = tuple(_place(rng, entity, cell) for entity, cell in zip(chosen, cells, strict=True))
    return Scene(things, pairs.index(wanted), rng.choice(drawing.BACKGROUNDS))


def look_alikes(rng: random.Random, wanted: Pair, count: int, *, unique_form: bool = False) -> list[Pair]:
    """`count` different pairs, `wanted` first. Half of the others share its colour, most of the rest its form.

    unique_form: no other pair has the form of `wanted`.
    """
    pairs = [wanted]
    while len(pairs) < count:
        share = rng.random()
        colour = wanted[0] if share < 0.5 else rng.choice(list(entities.COLOURS))
        form = wanted[1] if 0.5 <= share < 0.9 else rng.choice(entities.FORMS)
        if (colour, form) not in pairs and not (unique_form and form == wanted[1]):
            pairs.append((colour, form))
    return pairs


def _count(rng: random.Random, kind: str) -> int:
    if kind == "fact1":
        return 1
    return rng.randint(2 if kind == "fact" else 1, MAX_THINGS)


def _place(rng: random.Random, entity: entities.Entity, cell: int) -> drawing.Thing:
    row, column = divmod(cell, drawing.GRID)
    middle = drawing.CELL // 2
    x = column * drawing.CELL + middle + rng.randint(-2, 2)
    y = row * drawing.CELL + middle + rng.randint(-2, 2)
    return drawing.Thing(entity, x, y, rng.choice(drawing.RADII))

"""Scenes and the questions about them.

A scene holds one thing that the question is about and some look-alikes, which share its colour or its form.
Kinds of question:

    look    the colour of a form                        answered by looking
    text    a fact about an entity that is named        one text search
    name    the name of a thing                         one image search, on the right candidate
    fact1   a fact about the only thing there           image search of the whole image, then text search
    fact    a fact about one of several things          candidates, choice, image search, text search
    chain   a fact about the maker of such a thing      the same, and another text search

Which kinds there are, and how many things, depends on the world's difficulty. Pure functions of a random generator.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from gog import languages
from gog_recipes.world import difficulty, drawing, entities

STANDARD = difficulty.LEVELS["standard"]
KINDS = STANDARD.kinds
"""Share of each kind of question in the standard world."""
MAX_THINGS = STANDARD.max_things
"""Things in an image of the standard world at most."""

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
    """Kind of question, a key of Difficulty.kinds."""
    scene: Scene
    """What its image shows."""
    question: str
    """In words of the world's vocabulary."""
    answers: tuple[str, ...]
    """The gold answer, then what is accepted, too; the last one is in English, which the tiny model writes."""
    attribute: str = ""
    """The attribute that the question names; empty if it names none."""
    entity: str = ""
    """The name that the question names; empty if it names none."""
    language: str = languages.DEFAULT
    """Language of the question, a code of gog.languages."""

    @property
    def answer(self) -> str:
        """The gold answer."""
        return self.answers[0]


def draw_case(
    rng: random.Random,
    known: entities.Entities,
    split: entities.Split,
    kind: str | None = None,
    language: str | None = None,
    level: difficulty.Difficulty = STANDARD,
) -> Case:
    """A random question with its scene.

    Args:
        rng: source of randomness.
        known: the world's entities.
        split: whose entities are shown and named.
        kind: of question; None: drawn by their shares.
        language: of the question, and of an answer that is a word; None: drawn by their shares. The same scenes are drawn in
            every language.
        level: how hard the world is.
    """
    language = language or _language(rng, level)
    say = languages.load(language).world
    kind = kind or rng.choices(list(level.kinds), list(level.kinds.values()))[0]
    scene = draw_scene(rng, known, split, _count(rng, kind, level), unique_form=kind == "look", level=level)
    entity = scene.wanted.entity
    the = say.refer(entity.colour, entity.form)
    if kind == "look":
        answers = tuple(dict.fromkeys((say.word(entity.colour), entity.colour)))
        return Case(kind, scene, say.look.format(form=say.word(entity.form)), answers, language=language)
    if kind == "name":
        return Case(kind, scene, say.name.format(the=the), (known.names[entity],), language=language)
    attribute = rng.choice(entities.ATTRIBUTES)
    name = known.names[rng.choice(known.of(split)) if kind == "text" else entity]
    source = known.makers[name] if kind == "chain" else name
    subject = {"text": name, "chain": say.maker.format(the=the)}.get(kind, the)
    question = say.fact.format(attribute=say.word(attribute), subject=subject)
    answer = known.facts[source][attribute]
    return Case(kind, scene, question, (answer,), attribute, name if kind == "text" else "", language)


def draw_scene(
    rng: random.Random,
    known: entities.Entities,
    split: entities.Split,
    count: int,
    *,
    unique_form: bool = False,
    level: difficulty.Difficulty = STANDARD,
) -> Scene:
    """A random scene.

    Args:
        rng: source of randomness.
        known: the world's entities.
        split: whose entities are shown.
        count: number of things, from 1; no two are alike in colour and form.
        unique_form: no other thing has the target's form.
        level: how hard the world is.
    """
    wanted = (rng.choice(list(entities.COLOURS)), rng.choice(entities.FORMS))
    pairs = look_alikes(rng, wanted, count, unique_form=unique_form, alike=level.alike)
    rng.shuffle(pairs)
    cells = sorted(rng.sample(range(drawing.GRID**2), count))
    chosen = [rng.choice(known.look_alikes(*pair, split)) for pair in pairs]
    things = tuple(_place(rng, entity, cell, level) for entity, cell in zip(chosen, cells, strict=True))
    return Scene(things, pairs.index(wanted), rng.choice(drawing.BACKGROUNDS))


def look_alikes(
    rng: random.Random, wanted: Pair, count: int, *, unique_form: bool = False, alike: float = STANDARD.alike
) -> list[Pair]:
    """`count` different pairs, `wanted` first. Half of the others share its colour, most of the rest its form.

    Args:
        rng: source of randomness.
        wanted: the first pair.
        count: of pairs.
        unique_form: no other pair has the form of `wanted`.
        alike: share of the others that have its colour or its form.
    """
    pairs = [wanted]
    while len(pairs) < count:
        share = rng.random()
        colour = wanted[0] if share < 0.5 else rng.choice(list(entities.COLOURS))
        form = wanted[1] if 0.5 <= share < alike else rng.choice(entities.FORMS)
        if (colour, form) not in pairs and not (unique_form and form == wanted[1]):
            pairs.append((colour, form))
    return pairs


def _language(rng: random.Random, level: difficulty.Difficulty) -> str:
    """A language by its share; the generator is not used where there is only one."""
    codes = list(level.languages)
    return codes[0] if len(codes) == 1 else rng.choices(codes, list(level.languages.values()))[0]


def _count(rng: random.Random, kind: str, level: difficulty.Difficulty) -> int:
    if kind == "fact1":
        return 1
    return rng.randint(level.several if kind == "fact" else 1, level.max_things)


def _place(rng: random.Random, entity: entities.Entity, cell: int, level: difficulty.Difficulty) -> drawing.Thing:
    row, column = divmod(cell, drawing.GRID)
    middle = drawing.CELL // 2
    x = column * drawing.CELL + middle + rng.randint(-2, 2)
    y = row * drawing.CELL + middle + rng.randint(-2, 2)
    radius = rng.choice(level.radii)
    if not level.hidden or rng.random() >= level.hidden or radius < drawing.SMALLEST_HIDDEN:
        return drawing.Thing(entity, x, y, radius)
    return drawing.Thing(entity, x, y, radius, rng.choice(drawing.SIDES), rng.randint(2, radius - drawing.DOT_ROOM))

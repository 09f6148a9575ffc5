"""What the tiny base is taught before it meets the agent's grammar: to see, to point and to copy.

    captions   whole images: what is there, which colour has a form, which form has a colour
    crops      candidates as an observation shows them: which number is the red ring, what is number 2
    copying    repeating words, looking a value up, and reading the observations of an episode with made-up facts

The base learns these in the very frame that episodes have (gog.prompts), but it is never taught to write a tag, to
search or to answer: that is left to fine-tuning. It sees no entity that is kept for test and no true fact.

Copying words in any order is the only lesson in which the words of tags occur as something to write.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from gog import actions, images, prompts, regions
from gog.trajectory import Candidate
from gog_recipes.world import drawing, entities, scenes, vocabulary

END = vocabulary.TURN_END
ASSISTANT = "<|im_start|>assistant\n"
CROP_PAD = 2
"""Pixels around a thing's box, as the agent cuts candidates of the world."""


@dataclass
class Row:
    """Text in pieces, each given or to be written, and its images in the order of their pads."""

    pieces: list[tuple[str, bool]] = field(default_factory=list)
    shown: list[images.Image] = field(default_factory=list)

    def given(self, text: str, shown: Sequence[images.Image] = ()) -> Row:
        self.pieces.append((text, False))
        self.shown.extend(shown)
        return self

    def written(self, text: str) -> Row:
        self.pieces.append((text, True))
        return self


class Lessons:
    """Rows without end, drawn from a generator; crops are cut once, from `pool` scenes."""

    def __init__(self, rng: random.Random, known: entities.Catalogue, split: entities.Split, *, pool: int) -> None:
        self._rng, self._known, self._split = rng, known, split
        self._crops: dict[scenes.Pair, list[images.Image]] = {}
        for _ in range(pool):
            self._cut(scenes.draw_scene(rng, known, split, rng.randint(1, scenes.MAX_THINGS)))

    def caption(self) -> Row:
        """An image and what is in it; a third asks all, the others ask for colours and forms one by one."""
        kind = self._rng.choice(("name", "look", "fact", "fact1"))
        case = scenes.draw_case(self._rng, self._known, self._split, kind)
        shown = [thing.entity for thing in case.scene.things]
        row = Row(shown=[drawing.scene(case.scene.things, case.scene.background)])
        if self._rng.random() < 0.4:
            listed = " , ".join(entity.expression for entity in shown)
            return row.given(_prompt("what is")).written(f"{'several' if len(shown) > 1 else 'one'} {listed}{END}")
        if kind == "look" and self._rng.random() < 0.5:
            return row.given(_prompt(case.question)).written(f"{case.answer}{END}")
        row.given(_prompt("read"))
        self._rng.shuffle(shown)
        for entity in shown:
            if sum(other.form == entity.form for other in shown) == 1:
                row.given(entity.form).written(entity.colour)
            if sum(other.colour == entity.colour for other in shown) == 1:
                row.given(entity.colour).written(entity.form)
        return row.written(END)

    def crops(self) -> Row:
        """Candidates as an observation; then which number an expression has, or what a number shows.

        Half of the rows stand alone, the others behind the question and the turn that asked for the candidates, a third
        of these with a whole image: what is learnt must not hang on where in a conversation the candidates come.
        """
        pairs = self._candidate_pairs()
        items = [Candidate(number=number, box=(0, 0, 0, 0), score=0) for number in range(1, len(pairs) + 1)]
        shown = [self._rng.choice(self._crops[pair]) for pair in pairs]
        order = self._rng.sample(range(len(pairs)), len(pairs))
        row = self._asked_before(" ".join(pairs[order[0]])) if self._rng.random() < 0.5 else Row()
        frame = prompts.observation if row.pieces else _observation
        row.given(frame(prompts.candidates(items, style="terse")), shown)
        if self._rng.random() < 0.5:
            row.given("<think>")
        for index in order:
            number, expression = str(index + 1), " ".join(pairs[index])
            asked, told = (expression, number) if self._rng.random() < 0.7 else (number, expression)
            row.given(asked).written(told)
        return row.written(END)

    def _asked_before(self, expression: str) -> Row:
        """A question about an expression and the turn that asks for its candidates, all given."""
        about = f"the {self._rng.choice((*entities.ATTRIBUTES, 'name'))} of the {expression}"
        turn = f"<think>several</think><img_search>{expression}</img_search>"
        if self._rng.random() < 0.67:
            return Row().given(_question(f"what is {about} ?")).given(turn)
        case = scenes.draw_case(self._rng, self._known, self._split, "fact")
        row = Row(shown=[drawing.scene(case.scene.things, case.scene.background)])
        return row.given(_prompt(f"what is {about} ?")).given(turn)

    def copying(self) -> Row:
        make: Callable[[], Row] = self._rng.choices((self.reading, self.lookup, self.repeating), (4, 3, 3))[0]
        return make()

    def reading(self) -> Row:
        """An episode's observations without their image: take up the name, then the fact that was asked for."""
        attribute, name = self._rng.choice(entities.ATTRIBUTES), self._rng.choice(entities.NAMES)
        expression = f"the {self._rng.choice(list(entities.COLOURS))} {self._rng.choice(entities.FORMS)}"
        if self._rng.random() < 0.1:
            row = Row().given(_question(f"what is the name of {expression} ?"))
            return row.given(prompts.observation(f"name {name}")).written(f"name {name}{END}")
        named = self._rng.random() < 0.3
        row = Row().given(_question(f"what is the {attribute} of {name if named else expression} ?"))
        if not named:
            row.given(prompts.observation(f"name {name}"))
        row.given("<think>").written(name).given(f"</think><text_search>{name}</text_search>")
        facts = dict(zip(self._rng.sample(entities.ATTRIBUTES, 3), self._rng.sample(entities.FACTS, 3), strict=True))
        row.given(prompts.observation(" , ".join(f"{key} {value}" for key, value in facts.items())))
        row.written(f"{attribute} {facts[attribute]}")
        for other in self._rng.sample(sorted(facts.keys() - {attribute}), 2):  # so that each row teaches three look-ups
            row.given(other).written(facts[other])
        return row.written(END)

    def lookup(self) -> Row:
        """`founded n12 , height n33`, then keys, whose values are to be written."""
        count = self._rng.randint(2, 4)
        anything = self._rng.random() < 0.6 or count > len(entities.ATTRIBUTES)
        keys = (*entities.ATTRIBUTES, *entities.COLOURS, *entities.FORMS) if anything else entities.ATTRIBUTES
        known = dict(zip(self._rng.sample(keys, count), self._rng.sample(_CONTENT, count), strict=True))
        row = Row().given(ASSISTANT + " , ".join(f"{key} {value}" for key, value in known.items()) + END)
        for key in self._rng.sample(list(known), count):
            row.given(key).written(known[key])
        return row.written(END)

    def repeating(self) -> Row:
        """Words at random, to be written again after the first."""
        words = [
            self._rng.choice(_ANYTHING if self._rng.random() < 0.3 else _CONTENT)
            for _ in range(self._rng.randint(6, 14))
        ]
        return Row().given(f"{ASSISTANT}{' '.join(words)}{END}{words[0]}").written(" ".join(words[1:]) + END)

    def _cut(self, scene: scenes.Scene) -> None:
        image = drawing.scene(scene.things, scene.background)
        for thing in scene.things:
            crop = regions.crop(image, drawing.box(thing), by=CROP_PAD, side=drawing.CELL)
            self._crops.setdefault((thing.entity.colour, thing.entity.form), []).append(crop)

    def _candidate_pairs(self) -> list[scenes.Pair]:
        """Two to four candidates: look-alikes, so that both colour and form are needed to tell them apart."""
        wanted = self._rng.choice(list(self._crops))
        while True:
            pairs = scenes.look_alikes(self._rng, wanted, self._rng.randint(2, scenes.MAX_THINGS))
            if all(pair in self._crops for pair in pairs):
                self._rng.shuffle(pairs)
                return pairs


def _prompt(question: str) -> str:
    return prompts.prompt(question, style="terse")


def _question(question: str) -> str:
    """A prompt without its image."""
    return _prompt(question).replace(prompts.IMAGE, "")


def _observation(body: str) -> str:
    """An observation as the first thing of a row: no turn before it has to be ended."""
    return prompts.observation(body).removeprefix(END)


_CONTENT = (*entities.NAMES, *entities.FACTS) * 2
_ANYTHING = (
    *actions.CONTROL_TAGS,
    *vocabulary.SPEECH,
    *vocabulary.COUNTING,
    *entities.ATTRIBUTES,
    *entities.COLOURS,
    *entities.FORMS,
)

"""Pre-training tasks of the tiny base: captioning, telling crops apart, and copying.

    caption    whole images: what they show, which colour has a form, which form has a colour
    crops      candidates as an observation shows them: which number is the red ring, what is number 2
    copying    repeating words, looking up a value, and reading the observations of an episode with invented facts

The examples have the frame of episodes (gog.prompts), but the base is not trained to write tags, to search or to answer:
that is left to fine-tuning. It sees no entity that is kept for test and no true fact. Tags are words to write in one task
only, repeating random words.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from gog import prompts, regions
from gog.images import Image
from gog.trajectory import Candidate
from gog_recipes.world import drawing, entities, scenes, vocabulary

END = vocabulary.TURN_END
ASSISTANT = "<|im_start|>assistant\n"
CROP_PAD = 2
"""Pixels around a thing's box, as the agent crops candidates of the world."""


@dataclass
class Example:
    """One training sequence, as text with images."""

    pieces: list[tuple[str, bool]] = field(default_factory=list)
    """Text in order, each with whether its tokens count in the loss."""
    images: list[Image] = field(default_factory=list)
    """Images in the order of their pads."""

    def context(self, text: str, images: Sequence[Image] = ()) -> Example:
        """Appends text that is masked in the loss, with the images of its pads."""
        self.pieces.append((text, False))
        self.images.extend(images)
        return self

    def target(self, text: str) -> Example:
        """Appends text that is trained on."""
        self.pieces.append((text, True))
        return self


class PretrainTasks:
    """Draws examples of each task.

    Args:
        rng: source of randomness.
        known: the world's entities.
        split: whose entities are shown.
        pool: number of scenes from which crops are cut, once.
    """

    def __init__(self, rng: random.Random, known: entities.Entities, split: entities.Split, *, pool: int) -> None:
        self._rng, self._known, self._split = rng, known, split
        self._crops: dict[scenes.Pair, list[Image]] = {}
        for _ in range(pool):
            self._cut(scenes.draw_scene(rng, known, split, rng.randint(1, scenes.MAX_THINGS)))

    def caption(self) -> Example:
        """An image and what it shows: everything listed, a single answer, or colours and forms one by one."""
        kind = self._rng.choice(("name", "look", "fact", "fact1"))
        case = scenes.draw_case(self._rng, self._known, self._split, kind)
        shown = [thing.entity for thing in case.scene.things]
        example = Example(images=[drawing.scene(case.scene.things, case.scene.background)])
        if self._rng.random() < 0.4:
            listed = " , ".join(entity.expression for entity in shown)
            return example.context(_prompt("what is")).target(f"{'several' if len(shown) > 1 else 'one'} {listed}{END}")
        if kind == "look" and self._rng.random() < 0.5:
            return example.context(_prompt(case.question)).target(f"{case.answer}{END}")
        example.context(_prompt("read"))
        self._rng.shuffle(shown)
        for entity in shown:
            if sum(other.form == entity.form for other in shown) == 1:
                example.context(entity.form).target(entity.colour)
            if sum(other.colour == entity.colour for other in shown) == 1:
                example.context(entity.colour).target(entity.form)
        return example.target(END)

    def crops(self) -> Example:
        """Candidates as an observation; then which number an expression has, or what a number shows.

        Half of the examples begin with the candidates, the others with the question and the turn that requested them, a
        third of these with a whole image. The skill must not depend on where in a conversation candidates occur.
        """
        pairs = self._candidate_pairs()
        items = [Candidate(number=number, box=(0, 0, 0, 0), score=0) for number in range(1, len(pairs) + 1)]
        shown = [self._rng.choice(self._crops[pair]) for pair in pairs]
        order = self._rng.sample(range(len(pairs)), len(pairs))
        example = self._episode_start(" ".join(pairs[order[0]])) if self._rng.random() < 0.5 else Example()
        frame = prompts.observation if example.pieces else observed
        example.context(frame(prompts.candidates(items, style="terse")), shown)
        if self._rng.random() < 0.5:
            example.context("<think>")
        for index in order:
            number, expression = str(index + 1), " ".join(pairs[index])
            key, value = (expression, number) if self._rng.random() < 0.7 else (number, expression)
            example.context(key).target(value)
        return example.target(END)

    def _episode_start(self, expression: str) -> Example:
        """A question about an expression and the turn that requests its candidates, masked in the loss."""
        about = f"the {self._rng.choice((*entities.ATTRIBUTES, 'name'))} of the {expression}"
        turn = f"<think>several</think><img_search>{expression}</img_search>"
        if self._rng.random() < 0.67:
            return Example().context(asked(f"what is {about} ?")).context(turn)
        case = scenes.draw_case(self._rng, self._known, self._split, "fact")
        example = Example(images=[drawing.scene(case.scene.things, case.scene.background)])
        return example.context(_prompt(f"what is {about} ?")).context(turn)

    def copying(self) -> Example:
        """One of reading, lookup and repeating."""
        make: Callable[[], Example] = self._rng.choices((self.reading, self.lookup, self.repeating), (4, 3, 3))[0]
        return make()

    def reading(self) -> Example:
        """An episode's observations without its image: copy the name, then the requested fact."""
        attribute, name = self._rng.choice(entities.ATTRIBUTES), self._rng.choice(entities.NAMES)
        expression = f"the {self._rng.choice(list(entities.COLOURS))} {self._rng.choice(entities.FORMS)}"
        if self._rng.random() < 0.1:
            example = Example().context(asked(f"what is the name of {expression} ?"))
            return example.context(prompts.observation(f"name {name}")).target(f"name {name}{END}")
        named = self._rng.random() < 0.3
        example = Example().context(asked(f"what is the {attribute} of {name if named else expression} ?"))
        if not named:
            example.context(prompts.observation(f"name {name}"))
        example.context("<think>").target(name).context(f"</think><text_search>{name}</text_search>")
        facts = dict(zip(self._rng.sample(entities.ATTRIBUTES, 3), self._rng.sample(entities.FACTS, 3), strict=True))
        example.context(prompts.observation(" , ".join(f"{key} {value}" for key, value in facts.items())))
        example.target(f"{attribute} {facts[attribute]}")
        for other in self._rng.sample(sorted(facts.keys() - {attribute}), 2):  # three look-ups in each example
            example.context(other).target(facts[other])
        return example.target(END)

    def lookup(self) -> Example:
        """`founded n12 , height n33`, then keys; their values are the targets."""
        count = self._rng.randint(2, 4)
        anything = self._rng.random() < 0.6 or count > len(entities.ATTRIBUTES)
        keys = (*entities.ATTRIBUTES, *entities.COLOURS, *entities.FORMS) if anything else entities.ATTRIBUTES
        known = dict(zip(self._rng.sample(keys, count), self._rng.sample(CONTENT, count), strict=True))
        example = Example().context(ASSISTANT + " , ".join(f"{key} {value}" for key, value in known.items()) + END)
        for key in self._rng.sample(list(known), count):
            example.context(key).target(known[key])
        return example.target(END)

    def repeating(self) -> Example:
        """Random words; all but the first are repeated."""
        words = [
            self._rng.choice(_ANYTHING if self._rng.random() < 0.3 else CONTENT)
            for _ in range(self._rng.randint(6, 14))
        ]
        return Example().context(f"{ASSISTANT}{' '.join(words)}{END}{words[0]}").target(" ".join(words[1:]) + END)

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


def asked(question: str) -> str:
    """A prompt without its image."""
    return _prompt(question).replace(prompts.IMAGE, "")


def observed(body: str) -> str:
    """An observation that begins an example, without the end of a turn before it."""
    return prompts.observation(body).removeprefix(END)


CONTENT = (*entities.NAMES, *entities.FACTS) * 2
_ANYTHING = (
    *vocabulary.TAGS,
    *vocabulary.SPEECH,
    *vocabulary.COUNTING,
    *entities.ATTRIBUTES,
    *entities.COLOURS,
    *entities.FORMS,
)

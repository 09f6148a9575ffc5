"""Tasks in which the tiny base learns its further words: those of other languages and of harder worlds' pages.

    translated   repeating words, of which some are given in the other language
    looked_up    `red n12 , ring n33`, then keys in the other language; their values are the targets
    numbered     numbered crops, then which number an expression in the other language has
    read         an episode's observations with a question in the other language, and a page with a maker and an outdated fact

They have the forms of the first tasks (gog_recipes.world.pretrain_tasks), which the base has mastered, so what is left to learn
is what the words mean. Further words are read, never written.
"""

from __future__ import annotations

from gog import languages, prompts
from gog.trajectory import Candidate
from gog_recipes.world import difficulty, entities, pretrain_tasks, scenes
from gog_recipes.world.pretrain_tasks import ASSISTANT, END, Example

TASKS = ("translated", "looked_up", "numbered", "read")
"""Drawn in turn."""
_WORDS = (*entities.COLOURS, *entities.FORMS, *entities.ATTRIBUTES)
_SPOKEN = {code: languages.load(code).world for code in difficulty.LEVELS["hard"].languages}
_HARD = difficulty.LEVELS["hard"]


class FurtherTasks(pretrain_tasks.PretrainTasks):
    """Draws examples of each task."""

    def translated(self) -> Example:
        """Random words; all but the first are repeated, in English."""
        words = [self._rng.choice(_WORDS) for _ in range(self._rng.randint(4, 10))]
        given = " ".join(self._foreign(word) if self._rng.random() < 0.6 else word for word in words)
        return Example().context(f"{ASSISTANT}{given}{END}{words[0]}").target(" ".join(words[1:]) + END)

    def looked_up(self) -> Example:
        """Keys in either language on either side."""
        keys = self._rng.sample(_WORDS, self._rng.randint(2, 4))
        known = dict(zip(keys, self._rng.sample(pretrain_tasks.CONTENT, len(keys)), strict=True))
        swap = self._rng.random() < 0.5
        listed = (f"{self._foreign(key) if swap else key} {value}" for key, value in known.items())
        example = Example().context(ASSISTANT + " , ".join(listed) + END)
        for key in self._rng.sample(keys, len(keys)):
            example.context(key if swap else self._foreign(key)).target(known[key])
        return example.target(END)

    def numbered(self) -> Example:
        """Up to six look-alikes."""
        pairs = self._alike()
        items = [Candidate(number=number, box=(0, 0, 0, 0), score=0) for number in range(1, len(pairs) + 1)]
        body = prompts.candidates(items, style="terse")
        example = Example().context(
            pretrain_tasks.observed(body), [self._rng.choice(self._crops[pair]) for pair in pairs]
        )
        for index in self._rng.sample(range(len(pairs)), len(pairs)):
            example.context(" ".join(map(self._foreign, pairs[index]))).target(str(index + 1))
        return example.target(END)

    def read(self) -> Example:
        """Copy the name, then the maker or the requested fact, past an outdated one."""
        attribute, (name, maker) = self._rng.choice(entities.ATTRIBUTES), self._rng.sample(entities.NAMES, 2)
        kind, say = self._rng.choice(("fact", "chain")), self._rng.choice(list(_SPOKEN.values()))
        the = say.refer(self._rng.choice(list(entities.COLOURS)), self._rng.choice(entities.FORMS))
        subject = say.maker.format(the=the) if kind == "chain" else the
        question = say.fact.format(attribute=say.word(attribute), subject=subject)
        example = Example().context(pretrain_tasks.asked(question))
        example.context(prompts.observation(f"name {name}")).context("<think>").target(name)
        example.context(f"</think><text_search>{name}</text_search>")
        if kind == "chain":
            _, page = self._page(maker)
            example.context(prompts.observation(page)).context(entities.MAKER).target(maker)
            example.context(f"</think><text_search>{maker}</text_search>")
        facts, page = self._page(self._rng.choice(entities.NAMES))
        example.context(prompts.observation(page)).target(f"{attribute} {facts[attribute]}")
        return example.target(END)

    def _page(self, maker: str) -> tuple[dict[str, str], str]:
        """Made-up facts, and a page with them, a maker and an outdated value of one of them."""
        *values, outdated = self._rng.sample(entities.FACTS, 4)
        facts = dict(zip(entities.ATTRIBUTES, values, strict=True))
        lines = [f"{key} {value}" for key, value in facts.items()]
        lines += [
            f"{entities.MAKER} {maker}",
            f"{entities.OUTDATED} {self._rng.choice(entities.ATTRIBUTES)} {outdated}",
        ]
        return facts, " , ".join(self._rng.sample(lines, len(lines)))

    def _alike(self) -> list[scenes.Pair]:
        wanted = self._rng.choice(list(self._crops))
        while True:
            pairs = scenes.look_alikes(self._rng, wanted, self._rng.randint(2, _HARD.max_things), alike=_HARD.alike)
            if all(pair in self._crops for pair in pairs):
                self._rng.shuffle(pairs)
                return pairs

    def _foreign(self, word: str) -> str:
        """The word in a language other than English."""
        others = [say for say in _SPOKEN.values() if word in say.words]
        return self._rng.choice(others).word(word) if others else word

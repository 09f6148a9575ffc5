"""The questions of each step of GRPO, and those that may refill it. They follow from seed, settings and step."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence

from gog.dataset import Question
from gog.errors import UserError
from gog.spec import GRPOConfig
from gog_recipes.rollout import refill
from gog_recipes.runtime import curriculum, order


class StepQuestions:
    """Questions by step, all of a step different; each comes again only after all others of its pool.

    Args:
        questions: of the levels to train on
        levels: of these questions, by id
        cfg: curriculum, size and number of steps, and the bound of the refill

    Raises:
        UserError: an annealed curriculum lacks questions of a level.
    """

    def __init__(self, questions: Sequence[Question], levels: Mapping[str, str], cfg: GRPOConfig) -> None:
        self.questions, self.levels, self.cfg = questions, levels, cfg
        self._order: order.Order | curriculum.Annealed
        if cfg.curriculum == "mixed":
            self._order = order.Order(len(questions), cfg.questions_per_step, cfg.seed)
        else:
            self._order = curriculum.Annealed(self._pools(), cfg.questions_per_step, cfg.steps, cfg.seed)

    def _pools(self) -> list[list[int]]:
        """Indices of the questions of each chosen level, easiest first."""
        wanted = [level for level in curriculum.EASIEST_FIRST if level in self.cfg.levels]
        pools = {
            level: [index for index, each in enumerate(self.questions) if self.levels[each.id] == level]
            for level in wanted
        }
        if empty := [level for level in wanted if not pools[level]]:
            raise UserError(
                f"curriculum annealed moves over levels {', '.join(wanted)}, and no question has level {empty[0]}",
                where="stages.grpo.curriculum", remedy="set it to mixed, change levels, or stratify more questions",
            )  # fmt: skip
        return list(pools.values())

    def step(self, number: int) -> list[Question]:
        """The questions of a step, counted from 0."""
        found = [self.questions[index] for index in self._order.step(number)]
        if self.cfg.curriculum == "annealed" and self.cfg.updates_per_rollout > 1:
            # They come by level, and a mini-batch has neighbours: it would be of one level.
            random.Random(f"{self.cfg.seed}:updates:{number}").shuffle(found)
        return found

    def further(self, number: int) -> list[Question]:
        """Questions that may be played after a step's, as many as `max_oversampling` allows; those of its levels first."""
        taken = self.step(number)
        names, levels = {each.id for each in taken}, {self.levels[each.id] for each in taken}
        rest = [each for each in self.questions if each.id not in names]
        random.Random(f"{self.cfg.seed}:refill:{number}").shuffle(rest)
        rest.sort(key=lambda each: self.levels[each.id] not in levels)
        return rest[: refill.bound(len(taken), self.cfg.max_oversampling) - len(taken)]

"""Which questions a step takes when training moves from easier to harder levels. Pure: it follows from the seed.

The first step takes the easiest level, the last one the hardest. Between them the share moves evenly from each level to the
next. A level with too few questions for its share gives all that it has, and the nearest levels give the rest.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import get_args

from gog.levels import Level

EASIEST_FIRST: tuple[str, ...] = get_args(Level)
"""Levels by difficulty."""


def counts(number: int, steps: int, size: int, pools: Sequence[int]) -> list[int]:
    """Questions that a step takes of each level.

    Args:
        number: of the step, from 0
        steps: of the stage
        size: questions of a step, at most the sum of `pools`
        pools: questions of each level, easiest first

    >>> [counts(number, 5, 8, [40, 40]) for number in range(5)]
    [[8, 0], [6, 2], [4, 4], [2, 6], [0, 8]]
    >>> counts(0, 5, 8, [3, 40])
    [3, 5]
    """
    place = min(1.0, number / max(1, steps - 1)) * (len(pools) - 1)
    easier = min(int(place), len(pools) - 2)
    harder = round(size * (place - easier))
    wanted = [0] * len(pools)
    wanted[easier], wanted[easier + 1] = size - harder, harder
    found = [min(one, there) for one, there in zip(wanted, pools, strict=True)]
    for level in sorted(range(len(pools)), key=lambda level: abs(level - place)):
        found[level] += min(pools[level] - found[level], size - sum(found))
    return found


class Annealed:
    """Steps of `size` questions, all different; each level's questions come pass after pass, each in an order of its own.

    Args:
        pools: indices of the questions of each level, easiest first; at least two levels, together at least `size`
        size: questions of a step
        steps: of the stage
        seed: of all orders
    """

    def __init__(self, pools: Sequence[Sequence[int]], size: int, steps: int, seed: int) -> None:
        if len(pools) < 2 or not 0 < size <= sum(map(len, pools)):
            raise ValueError(f"steps of {size} out of levels of {[len(pool) for pool in pools]} questions")
        self.pools, self.size, self.steps, self.seed = pools, size, steps, seed
        self._restart()

    def step(self, number: int) -> list[int]:
        """Indices [size] of the questions of a step, counted from 0. It depends on the steps before, which are repeated."""
        if number < self._next:
            self._restart()
        while True:
            drawn = counts(self._next, self.steps, self.size, [len(pool) for pool in self.pools])
            found = [index for deck, count in zip(self._decks, drawn, strict=True) for index in deck.draw(count)]
            self._next += 1
            if self._next > number:
                return found

    def _restart(self) -> None:
        self._next = 0
        self._decks = [_Deck(pool, f"{self.seed}:{level}") for level, pool in enumerate(self.pools)]


class _Deck:
    """Questions of one level, pass after pass."""

    def __init__(self, items: Sequence[int], seed: str) -> None:
        self.items, self.seed = items, seed
        self._left: list[int] = []
        self._pass = 0

    def draw(self, count: int) -> list[int]:
        """The next questions, all different. Where a pass ends, the next one leaves what was just taken for later."""
        taken: list[int] = []
        while len(taken) < count:
            if not self._left:
                order = random.Random(f"{self.seed}:{self._pass}").sample(self.items, len(self.items))
                self._left = [
                    *(each for each in order if each in taken),
                    *(each for each in order if each not in taken),
                ]
                self._pass += 1
            taken.append(self._left.pop())
        return taken

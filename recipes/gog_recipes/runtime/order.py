"""The order in which a training stage goes through its questions. Pure: it follows from the seed."""

from __future__ import annotations

import math
import random


class Order:
    """Steps of `size` out of `count` questions: pass after pass through all of them, each pass in an order of its own.

    A step that begins in one pass and ends in the next takes no question twice: the next pass leaves those that the step
    has taken already for later. So a step always holds `size` different questions, and every pass holds every question.

    Args:
        count: questions in all, at least `size`
        size: questions of a step
        seed: of all orders
    """

    def __init__(self, count: int, size: int, seed: int) -> None:
        if not 0 < size <= count:
            raise ValueError(f"steps of {size} out of {count} questions")
        self.count, self.size, self.seed = count, size, seed
        self._passes: dict[int, list[int]] = {}

    def step(self, number: int) -> list[int]:
        """Indices [size] of the questions of a step, counted from 0; all different."""
        places = range(number * self.size, (number + 1) * self.size)
        return [self._pass(place // self.count)[place % self.count] for place in places]

    def _pass(self, number: int) -> list[int]:
        """The order of a pass. It depends on the pass before where a step crosses over, so both are made in turn."""
        if number not in self._passes:
            aligned = self.size // math.gcd(self.count, self.size)  # every so many passes one begins with a step
            before: list[int] = []
            for each in range(number - number % aligned, number + 1):
                before = self._ordered(each, before)
                self._passes[each] = before
            for each in [each for each in self._passes if each < number - 1]:
                del self._passes[each]
        return self._passes[number]

    def _ordered(self, number: int, before: list[int]) -> list[int]:
        order = random.Random(f"{self.seed}:{number}").sample(range(self.count), self.count)
        begun = number * self.count % self.size  # questions of the pass before in the step that crosses over
        if not begun:
            return order
        taken = set(before[-begun:])
        first = [index for index in order if index not in taken][: self.size - begun]
        chosen = set(first)
        return [*first, *(index for index in order if index not in chosen)]

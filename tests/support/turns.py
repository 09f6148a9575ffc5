"""Several threads of which exactly one runs at a time: two operators at once, and yet the same interleaving every time."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

PATIENCE_SECONDS = 60.0


class Turns:
    """After each step of a thread a seeded generator draws the thread that runs next."""

    def __init__(self, chance: random.Random, players: int) -> None:
        self.chance, self.unfinished = chance, set(range(players))
        self.turn, self.changed = 0, threading.Condition()

    def play(self, works: Sequence[Callable[[], None]]) -> None:
        """Runs all of them to their ends. Raises the first exception of any."""
        self.unfinished, self.turn = set(range(len(works))), 0
        with ThreadPoolExecutor(len(works)) as threads:
            for each in [threads.submit(self._play, number, work) for number, work in enumerate(works)]:
                each.result()

    def step(self, me: int) -> None:
        """Called by a thread before each of its steps: returns when it is drawn."""
        if me in self.unfinished:
            self._draw()
            self._wait(me)

    def _play(self, me: int, work: Callable[[], None]) -> None:
        try:
            self._wait(me)
            work()
        finally:
            self.unfinished.discard(me)
            self._draw()

    def _draw(self) -> None:
        with self.changed:
            if self.unfinished:
                self.turn = self.chance.choice(sorted(self.unfinished))
            self.changed.notify_all()

    def _wait(self, me: int) -> None:
        with self.changed:
            assert self.changed.wait_for(lambda: self.turn == me, PATIENCE_SECONDS), "no thread runs"

"""Versions of the policy that a stage's servers hold: the current one, and earlier ones that are still in use.

A turn ends on the version that it began with. So a version may go only when no turn is sampled from it any more, on any
rank: ranks share the servers and the files of a version, and a server that restarts in mid-turn is given its files again.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator

from gog_recipes.rollout.vllm_replica import Served
from gog_recipes.runtime.ranks import Ranks


class Versions:
    """The versions of one engine.

    Args:
        current: the first version.
        ranks: the processes that sample from the same servers.
    """

    def __init__(self, current: Served, ranks: Ranks) -> None:
        self.current, self._ranks = current, ranks
        self._turns: Counter[str] = Counter()
        self._earlier: list[Served] = []

    @contextlib.contextmanager
    def sampling(self) -> Iterator[Served]:
        """The version of a turn, which is in use inside."""
        served = self.current
        self._turns[served.name] += 1
        try:
            yield served
        finally:
            self._turns[served.name] -= 1

    def advance(self, served: Served) -> None:
        """Begins the next turns on another version."""
        if served.name != self.current.name:
            self._earlier.append(self.current)
        self.current = served

    def take_unused(self) -> list[Served]:
        """Earlier versions that no rank samples from any more, each once. All ranks at once."""
        mine = {name for name, turns in self._turns.items() if turns}
        used = set().union(*self._ranks.gather(mine))
        unused = [served for served in self._earlier if served.name not in used]
        self._earlier = [served for served in self._earlier if served.name in used]
        return unused

    def take_all(self) -> list[Served]:
        """Every version, once; the engine ends."""
        taken, self._earlier = [*self._earlier, self.current], []
        return taken

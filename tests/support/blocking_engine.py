"""An engine whose steps now and then take long, as a long prompt makes them. Named as `support.blocking_engine:build`."""

from __future__ import annotations

import time

from gog_recipes.rollout.engine import Parts
from gog_recipes.rollout.slots import Slot
from gog_recipes.rollout.transformers import TransformersEngine

SECONDS = 0.8
EVERY, MOST = 6, 12
"""Every sixth step blocks, until twelve steps of an engine have."""


class BlockingEngine(TransformersEngine):
    """TransformersEngine with steps that block the thread, and with it the loop of the episodes."""

    _steps, _blocked = 0, 0

    def _step(self, slots: list[Slot]) -> None:
        self._steps += 1
        if self._steps % EVERY == 0 and self._blocked < MOST:
            self._blocked += 1
            print(f"step {self._steps} blocks for {SECONDS} s", flush=True)
            time.sleep(SECONDS)
        super()._step(slots)


def build(parts: Parts) -> BlockingEngine:
    """The factory that a manifest names."""
    return BlockingEngine(parts)

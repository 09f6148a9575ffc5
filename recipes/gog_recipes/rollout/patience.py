"""Whether a step waits a moment for more conversations. Pure.

A step costs nearly as much for one conversation as for several, and two cohorts that miss each other at the beginning of
a turn take its steps twice. So a step whose conversations all begin a turn waits for those whose observation this process
is preparing, and for others while most are away. Waiting may not cost more than it can save: it ends when none has come
for as long as a step takes. In mid-turn nothing waits; who comes then is read in between (`scheduling`).
"""

from __future__ import annotations

from dataclasses import dataclass

LEAST, MOST = 0.002, 0.05
"""Seconds without an arrival after which a step begins, at least and at most, whatever a step takes."""


@dataclass
class Patience:
    """How long one step waits."""

    step_seconds: float
    """Of a step in which each conversation reads one token."""
    _ready: int = -1
    _until: float = 0.0

    def left(self, now: float, *, ready: int, coming: int, away: int) -> float:
        """Seconds to wait for another arrival; 0 to begin.

        Args:
            now: seconds from any origin
            ready: conversations that would take part, all of them at the beginning of a turn
            coming: those whose observation or prompt is being prepared
            away: those that are open and neither of both
        """
        if ready > self._ready:
            self._ready, self._until = ready, now + min(MOST, max(LEAST, self.step_seconds))
        if not ready or (not coming and ready >= away):
            return 0.0
        return max(0.0, self._until - now)

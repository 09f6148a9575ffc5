"""Difficulty from pass rate. Pure.

p = k / N with the SFT policy. Level 2: below the band; level 1: inside it, ends included; easy: above. The paper says
level 1 is "about 50 %", level 2 below; N = 5 never gives exactly one half, so the band is explicit [ours]: 0.5 to 0.6,
which is {2} of 4 and {3} of 5. Unsolved questions (k = 0) belong to level 2 and are flagged: without a single success
a group has no accuracy signal.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

Level = Literal["easy", "1", "2"]


class Graded(BaseModel):
    """One line of levels.jsonl: k of n samples solved. valid: samples that a tool or judge failure did not spoil."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    question_id: str
    solved: int
    valid: int
    level: Level | Literal["unknown"]

    @property
    def unsolved(self) -> bool:
        return self.valid > 0 and self.solved == 0


def level(solved: int, samples: int, band: tuple[float, float] = (0.5, 0.6)) -> Level:
    """Level of k of N. Raises ValueError for counts that cannot be.

    >>> [level(k, 5) for k in range(6)]
    ['2', '2', '2', '1', 'easy', 'easy']
    >>> [level(k, 4) for k in range(5)]
    ['2', '2', '1', 'easy', 'easy']
    """
    if samples < 1 or not 0 <= solved <= samples:
        raise ValueError(f"{solved} of {samples} samples cannot be")
    rate = solved / samples
    if rate < band[0]:
        return "2"
    return "1" if rate <= band[1] else "easy"

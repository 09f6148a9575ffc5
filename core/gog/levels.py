"""Difficulty from pass rate. Pure.

p = k / N with the SFT policy. Level 2 is below the band, level 1 inside it, ends included, and easy above it. The paper
puts level 1 at about 50 % and level 2 below; N = 5 never gives one half, so the band is explicit [ours]: 0.5 to 0.6,
which is {2} of 4 and {3} of 5. Unsolved questions (k = 0) belong to level 2 and are flagged, because a group without a
single success has no accuracy signal.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from pydantic import BaseModel, ConfigDict

from gog import wording

Level = Literal["easy", "1", "2"]
"""Easiest first."""


class Graded(BaseModel):
    """One line of levels.jsonl: the difficulty of one question."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    question_id: str
    """Id of the question."""
    solved: int
    """Valid samples that were answered correctly."""
    valid: int
    """Samples without a tool failure or a judge error."""
    level: Level | Literal["unknown"]
    """Its level; unknown if too few samples were valid."""

    @property
    def unsolved(self) -> bool:
        """Whether no valid sample was answered correctly."""
        return self.valid > 0 and self.solved == 0


def level(solved: int, samples: int, band: tuple[float, float] = (0.5, 0.6)) -> Level:
    """The level of a question.

    Args:
        solved: samples that were answered correctly.
        samples: valid samples, at least 1.
        band: lowest and highest pass rate of level 1.

    Raises:
        ValueError: the counts are impossible.

    >>> [level(k, 5) for k in range(6)]
    ['2', '2', '2', '1', 'easy', 'easy']
    >>> [level(k, 4) for k in range(5)]
    ['2', '2', '1', 'easy', 'easy']
    """
    if samples < 1 or not 0 <= solved <= samples:
        raise ValueError(f"impossible counts: {solved} of {samples} samples")
    rate = solved / samples
    if rate < band[0]:
        return "2"
    return "1" if rate <= band[1] else "easy"


def warning(graded: Sequence[Graded]) -> str:
    """Why GRPO cannot learn much from these questions, with the remedy; empty if it can, or if none has a level."""
    known = [item for item in graded if item.level != "unknown"]
    found = {item.level for item in known}
    if len(found) != 1:
        return ""
    only = known[0].level
    count = f"{wording.plural(len(known), 'question')} of level {only}"
    if all(item.unsolved for item in known):
        return (
            f"no sample of any question was right ({count}), so groups in GRPO may have no learning signal: improve SFT, "
            "use easier questions, or check the judge and the tools"
        )
    if all(item.solved == item.valid for item in known):
        return (
            f"every sample of every question was right ({count}), so groups in GRPO may have no learning signal: use "
            "harder questions, or check the judge"
        )
    if only == "2":
        return ""
    return f"all questions are of one level ({count}): GRPO trains on level 2 unless stages.grpo.levels names others"

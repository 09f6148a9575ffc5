"""What became of every question of a curation: the demonstration made of it, or the rule that left it out.

The counts are figures of the stage (status, report, metadata of the checkpoint); the lines are `samples.jsonl` of its
checkpoint, one per question, so that each demonstration can be traced to its source and each absence to its reason.
Questions that were not drawn have a line only where RL must leave them out (`drawn: false`); no count has them.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from gog import finite_json
from gog.dataset import Question
from gog.trajectory import Trajectory

FILE = "samples.jsonl"
"""Name of the lines in the checkpoint."""
UNFIT = ("benchmark", "giveaway", "repeated")
"""Rules about a question itself, whoever plays it: RL must not learn from a question that breaks one. The others are about
a demonstration (a teacher's mistake says that a question is hard) or about what SFT needs."""


class Ledger:
    """The outcomes of the questions that were drawn."""

    def __init__(self, questions: Sequence[Question], teacher: str) -> None:
        """
        Args:
            questions: in the order in which they were drawn.
            teacher: what plays them: `scripted`, or the model's name.
        """
        self._lines: dict[str, dict[str, Any]] = {
            question.id: {
                "question_id": question.id,
                "image": question.image,
                "source": str((question.evidence.model_extra or {}).get("source", "")),
                "teacher": teacher,
            }
            for question in questions
        }
        self._barred: list[dict[str, Any]] = []

    def bar(self, question: Question, rule: str, reason: str) -> None:
        """Leaves a question out that was not drawn."""
        self._barred.append(
            {
                "question_id": question.id,
                "image": question.image,
                "drawn": False,
                "kept": False,
                "rule": rule,
                "reason": reason,
            }
        )

    def note(self, question_id: str, **facts: Any) -> None:
        """Adds facts to a question's line."""
        self._lines[question_id].update(facts)

    def drop(self, question_id: str, rule: str, reason: str) -> None:
        """Leaves a question out, by the rule that it breaks."""
        self.note(question_id, kept=False, rule=rule, reason=reason)

    def keep(self, trajectory: Trajectory) -> None:
        """Keeps a question's demonstration."""
        self.note(trajectory.question_id, kept=True, trajectory=trajectory.id, attempt=trajectory.sample + 1)

    def is_open(self, question_id: str) -> bool:
        """Whether a question has no outcome yet."""
        return "kept" not in self._lines[question_id]

    def dropped(self) -> dict[str, int]:
        """Number of questions that each rule left out, the most first."""
        return dict(Counter(line["rule"] for line in self._lines.values() if line.get("kept") is False).most_common())

    def table(self) -> str:
        """The outcomes in one line: `412 kept, 88 left out: answer 60, crop 28`."""
        kept = sum(line.get("kept") is True for line in self._lines.values())
        dropped = self.dropped()
        reasons = ", ".join(f"{rule} {count:,}" for rule, count in dropped.items())
        return f"{kept:,} kept, {sum(dropped.values()):,} left out" + (f": {reasons}" if reasons else "")

    def write(self, path: Path) -> Path:
        """Writes the lines. Returns the path."""
        lines: list[Mapping[str, Any]] = [*self._lines.values(), *self._barred]
        path.write_text("".join(f"{finite_json.dumps(line, ensure_ascii=False)}\n" for line in lines), encoding="utf-8")
        return path


def demonstrated(path: Path) -> frozenset[str]:
    """Ids of the questions whose demonstration was kept. path: of the lines that a curation wrote."""
    return frozenset(line["question_id"] for line in _read(path) if line.get("kept") is True)


def unfit(path: Path) -> dict[str, str]:
    """The rule, of those in UNFIT, for each question that breaks one. path: of the lines that a curation wrote."""
    return {line["question_id"]: line["rule"] for line in _read(path) if line.get("rule") in UNFIT}


def _read(path: Path) -> Iterator[dict[str, Any]]:
    return map(json.loads, path.read_text(encoding="utf-8").splitlines())

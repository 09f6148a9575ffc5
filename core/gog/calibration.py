"""How far a judge agrees with labelled cases: agreement by kind of answer, false Yes and false No.

A false Yes is the worse of the two, because it rewards a wrong answer. A case without a verdict is counted by itself and
enters no share: a judge error is not a wrong answer.
"""

from __future__ import annotations

import importlib.resources
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from gog import stats, validation
from gog.errors import UserError

MAX_CASES = 100_000


class Case(BaseModel):
    """A labelled case: one line of a calibration file."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    question: str
    """The question."""
    answers: tuple[str, ...] = Field(min_length=1)
    """The accepted answers."""
    answer: str
    """The answer to judge."""
    correct: bool
    """Whether a person accepts it."""
    kind: str = Field("", max_length=40)
    """Kind of answer by which agreement is listed; empty for none."""


@dataclass(frozen=True)
class Agreement:
    """How often a judge agrees with labels."""

    kind: str
    """Kind of answer; empty for all of them."""
    right: int
    """Correct answers with a verdict."""
    wrong: int
    """Wrong answers with a verdict."""
    false_yes: int
    """Wrong answers that the judge accepts."""
    false_no: int
    """Correct answers that the judge rejects."""
    undecided: int
    """Cases without a verdict."""

    @property
    def decided(self) -> int:
        """Cases with a verdict."""
        return self.right + self.wrong

    @property
    def agreed(self) -> int:
        """Cases whose verdict is the label."""
        return self.decided - self.false_yes - self.false_no

    def as_dict(self) -> dict[str, object]:
        """Counts and 95 % intervals, for JSON."""
        return {
            "kind": self.kind or "all",
            "decided": self.decided,
            "agreed": self.agreed,
            "agreement_ci95": stats.wilson(self.agreed, self.decided),
            "false_yes": self.false_yes,
            "false_yes_of": self.wrong,
            "false_yes_ci95": stats.wilson(self.false_yes, self.wrong),
            "false_no": self.false_no,
            "false_no_of": self.right,
            "false_no_ci95": stats.wilson(self.false_no, self.right),
            "undecided": self.undecided,
        }


def shipped() -> list[Case]:
    """The shipped cases: about a hundred, of all kinds, half of them correct. Some need knowledge or a model."""
    return read(_shipped_text("calibration.jsonl"), "shipped")


def near_misses() -> list[Case]:
    """The shipped near misses: over three hundred correct answers in many forms, and over nine hundred that resemble one.

    A judge without a model should decide all of them. A line of `cases.jsonl` has the right and wrong answers to a question.
    """
    rows = [json.loads(line) for line in _shipped_text("cases.jsonl").splitlines()]
    return [
        Case(question=row["question"], answers=row["answers"], answer=answer, correct=correct, kind=row["kind"])
        for row in rows
        for correct in (True, False)
        for answer in row["right" if correct else "wrong"]
    ]


def _shipped_text(name: str) -> str:
    return importlib.resources.files("gog.answers").joinpath(name).read_text("utf-8")


def load(path: Path) -> list[Case]:
    """The cases of a file. Raises UserError for a file that cannot be read or is no calibration file."""
    try:
        return read(path.read_text("utf-8"), str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot be read: {error}", where=str(path)) from None


def read(text: str, where: str) -> list[Case]:
    """The cases of a text in JSON lines.

    Args:
        text: one case per line; empty lines are skipped.
        where: name of the file, for messages.

    Raises:
        UserError: a line is not a case, or there is none, or there are too many.
    """
    lines = [(number, line) for number, line in enumerate(text.splitlines(), 1) if line.strip()]
    if not 0 < len(lines) <= MAX_CASES:
        raise UserError(f"holds {len(lines):,} cases", where=where, remedy=f"give 1 to {MAX_CASES:,}, one a line")
    cases = []
    for number, line in lines:
        try:
            cases.append(Case.model_validate(json.loads(line), strict=False))
        except (ValidationError, ValueError, RecursionError) as error:
            raise UserError(
                _reason(error),
                where=f"{where}:{number}",
                remedy='{"question": "…", "answers": ["…"], "answer": "…", "correct": true, "kind": "date"}',
            ) from None
    return cases


def _reason(error: Exception) -> str:
    if isinstance(error, ValidationError):
        field, cause = validation.first_problem(error)
        return f"{field or 'the line'}: {cause}"
    return f"not JSON: {error}"


def tally(cases: Sequence[Case], verdicts: Sequence[bool | None]) -> list[Agreement]:
    """Agreement by kind, in the order of the cases, and last that of all of them.

    Args:
        cases: the labelled cases.
        verdicts: for each case the judge's verdict; None where there is none.
    """
    pairs = list(zip(cases, verdicts, strict=True))
    kinds = [kind for kind in dict.fromkeys(case.kind for case in cases) if kind]
    return [_agreement(kind, [pair for pair in pairs if pair[0].kind == kind]) for kind in kinds] + [
        _agreement("", pairs)
    ]


def _agreement(kind: str, pairs: Sequence[tuple[Case, bool | None]]) -> Agreement:
    decided = [(case.correct, verdict) for case, verdict in pairs if verdict is not None]
    return Agreement(
        kind,
        right=sum(correct for correct, _ in decided),
        wrong=sum(not correct for correct, _ in decided),
        false_yes=sum(verdict and not correct for correct, verdict in decided),
        false_no=sum(correct and not verdict for correct, verdict in decided),
        undecided=len(pairs) - len(decided),
    )

"""Labelled cases and what is counted of a judge's verdicts on them."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path

import pytest

from gog import calibration
from gog.answers import match
from gog.calibration import Case
from gog.errors import UserError


def case(kind: str, correct: bool) -> Case:
    return Case(question="q", answers=("a",), answer="b", correct=correct, kind=kind)


def test_false_yes_and_false_no_are_counted_by_kind_and_over_all() -> None:
    cases = [case("date", True), case("date", False), case("name", False), case("", True), case("name", True)]
    rows = calibration.tally(cases, [True, True, False, False, None])
    assert [(row.kind, row.agreed, row.decided, row.false_yes, row.false_no, row.undecided) for row in rows] == [
        ("date", 1, 2, 1, 0, 0),
        ("name", 1, 1, 0, 0, 1),
        ("", 2, 4, 1, 1, 1),
    ]


def test_a_case_without_a_verdict_enters_no_share() -> None:
    (_, total) = calibration.tally([case("date", True), case("date", False)], [None, None])
    assert (total.decided, total.agreed, total.undecided) == (0, 0, 2)
    assert total.as_dict()["agreement_ci95"] == (0.0, 1.0)


def test_the_intervals_are_of_the_right_shares() -> None:
    cases = [case("x", False)] * 10 + [case("x", True)] * 4
    row = calibration.tally(cases, [True] * 5 + [False] * 5 + [True] * 4)[-1].as_dict()
    assert (row["false_yes"], row["false_yes_of"], row["false_no"], row["false_no_of"]) == (5, 10, 0, 4)
    assert row["false_yes_ci95"] == pytest.approx((0.2366, 0.7634), abs=1e-3)


def test_the_shipped_cases_are_of_many_kinds_and_about_half_are_correct() -> None:
    cases = calibration.shipped()
    assert len(cases) >= 100 and 0.4 < sum(each.correct for each in cases) / len(cases) < 0.6
    assert len(Counter(each.kind for each in cases)) >= 12
    assert len({each.model_dump_json() for each in cases}) == len(cases)


def test_the_judge_without_a_model_accepts_no_wrong_answer_of_the_shipped_cases() -> None:
    cases = calibration.shipped()
    total = calibration.tally(cases, [match.decide(each.question, each.answers, each.answer) for each in cases])[-1]
    assert (total.false_yes, total.undecided) == (0, 0) and total.agreed >= 0.8 * len(cases)


def test_the_judge_without_a_model_agrees_with_every_shipped_near_miss() -> None:
    cases = calibration.near_misses()
    total = calibration.tally(cases, [match.decide(each.question, each.answers, each.answer) for each in cases])[-1]
    assert (total.false_yes, total.false_no, total.undecided) == (0, 0, 0)
    assert total.wrong >= 900 and total.right >= 300


LINE = {"question": "q", "answers": ["a"], "answer": "b", "correct": True}


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("{", "not JSON"),
        ("[]", "valid dictionary"),
        (json.dumps({**LINE, "answers": []}), "answers: "),
        (json.dumps({**LINE, "labels": 1}), "labels: "),
        (json.dumps({name: value for name, value in LINE.items() if name != "correct"}), "correct: "),
        ("[" * 100_000, ""),
    ],
)
def test_a_line_that_is_no_case_is_named(tmp_path: Path, line: str, words: str) -> None:
    path = tmp_path / "cases.jsonl"
    path.write_text(f"{json.dumps(LINE)}\n\n{line}\n")
    with pytest.raises(UserError, match=f"{re.escape(str(path))}:3: .*{words}"):
        calibration.load(path)


def test_a_file_without_cases_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").write_text("\n")
    for name in ("empty", "absent"):
        with pytest.raises(UserError, match=name):
            calibration.load(tmp_path / name)

"""The paper's table, recomputed."""

from __future__ import annotations

import json

import pytest

from gog import benchmarks, paper_tables
from gog_console import cli


def test_exactly_the_rows_that_do_not_add_up_are_marked() -> None:
    found = {(row.policy, fault.column): fault for row in paper_tables.ROWS for fault in paper_tables.faults(row)}
    assert set(found) == {
        ("Qwen3-VL-8B-Thinking", "MMSearch"),
        ("Qwen3-VL-8B-Thinking", "mean"),
        ("GoG-2.5 RL, level 1", "mean"),
        ("GoG-3 RL, level 1", "mean"),
    }
    assert found["Qwen3-VL-8B-Thinking", "MMSearch"].possible == pytest.approx(100 * 109 / 171)
    assert found["GoG-3 RL, level 1", "mean"].possible == pytest.approx(53.89, abs=0.005)


def test_the_gain_of_level_2_is_that_of_the_scores() -> None:
    rows = {row.policy: row for row in paper_tables.ROWS}
    gains = [
        paper_tables.gain(rows[f"{family} RL, level 2"], rows[f"{family} RL, level 1"])
        for family in ("GoG-2.5", "GoG-3")
    ]
    assert gains == pytest.approx([2.76, 2.99], abs=0.005)


def test_a_score_of_another_size_is_marked() -> None:
    row = paper_tables.Printed("", "made up", 50.0, (50.03, 50.0, 50.05, 49.71, 50.2, 50.0))
    assert [fault.column for fault in paper_tables.faults(row)] == ["FVQA"]


@pytest.mark.parametrize(
    ("split", "name"),
    [("fvqa_test", "FVQA"), ("InfoSeek-2k", None), ("Info-Seek", "InfoSeek"), ("mmsearch", "MMSearch"), ("test", None)],
)
def test_a_split_is_recognised_by_its_name(split: str, name: str | None) -> None:
    assert benchmarks.named(split) == name


def test_the_command_prints_the_table_with_its_marks(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["tables", "--paper"]) == cli.COMPLETE
    out = capsys.readouterr().out
    assert out.count("63.84†") == 1 and "the scores have the mean 46.33, not 46.99" in out
    assert "GoG-2.5 +2.76" in out and "GoG-3 +2.99" in out
    assert cli.main(["tables", "--paper", "--json"]) == cli.COMPLETE
    assert len(json.loads(capsys.readouterr().out)) == len(paper_tables.ROWS)

"""The report's table of what the curation kept and left out."""

from __future__ import annotations

from datetime import UTC, datetime

from gog_console.report import curation
from gog_console.report.model import Data, Stage

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def data(**meta):
    return Data("run", NOW, stages=(Stage("curate", "curate", meta=meta),))


def test_the_table_has_a_row_for_what_is_kept_and_one_for_each_rule_the_most_first():
    text = str(curation.section(data(trajectories=60, dropped={"crop": 10, "answer": 30})))
    assert "60 of 100 questions became demonstrations" in text
    order = [text.index(words) for words in ("kept", "left out: answer", "left out: crop")]
    assert order == sorted(order) and "30.0\u202f%" in text


def test_a_curation_that_left_nothing_out_has_no_section():
    assert curation.section(data(trajectories=60, dropped={})) is None
    assert curation.section(data(trajectories=60)) is None
    assert curation.section(Data("run", NOW)) is None

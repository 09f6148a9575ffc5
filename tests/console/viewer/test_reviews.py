"""Claims about review decisions: each is on the disk before it is confirmed, none is lost, none changes another."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import support.view_builders as viewers

from gog.errors import UserError
from gog.reviews import Review
from gog_console.viewer import sources
from gog_console.viewer.reviews import Reviews


@pytest.fixture
def archive(tmp_path: Path) -> sources.Source:
    path = tmp_path / "curate.jsonl"
    path.write_text("".join(viewers.illustrated(n).model_dump_json() + "\n" for n in (1, 2, 3)))
    return sources.of_file(path)


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_each_decision_is_one_complete_line(archive, tmp_path):
    path = tmp_path / "kept" / "reviews.jsonl"
    with viewers.viewing(archive, tmp_path, reviews=path) as viewer:
        first, second, third = viewer.ids()
        viewer.decide(trajectory=first, decision="accept", note="clear")
        viewer.decide(trajectory=second, decision="reject")
        viewer.decide(trajectory=third, decision="fix", box=[1, 2, 30.5, 40])
        output = lines(path)
    assert [(line["trajectory"], line["decision"]) for line in output] == [
        (first, "accept"), (second, "reject"), (third, "fix"),
    ]  # fmt: skip
    assert output[0]["note"] == "clear" and output[2]["box"] == [1, 2, 30.5, 40]
    assert all(
        line["time"] == "2026-03-14T09:26:53+00:00" and line["question_id"] and line["checkpoint"] for line in output
    )


def test_decisions_survive_a_restart_of_the_viewer(archive, tmp_path):
    path = tmp_path / "reviews.jsonl"
    with viewers.viewing(archive, tmp_path, reviews=path) as viewer:
        first, second, third = viewer.ids()
        viewer.decide(trajectory=first, decision="accept")
        viewer.decide(trajectory=first, decision="reject", note="on second thought")
        viewer.decide(trajectory=second, decision="accept")
        viewer.decide(trajectory=second, decision="undo")
    with viewers.viewing(archive, tmp_path, reviews=path) as viewer:
        assert viewer.json(f"/api/trajectory?id={first}")["review"]["decision"] == "reject"
        assert viewer.ids("review=reject") == [first] and viewer.ids("review=open") == [second, third]
        assert [row["decision"] for row in viewer.json("/api/list")["rows"]] == ["reject", None, None]
    assert len(lines(path)) == 4  # what was decided before stays on record


def test_a_note_changes_no_decision(tmp_path):
    kept = Reviews(tmp_path / "r", lambda: viewers.NOW)
    kept.add(Review(trajectory="t", decision="fix", box=(0, 0, 4, 4)))
    now = kept.add(Review(trajectory="t", decision="note", note="odd"))
    assert now and (now.decision, now.box, now.note) == ("fix", (0, 0, 4, 4), "odd")


def test_an_incomplete_last_line_is_kept_and_the_next_starts_a_new_line(archive, tmp_path):
    path = tmp_path / "reviews.jsonl"
    path.write_text('{"trajectory":"a","decision":"accept"}\n{"trajectory":"b","deci')
    with viewers.viewing(archive, tmp_path, reviews=path) as viewer:
        assert any("damaged" in problem["what"] for problem in viewer.json("/api/run")["problems"])
        viewer.decide(trajectory=viewer.ids()[0], decision="accept")
    assert path.read_text().splitlines()[1] == '{"trajectory":"b","deci'
    assert json.loads(path.read_text().splitlines()[2])["decision"] == "accept"


@pytest.mark.parametrize(
    "fields",
    [
        {"decision": "maybe"}, {"decision": "fix"}, {"decision": "fix", "box": [5, 5, 5, 9]}, {"decision": "note"},
        {"decision": "fix", "box": [-1, 0, 5, 5]}, {"decision": "accept", "note": "x" * 5000}, {"decision": "accept", "by": "me"},
    ],
)  # fmt: skip
def test_an_invalid_decision_is_refused_and_not_written(archive, tmp_path, fields):
    path = tmp_path / "reviews.jsonl"
    with viewers.viewing(archive, tmp_path, reviews=path) as viewer:
        assert viewer.decide(trajectory=viewer.ids()[0], **fields).status == 400
        assert viewer.decide(trajectory="absent", decision="accept").status == 404
    assert path.read_bytes() == b""


def test_a_failed_write_is_reported_and_decides_nothing(archive, tmp_path, monkeypatch):
    with viewers.viewing(archive, tmp_path, reviews=tmp_path / "r") as viewer:

        def full(line: bytes) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(viewer.server.api.reviews, "_append", full)
        reply = viewer.decide(trajectory=viewer.ids()[0], decision="accept")
        assert reply.status == 507 and b"full" in reply.body and viewer.ids("review=accept") == []


def test_a_decision_is_flushed_to_disk_before_it_is_confirmed(tmp_path, monkeypatch):
    path, flushed = tmp_path / "r", []
    monkeypatch.setattr(os, "fsync", lambda number: flushed.append(path.read_bytes()))
    Reviews(path, lambda: viewers.NOW).add(Review(trajectory="t", decision="accept"))
    assert [json.loads(line)["decision"] for line in flushed] == ["accept"]


def test_reviews_in_a_folder_use_the_default_file_name(tmp_path):
    assert Reviews(tmp_path, lambda: viewers.NOW).path == tmp_path / "reviews.jsonl"
    with pytest.raises(UserError):
        Reviews(tmp_path / "reviews.jsonl" / "x", lambda: viewers.NOW)


def test_line_separators_in_a_note_do_not_split_its_line(tmp_path):
    kept = Reviews(tmp_path / "r", lambda: viewers.NOW)
    kept.add(Review(trajectory="t", decision="accept", note="one\u2028two\nthree\x1b"))
    assert len((tmp_path / "r").read_text().splitlines()) == 1
    assert Reviews(tmp_path / "r", lambda: viewers.NOW).latest["t"].note == "one\u2028two\nthree\x1b"

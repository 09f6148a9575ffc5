"""Review decisions of the viewer, read back before training."""

from __future__ import annotations

import json

import pytest
from support.builders import make_trajectory, make_turn

from gog import reviews
from gog.errors import UserError
from gog.trajectory import Candidate, Observation
from gog_console.report import viewer_payload
from gog_console.report.model import Sample


def write(path, *lines):
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def demonstration(**changes):
    box = (10.0, 10.0, 30.0, 30.0)
    seen = Observation(text="1", tool="grounding", candidates=(Candidate(number=1, box=box, score=0.9),))
    turns = (make_turn("ground", observation=seen), make_turn("gaze", selected=(1,)), make_turn("answer"))
    given = {"id": "teacher-q1", "question_id": "q1", "policy": "teacher", "image": "ab", **changes}
    return make_trajectory(*turns, **given)


def refusal(*lines, trajectory=None):
    return reviews.Decisions([reviews.Review(**line) for line in lines]).refusal(trajectory or demonstration())


def named(trajectory, **decision):
    """A decision as the viewer writes it."""
    name = viewer_payload.identifier(Sample(trajectory, "curate", "curate", 1))
    return {"trajectory": name, "question_id": trajectory.question_id, "image": trajectory.image, **decision}


def test_a_rejected_demonstration_is_refused_with_the_reviewers_note():
    assert refusal(named(demonstration(), decision="reject", note="blurred")) == "rejected in review: blurred"
    assert refusal({"trajectory": "teacher-q1", "decision": "reject"}) == "rejected in review"
    assert refusal(named(demonstration(), decision="accept")) == ""


@pytest.mark.parametrize(("box", "refused"), [((10, 10, 30, 28), False), ((50, 50, 70, 70), True)])
def test_a_fixed_box_refuses_a_demonstration_that_gazed_elsewhere(box, refused):
    assert bool(refusal(named(demonstration(), decision="fix", box=box))) is refused


@pytest.mark.parametrize("changes", [{"image": "cd"}, {"question_id": "q2"}, {"policy": "grpo"}, {"sample": 3}])
def test_a_decision_about_another_trajectory_says_nothing_about_this_one(changes):
    assert refusal(named(demonstration(**changes), decision="reject")) == ""


def test_a_name_that_the_viewer_cut_off_is_recognised_by_question_and_image():
    long = demonstration(question_id="q" * 150)
    assert len(named(long)["trajectory"]) == reviews.NAME
    assert refusal(named(long, decision="reject"), trajectory=long) != ""


def test_the_last_line_holds_and_undo_takes_a_decision_back(tmp_path):
    path = write(
        tmp_path / "reviews.jsonl",
        {"trajectory": "a", "decision": "reject"},
        {"trajectory": "a", "decision": "note", "note": "dark"},
        {"trajectory": "b", "decision": "reject"},
        {"trajectory": "b", "decision": "undo"},
    )
    found = reviews.read(path)
    assert list(found) == ["a"] and (found["a"].decision, found["a"].note) == ("reject", "dark")


def test_a_line_that_cannot_be_read_stops_training_with_file_and_line(tmp_path):
    path = write(
        tmp_path / "reviews.jsonl", {"trajectory": "a", "decision": "accept"}, {"trajectory": "a", "decision": "x"}
    )
    with pytest.raises(UserError, match=r"reviews\.jsonl:2: not a review decision: decision"):
        reviews.read(path)
    with pytest.raises(UserError, match="cannot read"):
        reviews.read(tmp_path / "absent.jsonl")

"""The row of curate in `gog status`: what is kept, and what the rules left out."""

from __future__ import annotations

from gog_console.status import phrases


def test_the_row_names_the_rules_that_left_questions_out_with_their_counts():
    metrics = {"trajectories": 1200, "behaviour": {"none": 0.43}, "dropped": {"answer": 130, "crop": 82}}
    assert phrases.PHRASES["curate"](metrics)[-1] == "212 left out: answer 130, crop 82"


def test_a_curation_that_left_nothing_out_does_not_mention_it():
    assert phrases.PHRASES["curate"]({"trajectories": 3, "dropped": {}}) == ["3 trajectories"]

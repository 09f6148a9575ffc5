"""Rules that decide which demonstrations are worth learning from: one right and one wrong trajectory for each."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.builders import make_trajectory, make_turn

from gog import curation, spec
from gog.trajectory import Candidate, Observation, Reward

RIGHT = (10.0, 10.0, 30.0, 30.0)
WRONG = (60.0, 60.0, 90.0, 90.0)


def offered(*boxes):
    candidates = tuple(Candidate(number=n, box=box, score=0.9) for n, box in enumerate(boxes, 1))
    return make_turn("ground", observation=Observation(text="1 2", tool="grounding", candidates=candidates))


def gazed(*numbers, text="Ada Lovelace", thought="#"):
    seen = Observation(text=text, tool="imageSearch")
    written = f"<think>{thought}</think><img_search>#{numbers[0]}</img_search>"
    return make_turn("gaze", text=written, selected=numbers, observation=seen)


def read(text, thought="x"):
    written = f"<think>{thought}</think><text_search>{thought}</text_search>"
    return make_turn("text", text=written, observation=Observation(text=text, tool="textSearch"))


def answered(*turns, answer="Ada Lovelace", **changes):
    last = make_turn("answer", text=f"<think>so</think><answer>{answer}</answer>", argument=answer or "")
    given = {"question": "Who is it?", "answers": ("Ada Lovelace", "A. L."), "answer": answer, "region": RIGHT}
    return make_trajectory(*turns, last, **{**given, "stop": "answer", **changes})


@pytest.mark.parametrize(
    ("turns", "right"),
    [
        ((offered(RIGHT, WRONG), gazed(1)), True),
        ((offered(RIGHT, WRONG), gazed(2)), False),
        ((offered(RIGHT, WRONG), gazed(2), gazed(1)), True),
        ((offered(RIGHT, WRONG), gazed(1), gazed(2)), False),
        ((offered(WRONG), gazed(1)), False),
        ((offered(RIGHT, WRONG), gazed(1, 2)), True),
        ((read("Ada Lovelace"),), True),
    ],
)
def test_the_last_gaze_decides_about_the_crop(turns, right):
    assert (curation.wrong_crop(answered(*turns)) == "") is right


def test_without_a_mark_in_the_dataset_no_crop_is_wrong():
    assert curation.wrong_crop(answered(offered(RIGHT, WRONG), gazed(2), region=None)) == ""


def test_an_answer_is_kept_only_with_the_judges_yes():
    kept = {accuracy: curation.wrong_answer(answered(reward=reward(accuracy))) for accuracy in (1.0, 0.0, None)}
    assert kept == {1.0: "", 0.0: "the judge found the answer wrong", None: "the judge gave no verdict"}
    assert curation.wrong_answer(answered(reward=None)) == "the judge gave no verdict"


def reward(accuracy):
    return Reward(accuracy=accuracy, format=1.0, total=accuracy)


def test_a_demonstration_ends_with_an_answer_and_has_no_malformed_turn():
    assert curation.malformed(answered()) == ""
    assert curation.malformed(answered(stop="max_calls", answer=None)) == "ends without an answer (max_calls)"
    wrong = make_turn("text", well_formed=False, error="two actions")
    assert curation.malformed(answered(wrong)) == "a turn is malformed: two actions"


@pytest.mark.parametrize(
    ("turns", "changes", "leaks"),
    [
        ((read("It is Ada Lovelace.", thought="who is it"),), {}, False),
        ((read("It is Ada Lovelace.", thought="Ada Lovelace, surely"),), {}, True),
        ((read("It is Ada Lovelace."), read("…", thought="Ada Lovelace born")), {}, False),
        ((read("nothing"), read("Ada Lovelace", thought="ADA-LOVELACE")), {}, True),
        ((), {}, False),
        ((read("yes", thought="Is she Ada Lovelace"),), {"question": "Is Ada Lovelace she?"}, False),
        ((read("x", thought="it is 12"),), {"answers": ("12",)}, False),
    ],
)
def test_an_answer_that_the_teacher_writes_before_a_result_shows_it_is_a_leak(turns, changes, leaks):
    assert bool(curation.leaked(answered(*turns, **changes))) is leaks


@pytest.mark.parametrize(
    ("turns", "answer", "supported"),
    [
        ((read("by ada lovelace."),), "Ada", True),
        ((read("by A. L."),), "Ada Lovelace", True),
        ((read("by Bob"),), "Ada Lovelace", False),
        ((read("nothing"), read("Ada Lovelace")), "Ada Lovelace", True),
        ((), "Ada Lovelace", True),
        ((read("作者是阿达。"),), "阿达", True),
    ],
)
def test_a_search_must_show_the_answer_that_it_is_to_support(turns, answer, supported):
    assert (curation.unsupported(answered(*turns, answer=answer)) == "") is supported


def test_the_first_broken_rule_is_named_and_rules_that_are_off_are_not_checked():
    wrong = answered(read("Bob"), stop="max_calls", reward=reward(0.0))
    assert curation.fault(wrong, ["answer", "evidence", "format"])[0] == "format"
    assert curation.fault(wrong, ["evidence"]) == ("evidence", "no result contains the answer")
    assert curation.fault(wrong, []) == ("", "") == curation.fault(answered(reward=reward(1.0)), list(curation.RULES))


def test_verify_accepts_exactly_the_rules_there_are_and_all_are_on_by_default():
    assert set(spec.CurateSettings().verify) == {*curation.RULES, *curation.POOL_RULES}
    with pytest.raises(ValueError, match="verify"):
        spec.CurateSettings(verify=("luck",))


@given(st.integers(0, 300), st.integers(0, 300), st.floats(0.05, 0.95))
def test_a_balance_leaves_out_of_one_side_only_and_meets_the_share_as_well_as_whole_numbers_can(some, others, share):
    searching, plain = [f"s{n}" for n in range(some)], [f"p{n}" for n in range(others)]
    left = set(curation.surplus(searching, plain, share))
    kept_s, kept_p = set(searching) - left, set(plain) - left
    assert not left or not (left & set(searching)) or not (left & set(plain))
    assert (bool(kept_s), bool(kept_p)) == (bool(some), bool(others))
    if some and others and min(len(kept_s), len(kept_p)) > 1:
        wanted = share * (len(kept_s) + len(kept_p))
        assert abs(len(kept_s) - wanted) <= 1


def test_the_papers_share_of_3249_searching_demonstrations_takes_2501_others():
    searching, others = [f"s{n}" for n in range(3249)], [f"p{n}" for n in range(6000)]
    assert 6000 - len(curation.surplus(searching, others, 0.565)) == pytest.approx(2501, abs=1)

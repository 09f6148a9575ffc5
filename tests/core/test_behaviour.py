"""How a trajectory searched, and whether it selected the right candidate."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.builders import make_trajectory, make_turn

from gog import behaviour
from gog.trajectory import Candidate, Observation, Turn

RIGHT, WRONG, FAR = (10, 10, 20, 20), (30, 10, 40, 20), (13, 13, 26, 26)
searches = st.lists(st.sampled_from(["glance", "ground", "gaze", "text"]), max_size=5)


@given(st.lists(searches, min_size=1, max_size=6))
def test_every_trajectory_is_none_single_or_mixed_and_shares_sum_to_one(episodes: list[list[str]]) -> None:
    played = [make_trajectory(*map(make_turn, actions), make_turn("answer")) for actions in episodes]
    for actions, trajectory in zip(episodes, played):
        ways = set(actions) - {"ground"}
        assert behaviour.classify(trajectory) == ("none", "single", "mixed", "mixed")[len(ways)]
    shares = behaviour.shares(played)
    assert tuple(shares) == behaviour.CLASSES
    assert sum(shares.values()) == pytest.approx(1)


def test_the_shares_of_nothing_are_zero() -> None:
    assert behaviour.shares([]) == {"none": 0.0, "single": 0.0, "mixed": 0.0}


@pytest.mark.parametrize("action", ["glance", "gaze", "text"])
def test_a_search_that_a_cap_or_a_wrong_number_prevented_does_not_count(action: str) -> None:
    for observation in (None, Observation(text="There is no candidate with this number.")):
        turn = make_turn(action, observation=observation)
        assert behaviour.classify(make_trajectory(turn, make_turn("answer"))) == "none"


@pytest.mark.parametrize(
    ("actions", "expected"),
    [
        (["glance", "gaze"], "mixed"),
        (["glance", "glance"], "single"),
        (["gaze", "gaze"], "single"),
        (["gaze", "text"], "mixed"),
    ],
)
def test_a_glance_and_a_gaze_are_two_ways_to_search(actions: list[str], expected: str) -> None:
    assert behaviour.classify(make_trajectory(*map(make_turn, actions), make_turn("answer"))) == expected


def test_a_candidate_searched_unseen_is_a_gaze() -> None:
    unseen = make_turn("ground", selected=(1,), observation=Observation(text="seen", tool="imageSearch", calls=2))
    assert behaviour.classify(make_trajectory(unseen, make_turn("gaze"), make_turn("answer"))) == "single"
    assert behaviour.classify(make_trajectory(unseen, make_turn("glance"), make_turn("answer"))) == "mixed"


def test_grounding_that_searched_the_image_itself_is_a_search() -> None:
    turn = make_turn("ground", observation=Observation(text="seen", tool="imageSearch"))
    assert behaviour.classify(make_trajectory(turn, make_turn("answer"))) == "single"


def offer(*boxes: tuple[float, float, float, float]) -> Turn:
    offered = tuple(Candidate(number=number, box=box, score=0.5) for number, box in enumerate(boxes, 1))
    return make_turn("ground", observation=Observation(text="seen", tool="grounding", candidates=offered))


@pytest.mark.parametrize(
    ("turns", "right"),
    [
        ([offer(WRONG, RIGHT), make_turn("gaze", selected=(2,))], True),
        ([offer(WRONG, RIGHT), make_turn("gaze", selected=(1,))], False),
        ([offer(WRONG, RIGHT), make_turn("gaze", selected=(1, 2))], False),
        ([offer(WRONG, RIGHT), make_turn("gaze", selected=(7,))], False),
        ([offer(WRONG, FAR), make_turn("gaze", selected=(2,))], False),
        ([offer(RIGHT), make_turn("gaze", selected=(1,))], None),
        ([offer(WRONG, RIGHT), make_turn("answer")], None),
        ([make_turn("gaze", selected=(1,))], None),
        (
            [offer(WRONG), make_turn("gaze", selected=(1,)), offer(WRONG, RIGHT), make_turn("gaze", selected=(2,))],
            True,
        ),
    ],
    ids=["right", "wrong", "first counts", "never offered", "a third", "one only", "no gaze", "none offered", "later"],
)
def test_the_first_choice_is_correct_if_it_covers_what_the_question_is_about(
    turns: list[Turn], right: bool | None
) -> None:
    assert behaviour.chose_right(make_trajectory(*turns, region=RIGHT)) is right


def test_without_a_marked_region_no_choice_is_judged() -> None:
    turns = [offer(WRONG, RIGHT), make_turn("gaze", selected=(2,))]
    assert behaviour.chose_right(make_trajectory(*turns)) is None

"""Numbers of images that were shown: earlier candidates, a look inside one, images that searches returned."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest
from support.builders import (
    FakeTools,
    answer,
    gaze,
    ground,
    make_candidate,
    make_crop,
    make_episode,
    make_grounding,
    make_image,
    play,
    think,
)
from support.loopback import Provider, detections, responds, with_toolbox

from gog import actions, behaviour, prompts, tool_actions, tool_api
from gog.images import Image
from gog.journal.chains import Found
from gog.tool_actions import Shown, ToolActions
from gog.tool_client import Toolbox
from gog.tool_types import Grounding


def inside(number: int, expression: str = "left wheel") -> str:
    return think(f"<img_search>#{number}: {expression}</img_search>")


def numbers(turn) -> list[int]:
    return [each.number for each in turn.observation.candidates]


def test_candidates_keep_their_numbers_when_more_are_shown() -> None:
    trajectory = play(make_episode([ground(), ground("blue ring"), answer()], FakeTools(make_grounding(3))))
    assert [numbers(turn) for turn in trajectory.turns[:2]] == [[1, 2, 3], [4, 5, 6]]
    assert "#4" in trajectory.turns[1].observation.text


def test_the_tiny_models_candidates_are_numbered_anew() -> None:
    toolbox = FakeTools(make_grounding(2))
    trajectory = play(make_episode([ground(), ground("blue ring"), gaze(3), answer()], toolbox, style="terse"))
    assert [numbers(turn) for turn in trajectory.turns[:2]] == [[1, 2], [1, 2]]
    assert trajectory.turns[2].error and not toolbox.asked("imageSearch")


def test_an_earlier_candidate_can_be_searched_after_a_wrong_one() -> None:
    toolbox = FakeTools(make_grounding(3))
    turns = [ground(), gaze(1), ground("blue ring"), gaze(2, 6), answer()]
    trajectory = play(make_episode(turns, toolbox))
    assert trajectory.well_formed
    assert toolbox.asked("imageSearch") == [make_crop(1).hash, make_crop(2).hash, make_crop(3).hash]


def test_an_expression_can_be_looked_for_inside_a_candidate() -> None:
    toolbox = FakeTools(make_grounding(3))
    episode = make_episode([ground(), inside(2), gaze(5), answer()], toolbox)
    trajectory = play(episode)
    assert toolbox.looked == [(episode.image.hash, None), (episode.image.hash, make_candidate(2).box)]
    assert toolbox.calls[1] == ("grounding", "left wheel")
    turn = trajectory.turns[1]
    assert (turn.action, turn.argument, turn.within, numbers(turn)) == ("ground", "left wheel", 2, [4, 5, 6])
    assert all((each.within, each.image) == (2, "") for each in turn.observation.candidates)
    assert trajectory.well_formed and trajectory.tool_calls == 3


def test_looking_inside_a_candidate_searches_none() -> None:
    toolbox = FakeTools(make_grounding(3))
    play(make_episode([ground(), inside(2), answer()], toolbox))
    assert not toolbox.asked("imageSearch")


@pytest.mark.parametrize("turn", [inside(4), inside(999), gaze(4), gaze(1, 4)])
def test_a_number_that_was_never_shown_is_a_policy_error_that_names_the_highest(turn: str) -> None:
    toolbox = FakeTools(make_grounding(3))
    episode = make_episode([ground(), turn, answer()], toolbox)
    trajectory = play(episode)
    assert trajectory.turns[1].error and not trajectory.turns[1].well_formed
    assert "The highest is #3." in episode.session.observed[1]
    assert len(toolbox.calls) == 1 and not trajectory.failures
    assert not trajectory.well_formed


def test_when_nothing_is_found_the_model_reads_what_it_can_do() -> None:
    toolbox = FakeTools(make_grounding(1))
    episode = make_episode([ground(), inside(1), answer()], toolbox)
    toolbox.grounding = Grounding()
    trajectory = play(episode)
    seen = episode.session.observed
    assert "the image" in seen[0] and "#1" in prompts.candidates((), style="full", within=1)
    assert all("other words" in text and actions.WHOLE_IMAGE in text for text in seen[:1])
    assert not trajectory.failures and trajectory.turns[0].well_formed


def test_candidates_that_did_not_fit_take_no_numbers() -> None:
    whole = play(make_episode([ground(), answer()], FakeTools(make_grounding(4)), image_tokens=50))
    length = len(whole.segments[2].tokens)
    limit = sum(len(each.tokens) for each in whole.segments[:2]) + length - 60
    trajectory = play(
        make_episode([ground(), gaze(4), answer()], FakeTools(make_grounding(4)), image_tokens=50, limit=limit)
    )
    shown = numbers(trajectory.turns[0]) if trajectory.turns[0].observation else []
    assert 4 not in shown


RETURNED = Image(np.full((50, 60, 3), 9, np.uint8))


def tools_that_show(toolbox: FakeTools) -> ToolActions:
    """The tools of an episode to which a search returned RETURNED, and that was shown two candidates before it."""
    acting = ToolActions(make_image(), toolbox, "select", "full")
    found = make_grounding(2)
    acting.offer(found.candidates, found.crops, {})
    acting.show([Shown(RETURNED, RETURNED)])
    return acting


def test_an_image_that_a_search_returned_can_be_searched() -> None:
    toolbox = FakeTools()
    outcome = asyncio.run(tools_that_show(toolbox).run(actions.Gaze((3, 1))))
    assert toolbox.asked("imageSearch") == [RETURNED.hash, make_crop(1).hash] and not outcome.error


def test_candidates_inside_a_returned_image_name_it_and_are_cut_from_it() -> None:
    toolbox = FakeTools(make_grounding(2))
    acting = tools_that_show(toolbox)
    outcome = asyncio.run(acting.run(actions.Ground("wheel", 3)))
    assert toolbox.looked == [(RETURNED.hash, None)]
    assert [(each.number, each.image, each.within) for each in outcome.observation.candidates] == [
        (4, RETURNED.hash, 3),
        (5, RETURNED.hash, 3),
    ]
    acting.offer(outcome.observation.candidates, outcome.images, {RETURNED.hash: RETURNED})
    asyncio.run(acting.run(actions.Ground("spoke", 5)))
    assert toolbox.looked[1] == (RETURNED.hash, make_candidate(2).box)


def test_a_restored_episode_knows_all_numbers() -> None:
    script = [ground(), inside(2), gaze(5), answer()]
    first = make_episode(script, FakeTools(make_grounding(3)))
    played = play(first)
    toolbox = FakeTools(make_grounding(3))
    later = make_episode(script[2:], toolbox)
    found = Found(head="x", turns=played.turns[:2], segments=played.segments[:5])
    later.restore(found, {**first.images, **{make_crop(each).hash: make_crop(each) for each in (1, 2, 3)}})
    assert sorted(later.actions.shown) == [1, 2, 3, 4, 5, 6]
    for number, each in first.actions.shown.items():
        other = later.actions.shown[number]
        assert (other.image.hash, other.source.hash, other.box) == (each.image.hash, each.source.hash, each.box)
    again = asyncio.run(later.actions.run(actions.Gaze((5,))))
    assert not again.error and toolbox.asked("imageSearch") == [make_crop(2).hash]


def test_the_choice_of_an_earlier_candidate_is_judged_by_its_own_box() -> None:
    toolbox = FakeTools(make_grounding(3))
    trajectory = play(make_episode([ground(), ground("other"), gaze(2), answer()], toolbox))
    assert behaviour.chose_right(trajectory.model_copy(update={"region": make_candidate(2).box})) is True
    assert behaviour.chose_right(trajectory.model_copy(update={"region": make_candidate(3).box})) is False


def test_a_part_of_a_returned_image_is_never_what_the_question_is_about() -> None:
    trajectory = play(make_episode([ground(), gaze(2), answer()], FakeTools(make_grounding(3))))
    first = trajectory.turns[0]
    elsewhere = tuple(each.model_copy(update={"image": "f" * 32}) for each in first.observation.candidates)
    moved = first.model_copy(update={"observation": first.observation.model_copy(update={"candidates": elsewhere})})
    changed = trajectory.model_copy(update={"turns": (moved, *trajectory.turns[1:]), "region": make_candidate(2).box})
    assert behaviour.chose_right(changed) is False


@pytest.mark.parametrize(
    ("argument", "expected"),
    [
        ("#2: left wheel", actions.Ground("left wheel", 2)),
        ("# 2 :left wheel", actions.Ground("left wheel", 2)),
        ("#2: ratio 3:4", actions.Ground("ratio 3:4", 2)),
        ("wheel: left", actions.Ground("wheel: left")),
    ],
)
def test_a_number_before_a_colon_names_the_image_to_look_in(argument: str, expected: actions.Action) -> None:
    parsed = actions.parse_turn(think(f"<img_search>{argument}</img_search>"))
    assert parsed.action == expected and parsed.well_formed


@pytest.mark.parametrize("argument", ["#2:", "#0: wheel", "#2 wheel", "#2: #3", "#1,#2: wheel", "#1234: wheel", "#: x"])
def test_another_mixture_of_numbers_and_words_is_a_policy_error(argument: str) -> None:
    parsed = actions.parse_turn(think(f"<img_search>{argument}</img_search>"))
    assert parsed.action is None and parsed.error == "a selection mixed with words"


def test_the_instructions_name_a_look_inside_only_where_there_is_a_choice() -> None:
    tools = tool_actions.SEARCH_TOOLS
    assert "#N: EXPRESSION" in prompts.instructions(tools, "select")
    assert "#N" not in prompts.instructions(tools, "direct") + prompts.instructions(tools, "off")


def test_a_part_of_an_image_is_sent_and_its_boxes_come_back_in_pixels_of_the_image() -> None:
    image = make_image(3)
    region = (10.2, 8.7, 30.0, 25.0)

    async def use(tools: Toolbox, provider: Provider) -> None:
        found = (await tools.ground(image, "wheel", region)).unwrap()
        (sent,) = provider.requests["grounding"][0]["instances"]
        part = tool_api.decode_image(sent["image"])
        assert np.array_equal(part.pixels, image.pixels[6:27, 8:32])  # two pixels more on each side
        assert [each.box for each in found.candidates] == [(10, 9, 20, 19), (8, 6, 32, 27)]
        assert np.array_equal(found.crops[0].pixels, image.pixels[7:21, 8:22])
        again = await tools.ground(image, "wheel", region)
        assert again.cached

    boxes = detections((2, 3, 12, 13), (-5, -5, 90, 90))
    with_toolbox({"grounding": [responds(boxes)]}, use)

"""The turn grammar: which action a turn holds, and whether it is well formed."""

from __future__ import annotations

from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import builders
from support.builders import make_trajectory, make_turn, think

from gog import actions, rewards

ONE_ACTION = {
    builders.GLANCE: actions.Glance(),
    builders.ground("left lion"): actions.Ground("left lion"),
    builders.gaze(2): actions.Gaze((2,)),
    builders.gaze(1, 3): actions.Gaze((1, 3)),
    builders.text_search("who won?"): actions.TextSearch("who won?"),
    builders.answer("42"): actions.Answer("42"),
}
MALFORMED = {
    "missing reasoning": "<answer>42</answer>",
    "empty reasoning": "<think></think><answer>42</answer>",
    "blank reasoning": "<think> \n\t</think><answer>42</answer>",
    "invisible reasoning": "<think>\u200b\u00a0\ufeff</think><answer>42</answer>",
    "reasoning of tags only": "<think><think></think><answer>42</answer>",
    "candidate 0": think("<img_search>#0</img_search>"),
    "candidate 0 among others": think("<img_search>#2,#0</img_search>"),
    "two actions": think("<text_search>a</text_search><answer>42</answer>"),
    "the same action twice": think("<answer>42</answer><answer>42</answer>"),
    "an action inside the reasoning": "<think><text_search>a</text_search></think><answer>42</answer>",
    "text after the answer": think("<answer>42</answer> I am sure."),
    "text before the action": think("So: <answer>42</answer>"),
    "text before the reasoning": "Well, " + builders.answer("42"),
    "reasoning never closed": "<think>because<answer>42</answer>",
    "reasoning after the action": "<answer>42</answer><think>because</think>",
}
FRAGMENTS = [
    *actions.CONTROL_TAGS,
    "<reason>",
    "</reason>",
    "#1",
    "#2,#3",
    "#",
    "#٣",
    "ring",
    " ",
    "\n",
    "<",
    ">",
    "\0",
]
turns = st.one_of(st.text(), st.lists(st.sampled_from(FRAGMENTS), max_size=12).map("".join))
visible = st.characters(exclude_characters="<>#", exclude_categories=["Cs", "Cc", "Cf", "Z"])
words = visible | st.tuples(
    visible, st.text(st.characters(exclude_characters="<>#", exclude_categories=["Cs"])), visible
).map("".join)


@pytest.mark.parametrize("text", ONE_ACTION)
def test_a_turn_is_reasoning_and_one_action_that_closes_it(text: str) -> None:
    parsed = actions.parse_turn(text)
    assert (parsed.action, parsed.reasoning, parsed.well_formed) == (ONE_ACTION[text], "because", True)


@pytest.mark.parametrize("text", ONE_ACTION)
def test_every_action_ends_where_generation_stops(text: str) -> None:
    assert text.endswith(actions.CLOSING_TAGS)
    assert sum(text.count(tag) for tag in actions.CLOSING_TAGS) == 1


@pytest.mark.parametrize("fault", MALFORMED)
def test_a_malformed_turn_makes_the_format_reward_0(fault: str) -> None:
    parsed = actions.parse_turn(MALFORMED[fault])
    assert parsed.error
    turn = make_turn("answer", well_formed=parsed.well_formed)
    assert rewards.reward(1.0, make_trajectory(turn).well_formed).format == 0.0


@pytest.mark.parametrize("fault", MALFORMED)
def test_a_malformed_turn_is_still_acted_on(fault: str) -> None:
    assert actions.parse_turn(MALFORMED[fault]).action is not None


def test_reasoning_may_be_made_optional_but_not_actions_inside_it() -> None:
    assert actions.parse_turn("<answer>42</answer>", reasoning="optional").well_formed
    assert not actions.parse_turn(MALFORMED["an action inside the reasoning"], reasoning="optional").well_formed


def test_reasoning_that_is_optional_may_be_empty() -> None:
    assert actions.parse_turn("<think></think><answer>42</answer>", reasoning="optional").well_formed


@pytest.mark.parametrize(
    "text",
    [
        "<think>a</think><information>the answer is 42</information><answer>42</answer>",
        "<think>a</think></information><answer>42</answer>",
        "<think><information>42</information></think><answer>42</answer>",
        "<think>a</think>< Information >42</ INFORMATION><answer>42</answer>",
        "<information>42</information>",
    ],
)
@pytest.mark.parametrize("reasoning", ["required", "optional"])
def test_a_turn_that_writes_an_observation_is_not_acted_on(
    text: str, reasoning: Literal["required", "optional"]
) -> None:
    parsed = actions.parse_turn(text, reasoning=reasoning)
    assert (parsed.action, parsed.well_formed) == (None, False)
    assert parsed.error == "an observation written by the model"


def test_reasoning_in_reason_tags_counts_as_reasoning() -> None:
    parsed = actions.parse_turn("<reason>two rings</reason><answer>42</answer>")
    assert parsed.well_formed and parsed.reasoning == "two rings"


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("", "no complete action"),
        (think("I know: 42"), "no complete action"),
        (think("<answer>42"), "no complete action"),
        (think("<answer>42</text_search>"), "no complete action"),
        (think("<Answer>42</Answer>"), "no complete action"),
        (think("<answer> \n</answer>"), "empty <answer>"),
        (think("<text_search>\u200b</text_search>"), "empty <text_search>"),
        (think("<img_search></img_search>"), "empty <img_search>"),
        (think("<answer><think>no</think>42</answer>"), "a tag inside <answer>"),
        (think("<text_search><img></text_search>"), "<img> inside <text_search>"),
        (think("<img_search><img> of a ring</img_search>"), "<img> among other words"),
        (think("<img_search>#1 or #2</img_search>"), "a selection mixed with words"),
        (think("<img_search>#1,#2,#3,#4,#5,#6</img_search>"), "more than 5 candidates selected"),
    ],
)
def test_a_turn_without_an_action_reports_why(text: str, error: str) -> None:
    parsed = actions.parse_turn(text)
    assert (parsed.action, parsed.well_formed, parsed.error) == (None, False, error)


@pytest.mark.parametrize(
    ("selection", "numbers"), [("#2", (2,)), (" # 2 ", (2,)), ("#3, #1", (3, 1)), ("#1,#1", (1,)), ("#0", (0,))]
)
def test_a_selection_keeps_its_order_and_names_each_candidate_once(selection: str, numbers: tuple[int, ...]) -> None:
    assert actions.parse_turn(think(f"<img_search>{selection}</img_search>")).action == actions.Gaze(numbers)


@given(turns)
def test_parsing_never_raises(text: str) -> None:
    for parsed in (actions.parse_turn(text), actions.parse_turn(text, reasoning="optional")):
        assert not parsed.well_formed or (parsed.action is not None and not parsed.error)
        assert parsed.well_formed or parsed.error


@given(turns)
def test_a_well_formed_turn_holds_one_closing_tag_and_ends_with_it(text: str) -> None:
    if actions.parse_turn(text).well_formed:
        assert sum(text.count(tag) for tag in actions.CLOSING_TAGS) == 1
        assert text.rstrip().endswith(actions.CLOSING_TAGS)


@given(words)
def test_an_argument_is_parsed_as_it_was_written(argument: str) -> None:
    assert actions.parse_turn(builders.ground(argument)).action == actions.Ground(argument)
    assert actions.parse_turn(builders.text_search(argument)).action == actions.TextSearch(argument)
    assert actions.parse_turn(builders.answer(argument)).action == actions.Answer(argument)

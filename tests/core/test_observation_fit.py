"""Observations in the room that a conversation has left: whole, truncated, or not at all."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.builders import FakeSession, make_grounding, run

from gog import prompts
from gog.observation_fit import Fitted, Fitter
from gog.trajectory import Observation, Segment

TURN = 50
"""Tokens kept for a turn."""
NOTHING = prompts.Notice()


def fit(text: str, room: int, notice: prompts.Notice = NOTHING, *, session: Any = None) -> Fitted | None:
    """A text observation in a conversation with `room` tokens left."""
    session = session or FakeSession([], limit=room + 3)  # its prompt has three tokens
    return run(Fitter(session, "full", TURN).fit(Observation(text=text, tool="textSearch"), (), notice))


def test_an_observation_that_fits_is_whole_and_has_no_note() -> None:
    fitted = fit("a page", 1_000)
    assert fitted is not None
    assert (fitted.observation.text, fitted.observation.note, fitted.observation.truncated) == ("a page", "", False)


def test_a_truncated_observation_leaves_half_of_the_room() -> None:
    fitted = fit("w" * 5_000, 2_000)
    assert fitted is not None and fitted.observation.truncated
    assert 800 < len(fitted.segment.tokens) <= (2_000 - TURN) // 2
    assert fitted.observation.note == "[truncated]"


def test_an_observation_that_leaves_no_further_turn_asks_for_the_answer() -> None:
    fitted = fit("w" * 600, 800)
    assert fitted is not None and not fitted.observation.truncated
    assert fitted.observation.note == "[context nearly full: answer next]"
    assert len(fitted.segment.tokens) <= 800 - TURN


def test_the_last_observation_may_use_the_whole_room() -> None:
    fitted = fit("w" * 5_000, 2_000, prompts.Notice(answer_next="max_turns"))
    assert fitted is not None
    assert 1_800 < len(fitted.segment.tokens) <= 2_000 - TURN
    assert fitted.observation.note == "[truncated] [last turn: answer next]"


@pytest.mark.parametrize("room", [-10, 0, TURN, TURN + 40])
def test_nothing_fits_where_a_turn_and_the_notes_leave_no_room(room: int) -> None:
    assert fit("w" * 500, room) is None


@given(st.integers(0, 3_000), st.integers(-5, 3_000), st.sampled_from(["", "max_calls", "max_turns"]))
def test_a_whole_turn_always_fits_after_an_observation(length: int, room: int, answer_next: Any) -> None:
    fitted = fit("w" * length, room, prompts.Notice(answer_next=answer_next))
    if fitted is not None:
        assert len(fitted.segment.tokens) + TURN <= room
        assert fitted.observation.text == "w" * len(fitted.observation.text)
        assert fitted.observation.truncated == (len(fitted.observation.text) < length)
        if not fitted.notice.answer_next:
            smallest = fit("w" * 5_000, room - len(fitted.segment.tokens) - TURN)
            assert smallest is not None  # unannounced, so the next round must fit


def test_an_enormous_text_is_not_tokenized_as_a_whole() -> None:
    class Counting(FakeSession):
        longest = 0

        async def encode(self, body, images, note=""):  # type: ignore[no-untyped-def]
            self.longest = max(self.longest, len(body))
            return await super().encode(body, images, note)

    session = Counting([], limit=1_000)
    fitted = fit("w" * 10_000_000, 0, session=session)
    assert fitted is not None and fitted.observation.truncated
    assert session.longest <= 16 * 1_000


def test_a_tokenizer_with_long_tokens_keeps_more_text() -> None:
    class Words(FakeSession):
        async def encode(self, body, images, note=""):  # type: ignore[no-untyped-def]
            return Segment(source="observation", tokens=(0,) * len(f"{body} {note}".split()))

    fitted = fit("word " * 5_000, 0, session=Words([], limit=2_000))
    assert fitted is not None
    assert 800 < len(fitted.observation.text.split()) <= 1_000


@pytest.mark.parametrize(("room", "shown"), [(5_000, 4), (2_500, 4), (2_200, 3), (1_000, 1)])
def test_whole_candidates_are_left_out(room: int, shown: int) -> None:
    found = make_grounding(4)
    text = prompts.candidates(found.candidates, style="full")
    observation = Observation(
        text=text, tool="grounding", candidates=found.candidates, images=tuple(crop.hash for crop in found.crops)
    )
    session = FakeSession([], limit=room, image_tokens=500)
    fitted = run(Fitter(session, "full", TURN).fit(observation, found.crops, NOTHING))
    assert fitted is not None
    assert [item.number for item in fitted.observation.candidates] == list(range(1, shown + 1))
    assert fitted.images == found.crops[:shown]
    assert fitted.observation.images == fitted.segment.images == observation.images[:shown]
    assert fitted.observation.text == prompts.candidates(found.candidates[:shown], style="full")

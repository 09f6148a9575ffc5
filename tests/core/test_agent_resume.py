"""An episode that is restored from what was kept of it ends as if it had never been interrupted."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import pytest
from support import builders
from support.builders import FakeTools, answer, gaze, ground, make_crop, make_episode, make_grounding, play, text_search

from gog.agent import Episode, Generation
from gog.images import Image
from gog.journal.chains import Chains
from gog.journal.records import Envelope, Kept
from gog.trajectory import Trajectory

TURNS = [ground(), gaze(2), builders.GLANCE, text_search(), answer("Ada")]


@dataclass
class Memory:
    """gog.agent.Keeper in memory."""

    entries: list[Kept] = field(default_factory=list)
    images: dict[str, Image] = field(default_factory=dict)
    settled_at: list[int] = field(default_factory=list)
    """How many entries there were whenever the episode waited for them."""

    def keep(self, kept: Kept, images: Iterable[Image]) -> None:
        self.entries.append(kept)
        self.images |= {image.hash: image for image in images}

    async def settled(self) -> None:
        self.settled_at.append(len(self.entries))


def uninterrupted(turns: list[str | Generation], **settings: object) -> tuple[Trajectory, Memory, FakeTools]:
    tools = FakeTools(grounding=make_grounding(3))
    episode = make_episode(turns, tools, **settings)  # type: ignore[arg-type]
    episode.keeper = memory = Memory()
    return play(episode), memory, tools


def restored(
    turns: list[str | Generation], memory: Memory, entries: int, **settings: object
) -> tuple[Episode, FakeTools]:
    """The episode after a restart that found so many entries."""
    chains, after = Chains(), ""
    for number, entry in enumerate(memory.entries[:entries]):
        chains.add(Envelope("q1", 0, after), after := f"d{number}", entry.model_dump_json().encode())
    found = chains.found("q1", 0)
    assert found is not None
    tools = FakeTools(grounding=make_grounding(3))
    episode = make_episode(turns, tools, **settings)  # type: ignore[arg-type]
    session = episode.session
    session._segments, session._next = list(found.segments), len(found.turns)  # type: ignore[attr-defined]
    episode.restore(found, memory.images)
    episode.keeper = Memory()
    return episode, tools


def comparable(trajectory: Trajectory) -> Trajectory:
    turns = tuple(turn.model_copy(update={"seconds": 0.0}) for turn in trajectory.turns)
    return trajectory.model_copy(update={"seconds": 0.0, "turns": turns})


@pytest.mark.parametrize("entries", range(1, 10))
def test_restored_anywhere_it_ends_as_the_uninterrupted_one(entries: int) -> None:
    whole, memory, tools = uninterrupted(TURNS)
    assert len(memory.entries) == 9 and len(tools.calls) == 4
    episode, again = restored(TURNS, memory, entries)
    assert comparable(play(episode)) == comparable(whole)
    finished = entries // 2
    assert again.calls == tools.calls[finished:], "a tool whose result was kept was called again"


def test_a_candidate_that_was_offered_before_the_restart_can_be_selected_after_it() -> None:
    _, memory, _ = uninterrupted(TURNS)
    episode, tools = restored(TURNS, memory, 2)
    play(episode)
    assert tools.calls[0] == ("imageSearch", make_crop(2).hash)


@pytest.mark.parametrize("entries", range(1, 5))
@pytest.mark.parametrize(
    "settings", [{"max_calls": 2}, {"max_turns": 3}, {"limit": 1500, "max_turn_tokens": 200}], ids=str
)
def test_caps_hold_over_a_restart(entries: int, settings: dict[str, int]) -> None:
    turns: list[str | Generation] = [ground(), gaze(1, 2), text_search(), text_search(), text_search(), answer()]
    whole, memory, _ = uninterrupted(turns, **settings)
    episode, _ = restored(turns, memory, min(entries, len(memory.entries)), **settings)
    again = play(episode)
    assert comparable(again) == comparable(whole)
    assert again.turns[-1].observation is None or again.stop == "max_tokens"


@pytest.mark.parametrize(
    "turns",
    [[answer()], ["no action"], [Generation("<think>cut", finished=False)], [Generation("", False, room=False)]],
    ids=["answer", "format", "cut off", "full"],
)
def test_an_episode_that_ended_but_was_not_judged_only_reports_its_end(turns: list[str | Generation]) -> None:
    whole, memory, _ = uninterrupted(turns)
    episode, _ = restored(turns, memory, len(memory.entries))
    assert comparable(play(episode)) == comparable(whole)
    assert episode.session.observed == []  # type: ignore[attr-defined]


def test_a_turn_is_durable_before_the_next_one_is_sampled() -> None:
    _, memory, _ = uninterrupted(TURNS)
    assert memory.settled_at == [2, 4, 6, 8]


def test_every_segment_is_kept_once_and_in_order() -> None:
    whole, memory, _ = uninterrupted(TURNS)
    assert tuple(segment for entry in memory.entries for segment in entry.segments) == whole.segments
    assert [entry.number for entry in memory.entries] == [0, 0, 1, 1, 2, 2, 3, 3, 4]


def test_the_time_of_earlier_processes_counts() -> None:
    _, memory, _ = uninterrupted(TURNS)
    memory.entries[1] = memory.entries[1].model_copy(update={"seconds": 40.0})
    episode, _ = restored(TURNS, memory, 2)
    assert play(episode).seconds >= 40.0

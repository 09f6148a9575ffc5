"""Baselines that search by rule: the model reads what was found and answers."""

from __future__ import annotations

import dataclasses

from support.builders import FakeTools, answer, make_episode, make_hits, play

from gog import workflows
from gog.agent import Episode
from gog.tool_types import FailureKind


def searching(toolbox: FakeTools) -> Episode:
    """An episode of the workflow whose model answers at once."""
    episode = make_episode([answer("Ada")], toolbox, gaze="off", max_calls=workflows.CALLS)
    return dataclasses.replace(episode, workflow=workflows.full_search)


def test_the_image_and_then_the_question_with_what_was_found_are_searched_without_the_model() -> None:
    toolbox = FakeTools(hits=make_hits("Ada's ring"))
    trajectory = play(searching(toolbox))
    assert [tool for tool, _ in toolbox.calls] == ["imageSearch", "textSearch"]
    assert toolbox.asked("textSearch") == [f"{trajectory.question} Ada's ring"]
    assert [turn.action for turn in trajectory.turns] == ["glance", "text", "answer"]
    assert trajectory.answer == "Ada" and trajectory.well_formed


def test_the_turns_of_a_workflow_are_no_tokens_of_the_model() -> None:
    trajectory = play(searching(FakeTools()))
    assert [segment.source for segment in trajectory.segments] == ["prompt", "observation", "observation", "model"]
    assert trajectory.generated == len(trajectory.segments[-1].tokens) == sum(trajectory.mask())


def test_after_its_searches_the_model_is_asked_to_answer() -> None:
    episode = searching(FakeTools())
    play(episode)
    assert episode.session.notes[-1] == "[no tool calls left: answer next]"


def test_a_failed_image_search_leaves_the_question_to_search_for() -> None:
    toolbox = FakeTools(failing={"imageSearch": FailureKind.TIMEOUT})
    trajectory = play(searching(toolbox))
    assert toolbox.asked("textSearch") == [trajectory.question]
    assert [failure.kind for failure in trajectory.failures] == ["timeout"]

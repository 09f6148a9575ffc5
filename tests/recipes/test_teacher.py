"""The scripted teacher: demonstrations that an arm could make itself."""

from __future__ import annotations

import random
from typing import Any

import pytest
from support.builders import FakeTools, make_crop, make_grounding, make_hits, make_image, make_question, run

from gog import actions, prompts
from gog.agent import Episode
from gog.dataset import Evidence, Question
from gog.spec import AgentSettings
from gog.tool_types import FailureKind, Grounding
from gog.trajectory import Trajectory
from gog_recipes.world import vocabulary
from gog_recipes.world.teacher import ScriptedTeacher


def make_name_question(**marks: Any) -> Question:
    """Who is the second of three things?"""
    region = (20.0, 5.0, 28.0, 13.0)
    evidence = {"kind": "name", "expression": "red ring", "region": region, "things": 3, **marks}
    return make_question(evidence=Evidence.model_validate(evidence), answers=("amber",))


def demonstrate(question: Question, toolbox: FakeTools, **settings: Any) -> Trajectory:
    teacher = ScriptedTeacher(question, random.Random(0), 1.0, ["a guess"])
    episode = Episode(question, make_image(), teacher, toolbox, AgentSettings(**settings), "terse")
    teacher.follow(episode)
    return run(episode.run())


@pytest.mark.parametrize(
    ("gaze", "expected", "calls"),
    [
        ("select", ["ground", "gaze", "answer"], [("grounding", "red ring"), ("imageSearch", make_crop(2).hash)]),
        ("direct", ["ground", "answer"], [("grounding", "red ring"), ("imageSearch", make_crop(1).hash)]),
        ("off", ["glance", "answer"], [("imageSearch", make_image().hash)]),
    ],
)
def test_a_demonstration_searches_as_its_arm_does(gaze: str, expected: list[str], calls: list[tuple[str, str]]) -> None:
    toolbox = FakeTools(make_grounding(3), make_hits("amber"))
    trajectory = demonstrate(make_name_question(), toolbox, gaze=gaze)
    assert [turn.action for turn in trajectory.turns] == expected
    assert toolbox.calls == calls
    assert (trajectory.answer, trajectory.well_formed, trajectory.gaze) == ("amber", True, gaze)


@pytest.mark.parametrize("gaze", ["select", "direct"])
def test_without_a_candidate_the_teacher_searches_the_whole_image(gaze: str) -> None:
    toolbox = FakeTools(Grounding(), make_hits("amber"))
    trajectory = demonstrate(make_name_question(), toolbox, gaze=gaze)
    assert [turn.action for turn in trajectory.turns] == ["ground", "glance", "answer"]
    assert trajectory.answer == "amber"


@pytest.mark.parametrize("gaze", ["select", "direct", "off"])
def test_the_teacher_answers_when_a_cap_is_announced(gaze: str) -> None:
    toolbox = FakeTools(
        make_grounding(3), failing={"grounding": FailureKind.TIMEOUT, "imageSearch": FailureKind.TIMEOUT}
    )
    trajectory = demonstrate(make_name_question(), toolbox, gaze=gaze, max_turns=2)
    assert (trajectory.stop, trajectory.answer) == ("answer", "a guess")
    assert trajectory.turns[0].observation.note == "no tool"


def test_an_overlong_page_does_not_become_a_demonstration() -> None:
    page = make_hits("amber")[0].model_copy(update={"text": "height n33 " + "words " * 50_000})
    toolbox = FakeTools(make_grounding(3), [page])
    trajectory = demonstrate(make_name_question(kind="fact", attribute="height"), toolbox, max_tokens=2_000)
    assert (trajectory.answer, trajectory.turns[2].observation.truncated) == ("n33", True)
    assert sum(len(turn.observation.text) for turn in trajectory.turns[:3]) < 3 * 2_000


@pytest.mark.parametrize("cap", ["max_calls", "max_turns", "max_tokens", ""])
def test_every_note_to_the_tiny_model_is_in_its_vocabulary(cap: Any) -> None:
    for calls in range(actions.MAX_SELECTED):
        note = prompts.note(prompts.Notice(calls_left=calls, answer_next=cap), style="terse")
        assert set(note.split()) <= set(vocabulary.words())


def test_the_teacher_retries_a_failed_tool_twice() -> None:
    toolbox = FakeTools(make_grounding(3), failing={"grounding": FailureKind.TIMEOUT})
    trajectory = demonstrate(make_name_question(), toolbox)
    assert [turn.action for turn in trajectory.turns] == ["ground", "ground", "ground", "answer"]


def test_the_teacher_reads_the_attribute_from_the_page_of_the_name_that_it_found() -> None:
    question = make_name_question(kind="fact", attribute="height")
    page = make_hits("amber")[0].model_copy(update={"text": "founded n12 , height n33"})
    trajectory = demonstrate(question, FakeTools(make_grounding(3), [page]))
    assert [turn.action for turn in trajectory.turns] == ["ground", "gaze", "text", "answer"]
    assert (trajectory.turns[2].argument, trajectory.answer) == ("amber", "n33")

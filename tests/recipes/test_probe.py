"""Turns before the first step, which an engine of any size samples."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image as PILImage
from support.builders import make_image, make_question, run
from support.scripted_engine import ScriptedEngine

from gog.spec import AgentSettings
from gog_recipes.rollout import probe
from gog_recipes.rollout.question_pool import QuestionPool


@pytest.mark.parametrize("capacity", [1, 2, 8])
def test_a_probe_opens_no_more_conversations_than_the_engine_has_places(tmp_path: Path, capacity: int) -> None:
    questions = [make_question(f"q{n}", image=f"q{n}.png", question=f"question {n} ?") for n in range(6)]
    for number in range(6):
        PILImage.fromarray(make_image(number).pixels).save(tmp_path / f"q{number}.png")
    engine = ScriptedEngine(capacity=capacity, seconds=lambda _: 1.0)
    pool = QuestionPool(tmp_path, questions)
    found = run(probe.sample(engine, pool, questions, AgentSettings(), seed=0, count=4))
    assert [each.id for each in found] == ["probe-q0", "probe-q1", "probe-q2", "probe-q3"]
    assert engine.places == capacity

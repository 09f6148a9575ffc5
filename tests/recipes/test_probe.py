"""Turns before the first step, which an engine of any size samples."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image as PILImage
from support.builders import make_image, make_question, run
from support.scripted_engine import ScriptedEngine, ScriptedSession

from gog.errors import NotFinite, UserError
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


def test_a_question_whose_turn_has_a_log_prob_that_is_not_finite_is_named(tmp_path: Path, monkeypatch) -> None:
    PILImage.fromarray(make_image(0).pixels).save(tmp_path / "q0.png")

    async def generate(session: ScriptedSession) -> None:
        raise NotFinite("a log-prob that is not finite", where="model", remedy="check the images")

    monkeypatch.setattr(ScriptedSession, "generate", generate)
    question = make_question("q0", image="q0.png", question="which ?")
    pool = QuestionPool(tmp_path, [question])
    with pytest.raises(UserError, match=r"^model: question q0: a log-prob that is not finite \(check the images\)$"):
        run(probe.sample(ScriptedEngine(), pool, [question], AgentSettings(), seed=0, count=4))

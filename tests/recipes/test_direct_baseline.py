"""The baseline without tools: it cannot search, whatever its tokenizer lets it write."""

from __future__ import annotations

from pathlib import Path

from support.builders import GLANCE, FakeTools, answer, ground, make_grounding, make_image, make_question
from support.builders import run as run_fake
from support.scripted_engine import ScriptedEngine

from gog import prompts
from gog.spec import AgentSettings
from gog.tool_types import Reply
from gog_recipes.rollout.question_pool import QuestionPool
from gog_recipes.rollout.rollouts import Rollouts


class JudgingTools(FakeTools):
    """Fake tools with a judge that accepts every answer."""

    async def judge(self, *_: object) -> Reply[bool]:
        return Reply(True)


def test_the_direct_baseline_calls_no_tool_even_if_its_policy_writes_searches(tmp_path: Path) -> None:
    question, toolbox = make_question(), JudgingTools(make_grounding(2))
    engine = ScriptedEngine(lambda *_: [GLANCE, ground(), answer("Ada")])  # its tokenizer can suppress no tag
    pool = QuestionPool(tmp_path, [question])
    pool._images[question.image] = make_image()
    rollouts = Rollouts(engine, toolbox, AgentSettings(), pool, "evaluate", 0, answer_only=True)
    (trajectory,) = run_fake(rollouts.play([question], 1, step=0, policy="direct")).trajectories
    assert toolbox.calls == []
    assert engine.sessions[0].prompt == prompts.prompt(question.question, style="full", tools=frozenset())
    assert (trajectory.tool_calls, trajectory.answer) == (0, "Ada")
    assert (trajectory.reward.accuracy, trajectory.reward.format) == (1.0, 0.0)

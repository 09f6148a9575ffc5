"""The baseline without tools: it cannot search, whatever its tokenizer lets it write."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from support.builders import GLANCE, FakeSession, FakeTools, answer, ground, make_grounding, make_image, make_question
from support.builders import run as run_fake

from gog.spec import AgentSettings
from gog.tool_types import Reply
from gog_recipes.rollout.rollouts import QuestionPool, Rollouts


class JudgingTools(FakeTools):
    """Fake tools with a judge that accepts every answer."""

    async def judge(self, *_: object) -> Reply[bool]:
        return Reply(True)


class EverythingKnown:
    """Features of every image."""

    def __contains__(self, image: str) -> bool:
        return True


class SearchingEngine:
    """An engine that can forbid no token, and whose policy searches before it answers."""

    decoder = SimpleNamespace(rows=4)
    processor = SimpleNamespace(style="full")
    vision = EverythingKnown()

    def open(self, question: str, image: object, seeds: list, **settings: Any) -> list[FakeSession]:
        self.tools = settings["tools"]
        return [FakeSession([GLANCE, ground(), answer("Ada")]) for _ in seeds]


def test_the_direct_baseline_calls_no_tool_even_if_its_policy_writes_searches(tmp_path) -> None:  # type: ignore[no-untyped-def]
    question, toolbox, engine = make_question(), JudgingTools(make_grounding(2)), SearchingEngine()
    pool = QuestionPool(tmp_path, [question])
    pool._images[question.image] = make_image()
    rollouts = Rollouts(engine, toolbox, AgentSettings(), pool, "evaluate", 0, answer_only=True)
    ((trajectory,),) = run_fake(rollouts.play([question], 1, step=0, policy="direct"))
    assert toolbox.calls == [] and engine.tools == frozenset()
    assert (trajectory.tool_calls, trajectory.answer) == (0, "Ada")
    assert (trajectory.reward.accuracy, trajectory.reward.format) == (1.0, 0.0)

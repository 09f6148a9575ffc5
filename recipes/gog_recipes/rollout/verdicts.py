"""The judge as rollouts call it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from gog import outage, tool_actions
from gog.dataset import Question
from gog.tool_types import Reply
from gog_recipes.runtime.timers import StepTimer


class Services(tool_actions.Tools, Protocol):
    """The tools of an episode, and the judge."""

    async def judge(self, question: str, answers: Sequence[str], answer: str) -> Reply[bool]:
        """Whether an answer is correct."""
        ...


async def ask(services: Services, question: Question, answer: str, timer: StepTimer) -> Reply[bool]:
    """The verdict on an answer. A judge that did not reply is called again.

    An outage counts as one after several failures in a row, and only then do calls wait for its end. Calling again
    makes sure that the answers which met its first failures are judged, too.
    """
    for _ in range(outage.FAILURES):
        with timer.episode_waits("judge"):
            reply = await services.judge(question.question, question.answers, answer)
        if reply.failure is None or reply.failure.kind not in outage.UNREACHABLE:
            break
    return reply

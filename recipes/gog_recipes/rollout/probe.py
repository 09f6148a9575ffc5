"""Turns that are sampled before the first step, so that an engine is compared with the trainer before anything is played."""

from __future__ import annotations

import asyncio
import contextlib
import zlib
from collections.abc import Sequence

from gog import prompts
from gog.dataset import Question
from gog.engine import Engine
from gog.errors import NotFinite, QuestionSkipped, UserError
from gog.spec import AgentSettings
from gog_recipes.rollout.question_pool import QuestionPool
from gog_recipes.runtime.canary import Conversation


async def sample(
    engine: Engine, pool: QuestionPool, questions: Sequence[Question], settings: AgentSettings, *, seed: int, count: int
) -> list[Conversation]:
    """The first turn of some questions, without tools. A question that cannot be used is passed over.

    Args:
        engine: from which it is sampled
        pool: where images of questions are read
        questions: from which the first ones that can be used are taken
        settings: of the stage's episodes
        seed: of the stage
        count: turns that are wanted
    """
    found: list[Conversation] = []
    places = asyncio.Semaphore(engine.capacity)

    async def turn(question: Question) -> Conversation | None:
        async with places:
            return await _turn(engine, pool, question, settings, seed)

    for start in range(0, len(questions), count):
        chosen = questions[start : start + count - len(found)]
        turns = await asyncio.gather(*(turn(each) for each in chosen))
        found += [turn for turn in turns if turn is not None]
        if len(found) >= count:
            break
    engine.take_counters()  # not work of a step
    return found


async def _turn(
    engine: Engine, pool: QuestionPool, question: Question, settings: AgentSettings, seed: int
) -> Conversation | None:
    text = prompts.prompt(question.question, style=engine.style, gaze=settings.gaze)
    with contextlib.suppress(QuestionSkipped):
        image = await pool.image(question)
        (session,) = await engine.open(text, [image], [(seed, 0, zlib.crc32(question.id.encode()))])
        try:
            await session.generate()
        except NotFinite as error:
            raise UserError(f"question {question.id}: {error.what}", where=error.where, remedy=error.remedy) from None
        else:
            return Conversation(f"probe-{question.id}", session.segments())
        finally:
            session.close()
    return None

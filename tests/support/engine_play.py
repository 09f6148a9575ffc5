"""Conversations with an engine of the tiny model."""

from __future__ import annotations

import asyncio

import numpy as np

from gog import prompts
from gog.catalog import SEARCH_TOOLS
from gog.engine import Limits
from gog.images import Image
from gog.spec import EngineSettings
from gog_recipes.models import policy_model
from gog_recipes.rollout.engine import Parts
from gog_recipes.rollout.transformers import TransformersEngine

TWO_CROPS = f"1 {prompts.IMAGE} 2 {prompts.IMAGE}"


def image(seed: int, side: int = 112) -> Image:
    return Image(np.random.default_rng(seed).integers(0, 255, (side, side, 3), dtype=np.uint8))


def engine_for(policy, processor, *, capacity=8, temperature=1.0, tokens=192, turn_tokens=6, **settings):
    limits, vision = Limits(tokens, turn_tokens, temperature), policy_model.vision_of(policy, processor)
    return TransformersEngine(Parts(policy, processor, vision, limits, capacity, settings=EngineSettings(**settings)))


async def open_group(engine, question, shown, seeds, *, tools=SEARCH_TOOLS, suppress=()):
    """Sessions of a question, with the prompt that an episode has."""
    text = prompts.prompt(question, style=engine.style, tools=tools)
    return await engine.open(text, [shown], seeds, suppress=suppress)


async def converse(session, turns, *, before_turn=None):
    """Plays `turns` turns, whatever the model says, with two crops in each observation."""
    for turn in range(turns):
        if before_turn:
            await before_turn(turn)
        await session.generate()
        if turn + 1 < turns:
            session.observe(await session.encode(TWO_CROPS, [image(turn, 28), image(turn + 50, 28)]))
    return session.segments()


def play(engine, groups, turns=3, before_turn=None):
    """Segments of every session of (question, image, samples) groups, all at once."""

    async def run():
        sessions = [
            session
            for question, shown, samples in groups
            for session in await open_group(engine, question, shown, [(7, n, len(question)) for n in range(samples)])
        ]
        out = await asyncio.gather(*(converse(session, turns, before_turn=before_turn) for session in sessions))
        for session in sessions:
            session.close()
        return out

    return asyncio.run(run())

"""Over-long observations with the real tokenizer: what is trained on never exceeds the limit of a conversation."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest
import torch

from gog import prompts
from gog.engine import Limits
from gog.images import Image
from gog.observation_fit import Fitter
from gog.prompts import Notice
from gog.spec import ModelSpec
from gog.trajectory import Observation
from gog_recipes.models import policy_model
from gog_recipes.rollout.engine import Parts
from gog_recipes.rollout.transformers import TransformersEngine

TURN_TOKENS = 14


@pytest.mark.parametrize("limit", [96, 192, 400])
def test_a_page_of_80000_characters_is_truncated_to_the_room_of_a_conversation(limit):
    processor = policy_model.load_processor(ModelSpec(base="tiny"))
    policy = policy_model.load_base(ModelSpec(base="tiny"), torch.device("cpu"))
    vision = policy_model.vision_of(policy, processor)
    engine = TransformersEngine(Parts(policy, processor, vision, Limits(limit, TURN_TOKENS, 1.0), capacity=1))
    image = Image(np.random.default_rng(0).integers(0, 255, (112, 112, 3), dtype=np.uint8))
    page = Observation(text="height n33 , " * 6_500, tool="textSearch")

    async def converse():
        prompt = prompts.prompt("what is the height of the red ring ?", style=engine.style)
        (session,) = await engine.open(prompt, [image], [(1,)])
        fitter = Fitter(session, "terse", TURN_TOKENS)
        for _ in range(5):
            await session.generate()
            fitted = await fitter.fit(page, (), Notice())
            session.observe(fitted.segment)
            assert fitted.observation.truncated and fitted.observation.text.startswith("height n33")
            if fitted.notice.answer_next:
                break
        return session.segments()

    segments = asyncio.run(converse())
    assert [segment.source for segment in segments[:3]] == ["prompt", "model", "observation"]
    assert limit // 2 < sum(len(segment.tokens) for segment in segments) <= limit

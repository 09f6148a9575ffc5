"""Every family that vLLM serves on a CPU, with the published structure and tokenizer: log-probs are the trainer's.

The tags of the agent are several tokens here, images are resized within `maxPixels`, and the conversations are long.
"""

from __future__ import annotations

import asyncio

import numpy as np
import pytest
from support.real_structures import vllm
from support.vllm_servers import sampled

from gog import images, prompts
from gog.engine import Limits
from gog.spec import ModelSpec

pytestmark = pytest.mark.vllm
EXACT = 1e-4
"""Nats, float32."""


@pytest.mark.parametrize("family", ["qwen2_5_vl", "qwen3_vl"])
def test_log_probs_are_the_trainer_s_over_photographs_and_turns(
    family, real_base, photographs, serve, policy_of
) -> None:
    base = real_base(family, **vllm(family), dtype="float32")
    [server] = serve(base, 1, "--max-model-len", "4096")
    policy = policy_of(ModelSpec(base=str(base), max_pixels=200_000))
    policy.train(2)
    shown = [images.read(path) for path in photographs]

    async def converse(session, number):
        for turn in range(3):
            await session.generate()
            if turn < 2:
                pair = [shown[(number + turn) % len(shown)], shown[(number + turn + 1) % len(shown)]]
                session.observe(await session.encode(f"1 {prompts.IMAGE} 2 {prompts.IMAGE}", pair))
        session.close()
        return session.segments()

    async def run():
        engine = policy.engine([server], Limits(4096, 40, 1.0))
        text = prompts.prompt("Which building is this?", style=engine.style)
        sessions = await engine.open(text, [shown[0]], [(7, 1, 3, sample) for sample in range(2)])
        played = await asyncio.gather(*(converse(each, number) for number, each in enumerate(sessions)))
        await engine.close()
        return played

    try:
        for segments in asyncio.run(run()):
            assert sum(len(segment.images) for segment in segments) == 5
            written = {token for segment in segments if segment.source == "model" for token in segment.tokens}
            assert not written & set(policy.processor.suppress_tokens)
            assert np.abs(sampled(segments) - policy.logprobs(segments)).max() < EXACT
    finally:
        server.kill()

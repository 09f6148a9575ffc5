"""Every family that vLLM serves on a CPU, with the published structure and tokenizer: log-probs are the trainer's.

The tags of the agent are several tokens here, images are resized within `maxPixels`, and the conversations are long.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
from pathlib import Path

import numpy as np
import pytest
from support.real_structures import vllm
from support.vllm_servers import CPU, ENVIRONMENT, sampled

from gog import images, prompts
from gog.engine import Limits
from gog.spec import ModelSpec
from gog_recipes.models import lora, policy_model
from gog_recipes.rollout import vllm_request as requests

pytestmark = pytest.mark.vllm
EXACT = 1e-4
"""Nats, float32."""
PIXELS = 200_000
"""Most pixels of an image; a photograph has up to 2,000,000."""


@pytest.mark.parametrize("family", ["qwen2_5_vl", "qwen3_vl"])
def test_log_probs_are_the_trainer_s_over_photographs_and_turns(
    family, real_base, photographs, serve, policy_of, monkeypatch
) -> None:
    base = real_base(family, **vllm(family), dtype="float32")
    [server] = serve(base, 1, "--max-model-len", "4096", "--mm-processor-kwargs", json.dumps({"max_pixels": PIXELS}))
    policy = policy_of(ModelSpec(base=str(base), max_pixels=PIXELS))
    policy.train(2)
    shown = [images.read(path) for path in photographs]
    ordinary = requests.sampling

    async def converse(session, number):
        for turn in range(3):
            await session.generate()
            if turn < 2:
                pair = [shown[(number + turn) % len(shown)], shown[(number + turn + 1) % len(shown)]]
                session.observe(await session.encode(f"1 {prompts.IMAGE} 2 {prompts.IMAGE}", pair))
        session.close()
        return session.segments()

    async def closings(engine, text, closer):
        """Turns whose closing tag ends with this token, with their segments."""
        monkeypatch.setattr(requests, "sampling", only(ordinary, policy.processor, "</", "answer", closer, " x"))
        for seed in range(8, 16):  # random weights may prefer any order of the tokens, on this processor or that
            sessions = await engine.open(text, [shown[0]], [(seed, sample) for sample in range(16)])
            turns = await asyncio.gather(*(each.generate() for each in sessions))
            found = [(turn, each.segments()[-1]) for turn, each in zip(turns, sessions, strict=True) if turn.finished]
            for each in sessions:
                each.close()
            if found:
                return found
        return []

    async def run():
        engine = policy.engine([server], Limits(4096, 60, 1.0))
        text = prompts.prompt("Which building is this?", style=engine.style)
        sessions = await engine.open(text, [shown[0]], [(7, 1, 3, sample) for sample in range(2)])
        played = await asyncio.gather(*(converse(each, number) for number, each in enumerate(sessions)))
        closed = {closer: await closings(engine, text, closer) for closer in (">", ">.")}
        await engine.close()
        return played, closed

    try:
        played, closed = asyncio.run(run())
        for segments in played:
            assert sum(len(segment.images) for segment in segments) == 5
            written = {token for segment in segments if segment.source == "model" for token in segment.tokens}
            assert not written & set(policy.processor.suppress_tokens)
            assert np.abs(sampled(segments) - policy.logprobs(segments)).max() < EXACT
        ends = policy.processor.ends_turn
        for closer, turns in closed.items():
            assert turns, f"no turn was closed by {closer!r}"
            for turn, segment in turns:
                first = next(end for end in range(1, len(segment.tokens) + 1) if ends(segment.tokens[:end]))
                assert first == len(segment.tokens)
                assert segment.overrun == (closer == ">.")  # the tag ends within the token
                assert turn.text.endswith("</answer>")
    finally:
        server.kill()


def test_adapters_of_experts_are_arranged_for_gpus_as_peft_adds_them(real_base, policy_of, tmp_path) -> None:
    """vLLM's kernels for them need a GPU; how it reads and arranges the file does not."""
    base = real_base("qwen3_vl_moe", **vllm("qwen3_vl_moe"), dtype="float32")
    policy = policy_of(ModelSpec(base=str(base)))
    script, target = Path(__file__).with_name("expert_layout.py"), tmp_path / "updates.npz"
    line = [ENVIRONMENT / "bin" / "python", script, policy.saved[0], "4", target]
    subprocess.run(list(map(str, line)), check=True)
    arranged = np.load(target)
    merged = dict(lora.with_saved(policy_model.load_base(policy.spec, CPU), policy.saved).named_parameters())
    plain = dict(policy_model.load_base(policy.spec, CPU).named_parameters())
    compared = {name: merged[name] - plain[name] for name in plain if ".experts." in name}
    assert len(compared) == len(arranged.files) == 6
    for name, update in compared.items():
        served = arranged[name.replace("model.language_model.", "language_model.model.")]
        assert update.abs().max() > 1e-3 and np.abs(served - update.detach().numpy()).max() < 1e-6


def only(ordinary, processor, *words):
    """Sampling parameters under which only these tokens are sampled, so that an untrained model closes a tag."""
    allowed = [token for word in words for token in processor.encode(word, [])]
    assert len(allowed) == len(words)
    return lambda *arguments: ordinary(*arguments) | {"allowed_token_ids": allowed}

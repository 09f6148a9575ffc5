"""The in-process engine on the structures of the published models: it samples what the trainer would compute."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from support.real_structures import FAMILIES, real_base  # noqa: F401 (a fixture)

from gog import prompts
from gog.engine import Limits
from gog.errors import UserError
from gog.images import Image
from gog.spec import EngineSettings, LoraSettings, ModelSpec
from gog_recipes.models import decoder_weights, kv_cache, lora, policy_model
from gog_recipes.rollout.engine import Parts
from gog_recipes.rollout.transformers import TransformersEngine

CPU = torch.device("cpu")
EXACT = 1e-5
"""Largest difference between the engine's and the trainer's log-probs in float32, in nats."""
SAMPLE = (*(pytest.param(each, marks=pytest.mark.exhaustive) for each in FAMILIES[:-1]), FAMILIES[-1])
"""For properties of the engine rather than of a decoder: the suite has one family, `make exhaustive` the others."""
ROUNDED = 2.0
"""How far the engine may be from float32 in bfloat16, on average, in times of the trainer's own distance."""


def image(seed: int, width: int, height: int) -> Image:
    return Image(np.random.default_rng(seed).integers(0, 255, (height, width, 3), dtype=np.uint8))


SHOWN = [image(1, 330, 270), image(2, 90, 260)]
"""Images of the questions, of different sizes."""
CROPS = [image(3, 60, 100), image(4, 200, 40), image(5, 64, 64)]
"""Images of the observations."""


@dataclass
class Policy:
    """A policy and what its engines and the trainer need of it."""

    model: torch.nn.Module
    processor: policy_model.Processor

    def engine(self, *, tokens: int = 1024, turn_tokens: int = 5, capacity: int = 8, **settings) -> TransformersEngine:
        vision = policy_model.vision_of(self.model, self.processor)
        limits, chosen = Limits(tokens, turn_tokens, 1.0), EngineSettings(**settings)
        return TransformersEngine(Parts(self.model, self.processor, vision, limits, capacity, settings=chosen))


@pytest.fixture(scope="module")
def policies(real_base):  # noqa: F811
    """policies(family, dtype, adapted=…, quantization=…, **overrides): a policy, with or without an adapter that
    changes it, on a base that is quantized or not."""
    made = {}

    def policy(family: str, dtype: str, *, adapted: bool = True, quantization="none", **overrides) -> Policy:
        key = (family, dtype, adapted, quantization, *overrides.items())
        if key not in made:
            spec = ModelSpec(base=str(real_base(family, **overrides)), dtype=dtype)
            model = policy_model.load_base(spec, CPU, quantization)
            if adapted:
                torch.manual_seed(0)
                model = lora.add(model, LoraSettings()).eval()
                for name, parameter in model.named_parameters():
                    if "lora_B" in name:
                        torch.nn.init.normal_(parameter, std=0.02)
            made[key] = Policy(model, policy_model.load_processor(spec))
        return made[key]

    return policy


def play(engine: TransformersEngine, *, samples: int = 2, turns: int = 3, yields: int = 0, questions: int = 2):
    """Segments of conversations about the images, with two crops in each observation; tools take some loop cycles."""

    async def converse(session, number: int):
        for turn in range(turns):
            await session.generate()
            for _ in range(yields * number):
                await asyncio.sleep(0)
            if turn + 1 < turns:
                shown = [CROPS[(turn + number) % 3], CROPS[turn]]
                session.observe(await session.encode(f"1 {prompts.IMAGE} a roof 2 {prompts.IMAGE}", shown))
        segments = session.segments()
        session.close()
        return segments

    async def run():
        sessions = []
        for number, shown in enumerate(SHOWN[:questions]):
            text = prompts.prompt(f"What is this, number {number}?", style=engine.style)
            sessions += await engine.open(text, [shown], [(7, number, sample) for sample in range(samples)])
        return await asyncio.gather(*(converse(session, number) for number, session in enumerate(sessions)))

    return asyncio.run(run())


def trained(policy: Policy, engine: TransformersEngine, rows) -> torch.Tensor:
    """Log-probs of the training forward, row by row."""
    found = []
    for row in rows:
        batch = policy_model.collate([row], policy.processor, engine.vision, CPU)
        with torch.no_grad():
            images, suppressed = policy_model.features(batch, engine.vision), policy.processor.suppress_tokens
            found.append(policy_model.token_logprobs(policy.model, batch, images, suppressed=suppressed))
    return torch.cat(found)


def sampled(rows) -> torch.Tensor:
    """The engine's log-probs of the same tokens."""
    pairs = (
        pair for row in rows for segment in row for pair in zip(segment.logprobs, segment.loss_mask(), strict=False)
    )
    return torch.tensor([value for value, learned in pairs if learned])


def differences(policy: Policy, engine: TransformersEngine, rows) -> torch.Tensor:
    """How far the engine's log-probs are from those of the training forward."""
    return (trained(policy, engine, rows) - sampled(rows)).abs()


@pytest.mark.parametrize("settings", [{}, {"prefill_tokens": 50}])
@pytest.mark.parametrize("family", FAMILIES)
def test_log_probs_equal_those_of_the_trainer(policies, monkeypatch, family: str, settings: dict) -> None:
    monkeypatch.setattr(decoder_weights, "FUSED_BYTES", 0)
    policy = policies(family, "float32")
    engine = policy.engine(**settings)
    rows = play(engine)
    assert max(sum(len(segment.tokens) for segment in row) for row in rows) > 256  # several blocks of the cache
    found = differences(policy, engine, rows)
    assert len(found) >= 4 * 3 * 4 and found.max() <= EXACT


@pytest.mark.parametrize("family", FAMILIES)
def test_log_probs_over_a_quantized_base_equal_those_of_the_trainer(policies, family: str) -> None:
    policy = policies(family, "float32", quantization="nf4")
    engine = policy.engine()
    assert differences(policy, engine, play(engine, turns=2)).max() <= EXACT


@pytest.mark.parametrize("family", FAMILIES)
def test_log_probs_in_bfloat16_are_as_near_to_float32_as_the_trainers_are(policies, monkeypatch, family: str) -> None:
    monkeypatch.setattr(decoder_weights, "FUSED_BYTES", 0)
    policy = policies(family, "bfloat16")
    engine = policy.engine()
    rows = play(engine)
    exact = trained(policies(family, "float32"), engine, rows)
    rounding = (trained(policy, engine, rows) - exact).abs().mean()
    assert (sampled(rows) - exact).abs().mean() <= ROUNDED * rounding < 0.1


@pytest.mark.parametrize("family", FAMILIES)
def test_log_probs_of_a_policy_without_adapter_equal_those_of_the_trainer(policies, monkeypatch, family: str) -> None:
    monkeypatch.setattr(decoder_weights, "FUSED_BYTES", 0)
    policy = policies(family, "float32", adapted=False)
    engine = policy.engine()
    assert differences(policy, engine, play(engine)).max() <= EXACT


@pytest.mark.parametrize("family", FAMILIES)
def test_log_probs_of_fused_copies_equal_those_of_the_trainer(policies, family: str) -> None:
    policy = policies(family, "float32")
    engine = policy.engine()
    assert differences(policy, engine, play(engine)).max() <= EXACT


@pytest.mark.parametrize("family", FAMILIES)
def test_the_weights_of_a_large_model_are_not_copied(policies, monkeypatch, family: str) -> None:
    monkeypatch.setattr(decoder_weights, "FUSED_BYTES", 0)
    policy = policies(family, "float32")
    decoder = policy.engine().decoder
    owned = {parameter.untyped_storage().data_ptr() for parameter in policy.model.parameters()}
    held = [*tensors(decoder.layers), decoder.head, decoder.embedding, decoder.norm]
    copied = sum(each.nbytes for each in held if each.untyped_storage().data_ptr() not in owned)
    norms = 4 * decoder.head_size * (decoder.heads + decoder.kv_heads) * len(decoder.layers)
    assert copied <= norms < sum(each.nbytes for each in held) / 50


def tensors(value) -> list[torch.Tensor]:
    """The tensors in nested records, lists and modules."""
    if isinstance(value, torch.Tensor):
        return [value]
    if isinstance(value, torch.nn.Module):
        return [*value.parameters()]
    if isinstance(value, list | tuple):
        return [each for item in value for each in tensors(item)]
    return tensors([*vars(value).values()]) if hasattr(value, "__dataclass_fields__") else []


def test_a_full_cache_makes_conversations_wait_and_changes_no_token(policies) -> None:
    policy = policies("qwen3_vl", "float32")
    free = policy.engine(tokens=768)
    expected = play(free, samples=3)
    block = free.decoder.cache.block * free.decoder.layout.token_bytes
    full = policy.engine(tokens=768, kv_cache_bytes=4 * block)
    rows = play(full, samples=3)
    assert free.decoder.cache.bytes > 4 * block >= full.decoder.cache.bytes > 0
    assert full.counters.prefilled > full.counters.unique  # some were read again
    assert [[segment.tokens for segment in row] for row in rows] == [[s.tokens for s in row] for row in expected]
    assert differences(policy, full, rows).max() <= EXACT


def test_a_cache_too_small_for_one_conversation_is_refused_with_the_bytes_it_needs(policies) -> None:
    policy = policies("qwen3_vl", "float32")
    layout = policy.engine().decoder.layout
    with pytest.raises(UserError, match=rf"kv_cache_bytes: .* max_tokens 1024 \(allow {1280 * layout.token_bytes} "):
        policy.engine(kv_cache_bytes=1280 * layout.token_bytes - 1)


def test_a_cache_grows_with_the_tokens_of_conversations(policies) -> None:
    policy = policies("qwen3_vl", "float32")
    engine = policy.engine(tokens=100_000, capacity=160)
    assert engine.decoder.cache.bytes == 0
    play(engine)
    assert engine.decoder.cache.bytes <= 16 * 256 * engine.decoder.layout.token_bytes
    asyncio.run(engine.rest())
    assert engine.decoder.cache.bytes == 0


def bits(rows):
    """Tokens and log-probs, which compare bit by bit."""
    return [[(segment.tokens, segment.logprobs) for segment in row] for row in rows]


@pytest.mark.parametrize("family", SAMPLE)
def test_a_deterministic_engine_repeats_bits_in_any_company(policies, family: str) -> None:
    policy = policies(family, "bfloat16")
    together = bits(play(policy.engine(deterministic=True, prefill_tokens=64)))
    late = bits(play(policy.engine(deterministic=True, prefill_tokens=64), yields=3))
    alone = bits(play(policy.engine(deterministic=True, prefill_tokens=64), samples=1, questions=1))
    assert together == late
    assert alone == together[:1]


def test_a_deterministic_engine_repeats_bits_when_its_cache_is_full(policies, monkeypatch) -> None:
    monkeypatch.setattr(kv_cache, "BLOCK_TOKENS", 64)  # so that conversations outgrow what they begin with
    policy = policies("qwen3_vl", "bfloat16")
    free = policy.engine(tokens=768, deterministic=True)
    bound = free.decoder.layout.conversation_bytes(768)
    full = policy.engine(tokens=768, deterministic=True, kv_cache_bytes=bound)
    assert bits(play(full, samples=3)) == bits(play(free, samples=3))
    assert full.counters.prefilled > full.counters.unique


@pytest.mark.parametrize("after", [1, 2])
def test_a_deterministic_engine_resumes_with_equal_bits(policies, after: int) -> None:
    policy = policies("qwen3_vl", "bfloat16")

    def turns(session, begin: int, end: int):
        async def run():
            for turn in range(begin, end):
                await session.generate()
                if turn < 2:
                    session.observe(await session.encode(f"1 {prompts.IMAGE} a roof", [CROPS[turn]]))

        return run()

    async def conversation(resumed: bool):
        engine = policy.engine(deterministic=True, prefill_tokens=64)
        text, seeds = prompts.prompt("What is this?", style=engine.style), [(7, 1), (7, 2)]
        sessions = await engine.open(text, SHOWN[:1], seeds)
        await asyncio.gather(*(turns(session, 0, after if resumed else 3) for session in sessions))
        if resumed:
            earlier = [session.segments() for session in sessions]
            engine = policy.engine(deterministic=True, prefill_tokens=64)
            sessions = await engine.open(text, [SHOWN[0], *CROPS], seeds, resume=earlier)
            await asyncio.gather(*(turns(session, after, 3) for session in reversed(sessions)))
        return [session.segments() for session in sessions]

    assert bits(asyncio.run(conversation(True))) == bits(asyncio.run(conversation(False)))


@pytest.mark.parametrize("family", SAMPLE)
def test_only_tokens_of_text_are_sampled(policies, family: str) -> None:
    policy = policies(family, "bfloat16")
    rows = play(policy.engine(turn_tokens=20))
    suppressed = set(policy.processor.suppress_tokens)
    assert policy.processor.image_pad in suppressed
    assert not {token for row in rows for s in row if s.source == "model" for token in s.tokens} & suppressed

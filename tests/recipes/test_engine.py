"""The rollout engine: what it samples is what the trainer would compute, read once and independent of timing."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest
import torch
from support import plain
from support.engine_play import TWO_CROPS, engine_for, image, open_group, play

from gog import prompts
from gog.catalog import SEARCH_TOOLS
from gog.engine import Counters
from gog.errors import NotFinite, QuestionSkipped
from gog.spec import LoraSettings, ModelSpec
from gog.trajectory import Segment
from gog_recipes.models import lora, policy_model
from gog_recipes.models.vision import MAX_PASS_IMAGES

SPEC = ModelSpec(base="tiny")
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def processor():
    return policy_model.load_processor(SPEC)


def adapted(base):
    """The model with an adapter that changes what it computes."""
    torch.manual_seed(0)
    model = lora.add(base, LoraSettings())
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.05)
    return model.eval()


@pytest.fixture(scope="module")
def policy():
    return adapted(policy_model.load_base(SPEC, CPU))


GROUPS = [("what colour is the ring ?", image(1), 3), ("what is the name of the red ring ?", image(2), 2)]


def test_log_probs_of_the_engine_equal_those_of_the_training_forward(policy, processor):
    engine = engine_for(policy, processor)
    rows = play(engine, GROUPS)
    batch = policy_model.collate(rows, processor, engine.vision, CPU)
    with torch.no_grad():
        logits, tokens = plain.forward(policy, batch, processor, engine.vision)
    expected = plain.logprobs(logits, tokens, processor, 1.0)
    sampled = torch.tensor([value for row in rows for segment in row for value in segment.logprobs])
    assert len(sampled) > 50
    assert float((expected - sampled).abs().max()) < 1e-4


def test_a_bfloat16_policy_with_an_adapter_samples_what_the_trainer_would_compute(processor):
    policy = adapted(policy_model.load_base(ModelSpec(base="tiny", dtype="bfloat16"), CPU))
    engine = engine_for(policy, processor)
    rows = play(engine, GROUPS)
    batch = policy_model.collate(rows, processor, engine.vision, CPU)
    with torch.no_grad():
        logits, tokens = plain.forward(policy, batch, processor, engine.vision)
    expected = plain.logprobs(logits, tokens, processor, 1.0)
    sampled = torch.tensor([value for row in rows for segment in row for value in segment.logprobs])
    with lora.reference(policy), torch.no_grad():
        logits, _ = plain.forward(policy, batch, processor, engine.vision)
    unadapted = plain.logprobs(logits, tokens, processor, 1.0)
    noise, adapter = (expected - sampled).abs().mean(), (expected - unadapted).abs().mean()
    assert noise < 0.05 < adapter


def test_the_training_forward_equals_the_librarys_own(policy, processor):
    engine = engine_for(policy, processor)
    row = play(engine, GROUPS[:1])[0]
    vision, batch = engine.vision, policy_model.collate([row], processor, engine.vision, CPU)
    shown = {p.hash: p for p in [image(1)] + [image(seed, 28) for turn in range(3) for seed in (turn, turn + 50)]}
    patches = [processor.patches(shown[image]) for segment in row for image in segment.images]
    with torch.no_grad():
        logits, _ = plain.forward(policy, batch, processor, vision)
        library = policy(
            input_ids=batch.ids,
            attention_mask=torch.ones_like(batch.ids),
            pixel_values=torch.from_numpy(np.concatenate([item.rows for item in patches])),
            image_grid_thw=torch.tensor([item.grid for item in patches]),
            mm_token_type_ids=(batch.ids == processor.image_pad).int(),
        ).logits[0, :-1][torch.tensor([each for segment in row for each in segment.loss_mask()])[1:]]
    assert float((logits - library).abs().max()) < 1e-4


def test_a_prompt_is_read_once_per_group_and_nothing_is_read_twice(policy, processor):
    engine = engine_for(policy, processor)
    play(engine, GROUPS)
    assert engine.counters.prefilled == engine.counters.unique


def test_each_image_is_encoded_once(policy, processor):
    engine = engine_for(policy, processor)
    play(engine, GROUPS)
    distinct = 2 + 2 * 2  # two images, two crops in each of two observations
    assert engine.vision.encoded == distinct
    assert engine.vision.asked > distinct


def test_timing_of_others_does_not_change_what_is_sampled(policy, processor):
    calm = play(engine_for(policy, processor), GROUPS)

    async def dawdle(turn):
        for _ in range(3 * turn):
            await asyncio.sleep(0)

    alone = play(engine_for(policy, processor), GROUPS[1:], before_turn=dawdle)
    assert [[s.tokens for s in row] for row in alone] == [[s.tokens for s in row] for row in calm[3:]]


def test_members_of_a_group_differ_and_temperature_zero_makes_them_equal(policy, processor):
    warm = play(engine_for(policy, processor), GROUPS[:1])
    cold = play(engine_for(policy, processor, temperature=0.0), GROUPS[:1])
    assert len({row[1].tokens for row in warm}) > 1
    assert len({row[1].tokens for row in cold}) == 1


def test_tokens_that_stand_for_images_or_padding_are_never_sampled(policy, processor):
    rows = play(engine_for(policy, processor, capacity=64), [("what is the ring ?", image(3), 64)])
    written = {token for row in rows for segment in row if segment.source == "model" for token in segment.tokens}
    assert not written & set(processor.suppress_tokens)


def test_a_forbidden_tag_is_never_opened(policy, processor):
    engine = engine_for(policy, processor, capacity=64, turn_tokens=20)
    suppressed = set(processor.forbidden(["<img_search>", "<text_search>"]))

    async def run():
        seeds = [(seed,) for seed in range(64)]
        sessions = await open_group(engine, "what ?", image(4), seeds, suppress=["<img_search>", "<text_search>"])
        await asyncio.gather(*(session.generate() for session in sessions))
        return [session.segments() for session in sessions]

    written = {t for row in asyncio.run(run()) for s in row if s.source == "model" for t in s.tokens}
    assert len(suppressed) == 2
    assert not written & suppressed


def test_a_prompt_that_leaves_no_room_says_which_limit_to_raise(policy, processor):
    engine = engine_for(policy, processor, tokens=20)
    with pytest.raises(
        QuestionSkipped, match=r"max_tokens: the prompt alone has \d+ tokens, the limit is 20 \(allow several"
    ):
        asyncio.run(open_group(engine, "what ?", image(1), [(0,)]))


def test_a_conversation_that_runs_out_of_room_says_so(policy, processor):
    engine = engine_for(policy, processor, tokens=45, turn_tokens=40)

    async def run():
        (session,) = await open_group(engine, "what is the ring ?", image(5), [(1,)])
        return await session.generate()

    generation = asyncio.run(run())
    assert generation.finished or not generation.room


def test_an_observation_longer_than_the_room_is_refused(policy, processor):
    engine = engine_for(policy, processor, tokens=64)

    async def run():
        (session,) = await open_group(engine, "what is the ring ?", image(5), [(1,)])
        await session.generate()
        room = session.room()
        fits, too_long = await session.encode("n33", []), await session.encode("n33 " * 300, [])
        assert room == 64 - sum(len(segment.tokens) for segment in session.segments())
        with pytest.raises(ValueError, match="observation of"):
            session.observe(too_long)
        session.observe(fits)
        assert session.room() == room - len(fits.tokens)
        assert sum(len(segment.tokens) for segment in session.segments()) <= 64

    asyncio.run(run())


def test_a_fault_in_the_engine_reaches_every_waiting_episode(policy, processor, monkeypatch):
    engine = engine_for(policy, processor)
    monkeypatch.setattr(engine.decoder, "step", lambda *_: 1 / 0)

    async def run():
        sessions = await open_group(engine, "what ?", image(6), [(1,), (2,)])
        return await asyncio.gather(*(session.generate() for session in sessions), return_exceptions=True)

    assert [str(error) for error in asyncio.run(run())] == [
        "the rollout engine failed: ZeroDivisionError('division by zero')"
    ] * 2


def test_positions_equal_the_librarys_rope_index(policy, processor):
    engine = engine_for(policy, processor)
    row = play(engine, GROUPS[1:])[0]
    ids = [token for segment in row for token in segment.tokens]
    grids = [engine.vision.grid(image) for segment in row for image in segment.images]
    ours, _ = processor.positions(ids, grids)
    tensor = torch.tensor([ids])
    theirs, _ = policy_model.core(policy).model.get_rope_index(
        tensor, mm_token_type_ids=(tensor == processor.image_pad).int(), image_grid_thw=torch.tensor(grids)
    )
    assert np.array_equal(ours, theirs[:, 0].numpy())


def test_places_are_free_again_when_sessions_close(policy, processor):
    engine = engine_for(policy, processor, capacity=2)
    for _ in range(3):
        play(engine, [("what ?", image(7), 2)], turns=1)


def test_closing_a_session_again_does_not_close_the_one_that_took_its_place(policy, processor):
    engine = engine_for(policy, processor, capacity=1)

    async def run():
        (first,) = await open_group(engine, "what ?", image(1), [(1,)])
        first.close()
        (second,) = await open_group(engine, "what ?", image(1), [(2,)])
        first.close()
        return await second.generate()

    assert asyncio.run(run()).text


def test_counters_start_again_when_they_are_taken(policy, processor):
    engine = engine_for(policy, processor)
    play(engine, GROUPS[:1], turns=1)
    first = engine.take_counters()
    assert first.generated > 0 and first.steps > 0 and first.prefilled == first.unique > 0
    assert engine.take_counters() == Counters()


def test_switched_weights_are_sampled_from_and_recorded(policy, processor):
    engine, fresh = engine_for(policy, processor), policy_model.load_base(SPEC, CPU)
    asyncio.run(engine.switch(fresh, 7))
    switched = play(engine, GROUPS[:1])
    assert [[s.tokens for s in row] for row in switched] == [
        [s.tokens for s in row] for row in play(engine_for(fresh, processor), GROUPS[:1])
    ]
    assert {segment.version for row in switched for segment in row if segment.source == "model"} == {7}


def test_many_waiting_images_are_encoded_in_bounded_passes(policy, processor):
    vision = policy_model.vision_of(policy, processor)
    shown = [image(seed) for seed in range(2 * MAX_PASS_IMAGES + 3)]
    vision.add(shown)
    vision[shown[-1].hash]
    assert vision.encoded == MAX_PASS_IMAGES
    for each in shown:
        vision[each.hash]
    assert vision.encoded == len(shown)


def test_a_pass_of_the_vision_tower_is_bounded_by_its_patches(policy, processor, monkeypatch):
    vision, shown = policy_model.vision_of(policy, processor), [image(seed) for seed in range(4)]
    patches = len(processor.patches(shown[0]).rows)
    monkeypatch.setattr("gog_recipes.models.vision.MAX_PASS_PATCHES", 2 * patches)
    vision.add(shown)
    vision[shown[0].hash]
    assert vision.encoded == 2
    monkeypatch.setattr("gog_recipes.models.vision.MAX_PASS_PATCHES", 1)
    vision[shown[2].hash]  # one image always goes
    assert vision.encoded == 3


def test_features_do_not_depend_on_the_pass_that_an_image_was_in(policy, processor):
    together, alone = policy_model.vision_of(policy, processor), policy_model.vision_of(policy, processor)
    shown = [image(seed, side) for seed, side in ((1, 112), (2, 28), (3, 112))]
    together.add(shown)
    for each in shown:
        alone.add([each])
        assert torch.allclose(together[each.hash], alone[each.hash], atol=1e-5)


async def interrupted(policy, processor, question, shown, seeds, turns, resumed_after):
    """Segments of conversations of `turns` turns, which another engine resumes after `resumed_after` of them."""
    first, second = engine_for(policy, processor), engine_for(policy, processor)
    crops = [image(seed, 28) for turn in range(turns) for seed in (turn, turn + 50)]
    sessions = await open_group(first, question, shown, seeds)
    for turn in range(resumed_after):
        await asyncio.gather(*(session.generate() for session in sessions))
        for session in sessions:
            session.observe(await session.encode(TWO_CROPS, [image(turn, 28), image(turn + 50, 28)]))
    text = prompts.prompt(question, style=second.style, tools=SEARCH_TOOLS)
    earlier = [session.segments() for session in sessions]
    sessions = await second.open(text, [shown, *crops], seeds, resume=earlier if resumed_after else None)
    for turn in range(resumed_after, turns):
        await asyncio.gather(*(session.generate() for session in sessions))
        if turn + 1 < turns:
            for session in sessions:
                session.observe(await session.encode(TWO_CROPS, [image(turn, 28), image(turn + 50, 28)]))
    return [session.segments() for session in sessions]


@pytest.mark.parametrize("resumed_after", [1, 2])
def test_a_resumed_conversation_samples_what_the_uninterrupted_one_does(policy, processor, resumed_after):
    args = (policy, processor, "what colour is the ring ?", image(1), [(7, n) for n in range(3)], 3)
    whole, resumed = asyncio.run(interrupted(*args, 0)), asyncio.run(interrupted(*args, resumed_after))
    assert [[segment.tokens for segment in row] for row in resumed] == [[s.tokens for s in row] for row in whole]
    logprobs = [[value for row in rows for segment in row for value in segment.logprobs] for rows in (whole, resumed)]
    assert np.allclose(*logprobs, atol=1e-5)


def test_a_group_may_hold_resumed_conversations_beside_new_ones(policy, processor):
    engine = engine_for(policy, processor)
    text = prompts.prompt("what colour is the ring ?", style=engine.style, tools=SEARCH_TOOLS)

    async def run():
        (earlier,) = await engine.open(text, [image(1)], [(7, 0)])
        await earlier.generate()
        both = await engine.open(text, [image(1)], [(7, 0), (7, 1)], resume=[earlier.segments(), ()])
        await asyncio.gather(*(session.generate() for session in both))
        (alone,) = await engine.open(text, [image(1)], [(7, 1)])
        await alone.generate()
        return [session.segments() for session in (*both, alone)]

    resumed, fresh, alone = asyncio.run(run())
    assert [segment.source for segment in resumed] == ["prompt", "model", "model"]
    assert [segment.tokens for segment in fresh] == [segment.tokens for segment in alone]


def test_segments_of_another_conversation_are_not_resumed(policy, processor):
    engine = engine_for(policy, processor)
    text = prompts.prompt("what colour is the ring ?", style=engine.style, tools=SEARCH_TOOLS)
    (session,) = asyncio.run(engine.open(text, [image(1)], [(1,)]))
    prompt = session.segments()[0]
    crop = Segment(source="observation", tokens=(processor.image_pad,), images=("unknown",))
    for segments, reason in (
        ([prompt.model_copy(update={"tokens": prompt.tokens[1:]})], "has another prompt"),
        ([prompt, prompt.model_copy(update={"tokens": prompt.tokens * 50})], "tokens, the limit is 192"),
        ([prompt, crop], "shows image unknown, which is not given"),
    ):
        with pytest.raises(ValueError, match=reason):
            asyncio.run(engine.open(text, [image(1)], [(1,)], resume=[segments]))


def test_an_engine_at_rest_holds_no_cache_and_samples_again_when_a_conversation_opens(policy, processor):
    engine = engine_for(policy, processor)
    before = play(engine, GROUPS)
    asyncio.run(engine.rest())
    assert engine.decoder.cache.bytes == 0
    assert [[s.tokens for s in row] for row in play(engine, GROUPS)] == [[s.tokens for s in row] for row in before]


class Overflowing:
    """Image features of which those of one image are not finite."""

    def __init__(self, vision, spoiled):
        self.vision, self.spoiled = vision, spoiled

    def __contains__(self, key):
        return key in self.vision

    def __getattr__(self, name):
        return getattr(self.vision, name)

    def __getitem__(self, key):
        return self.vision[key] * (float("inf") if key == self.spoiled else 1.0)


def test_a_log_prob_that_is_not_finite_ends_its_own_conversation_and_no_other(policy, processor):
    engine = engine_for(policy, processor)
    engine.vision = Overflowing(engine.vision, image(2).hash)

    async def run():
        sessions = [
            (await open_group(engine, "what colour is the ring ?", image(number), [(7, number)]))[0]
            for number in range(1, 4)
        ]
        return await asyncio.gather(*(session.generate() for session in sessions), return_exceptions=True)

    first, spoiled, last = asyncio.run(run())
    assert isinstance(spoiled, NotFinite) and first.text and last.text
    assert spoiled.what == "the policy of version 0 samples tokens with a log-prob that is not finite"

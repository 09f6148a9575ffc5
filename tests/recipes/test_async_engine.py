"""New weights under open conversations: turns belong to one version, and the trainer agrees about each."""

from __future__ import annotations

import asyncio
import contextlib

import pytest
import torch
from support import learning, plain
from support.engine_play import TWO_CROPS, engine_for, image, open_group

from gog import exclusion, prompts
from gog.catalog import SEARCH_TOOLS
from gog.errors import UserError
from gog.spec import GRPOConfig, ModelSpec
from gog_recipes import losses
from gog_recipes.models import policy_model
from gog_recipes.runtime import checkpoint
from gog_recipes.runtime.canary import Canary, Conversation
from gog_recipes.runtime.learner import Learner, StepRollout
from gog_recipes.runtime.ranks import SINGLE

SPEC = ModelSpec(base="tiny")
CPU = torch.device("cpu")
NEEDED = {"model": {"base": "tiny"}, "data": {"world": {}}, "store": {"uri": "file:///unused"}}


@pytest.fixture
def policy():
    return learning.adapted(SPEC)


@pytest.fixture(scope="module")
def processor():
    return policy_model.load_processor(SPEC)


@torch.no_grad()
def nudge(policy, seed=0):
    """Changes what the adapter computes."""
    torch.manual_seed(seed)
    for each in checkpoint.trainable(policy).values():
        each.add_(torch.randn_like(each) * 0.02)


@contextlib.asynccontextmanager
async def opened(engine, samples=2):
    sessions = await open_group(engine, "what colour is the ring ?", image(1), [(7, n) for n in range(samples)])
    try:
        yield sessions
    finally:
        for each in sessions:
            each.close()


async def observe(session):
    session.observe(await session.encode(TWO_CROPS, [image(2, 28), image(3, 28)]))


def logprobs(policy, processor, vision, row):
    batch = policy_model.collate([row], processor, vision, CPU)
    with torch.no_grad():
        logits, tokens = plain.forward(policy, batch, processor, vision)
    return plain.logprobs(logits, tokens, processor, 1.0)


def test_the_next_turn_of_an_open_conversation_is_sampled_from_the_new_weights_alone(policy, processor):
    engine = engine_for(policy, processor)

    async def play():
        async with opened(engine) as sessions:
            for each in sessions:
                await each.generate()
                await observe(each)
            before = logprobs(policy, processor, engine.vision, sessions[0].segments())
            await engine.hold()
            nudge(policy)
            await engine.switch(policy, 5)
            for each in sessions:
                await each.generate()
            return before, [each.segments() for each in sessions]

    before, rows = asyncio.run(play())
    after = logprobs(policy, processor, engine.vision, rows[0])
    old, new = [segment for segment in rows[0] if segment.source == "model"]
    assert (old.version, new.version) == (0, 5)
    count = sum(old.loss_mask())
    assert float((before - torch.tensor(old.logprobs[:count])).abs().max()) < 1e-4
    assert float((after[count:] - torch.tensor(new.logprobs[: sum(new.loss_mask())])).abs().max()) < 1e-4
    assert float((after[:count] - before).abs().max()) > 1e-3, "the update changes nothing"


def test_a_turn_under_way_ends_on_its_weights_and_one_that_is_asked_for_waits_for_the_new_ones(policy, processor):
    engine = engine_for(policy, processor)

    async def play():
        async with opened(engine) as (first, second):
            under_way = asyncio.create_task(first.generate())
            while not first.slot.turn:
                await asyncio.sleep(0)
            holding = asyncio.create_task(engine.hold())
            await asyncio.sleep(0)
            later = asyncio.create_task(second.generate())
            await holding
            assert under_way.done() or first.slot.waiting is None
            for _ in range(50):
                await asyncio.sleep(0)
            assert not later.done() and not engine.busy
            nudge(policy)
            await engine.switch(policy, 1)
            await asyncio.gather(under_way, later)
            return [each.segments()[-1].version for each in (first, second)]

    assert asyncio.run(play()) == [0, 1]


def test_turns_under_way_end_although_the_cache_holds_only_some_of_them(policy, processor):
    layout = engine_for(policy, processor).decoder.layout
    engine = engine_for(policy, processor, tokens=192, kv_cache_bytes=int(1.2 * layout.conversation_bytes(192)))

    async def turn(session):
        await session.generate()
        if session.slot.segments[-1].version:  # the others keep what they hold, as if their tools were slow
            session.close()

    async def play():
        async with opened(engine, 3) as sessions:
            turns = [asyncio.create_task(turn(each)) for each in sessions]
            while not any(each.slot.turn for each in sessions):
                await asyncio.sleep(0)
            under_way = [each for each in sessions if each.slot.turn]
            await engine.hold()
            assert all(each.slot.segments[-1].source == "model" for each in under_way)
            nudge(policy)
            await engine.switch(policy, 1)
            await asyncio.gather(*turns)
            return [each.segments()[-1].version for each in sessions], len(under_way)

    versions, under_way = asyncio.run(asyncio.wait_for(play(), 60))
    assert sorted(versions) == [0] * under_way + [1] * (3 - under_way)


def test_a_conversation_that_met_new_weights_equals_one_that_was_resumed_with_them(policy, processor):
    engine = engine_for(policy, processor, deterministic=True)

    async def play():
        async with opened(engine, 1) as (session,):
            await session.generate()
            await observe(session)
            kept = session.segments()
            await engine.switch(policy, 1)
            await session.generate()
            straight = session.segments()
        return kept, straight

    kept, straight = asyncio.run(play())

    async def resume():
        text = prompts.prompt("what colour is the ring ?", style=engine.style, tools=SEARCH_TOOLS)
        shown = [image(1), image(2, 28), image(3, 28)]
        (session,) = await engine.open(text, shown, [(7, 0)], resume=[kept])
        await session.generate()
        session.close()
        return session.segments()

    assert asyncio.run(resume()) == straight


def configuration(**settings):
    return GRPOConfig.model_validate(NEEDED | {"clip_grad_norm": 1e9, "micro_batch_tokens": 70} | settings)


def learner_of(policy, processor, vision, **settings):
    sgd = torch.optim.SGD([each for each in policy.parameters() if each.requires_grad], lr=0.1)
    return Learner(configuration(**settings), losses.load("grpo"), policy, processor, vision, sgd, SINGLE)


def rollout_of(group):
    return StepRollout([group], [group], exclusion.count([group]), 0)


def test_an_update_in_parts_is_the_update_and_the_weights_change_in_the_last_part_only(policy, processor):
    vision = policy_model.vision_of(policy, processor)
    group = learning.trajectories(processor, vision, (1, 3, 2))
    before = checkpoint.fingerprint(policy)
    parts = learner_of(policy, processor, vision, max_logprob_gap=1e6).updating(rollout_of(group), step=1)
    flags = []
    with contextlib.suppress(StopIteration):
        while True:
            flags.append(next(parts))
            assert checkpoint.fingerprint(policy) == before
    assert len(flags) > 2 and flags == [False] * (len(flags) - 1) + [True]
    other = learning.adapted(SPEC)
    whole = learner_of(other, processor, vision, max_logprob_gap=1e6)
    whole.update(rollout_of(group), step=1)
    assert checkpoint.fingerprint(other) == checkpoint.fingerprint(policy) != before


def recorded(policy, processor, vision, shift):
    """A group whose first turns version 3 sampled as the trainer would have but for a shift, the others version 4 exactly."""
    group = []
    for item in learning.trajectories(processor, vision, (2, 2)):
        values = logprobs(policy, processor, vision, item.segments).tolist()
        segments, first = [], True
        for segment in item.segments:
            if segment.source == "model":
                count = len(segment.tokens)
                own, values = values[:count], values[count:]
                update = {"version": 3 if first else 4, "logprobs": tuple(x + shift * first for x in own)}
                segment, first = segment.model_copy(update=update), False
            segments.append(segment)
        group.append(item.model_copy(update={"segments": tuple(segments)}))
    return group


def finish(parts):
    while True:
        try:
            next(parts)
        except StopIteration as ended:
            return ended.value


def test_tokens_of_earlier_weights_are_corrected_and_not_taken_for_an_engine_that_differs(policy, processor):
    vision = policy_model.vision_of(policy, processor)
    group = recorded(policy, processor, vision, shift=-0.5)
    learner = learner_of(policy, processor, vision)
    stats = finish(learner.updating(rollout_of(group), step=5, version=4))
    assert stats.gap.logp_diff_max < 1e-4 and 1.1 < stats.gap.tis_weight_mean < 1.65
    fresh = learner_of(learning.adapted(SPEC), processor, vision)
    with pytest.raises(UserError, match="engine and trainer differ by"):
        finish(fresh.updating(rollout_of(group), step=4, version=3))


def test_a_step_that_only_earlier_weights_sampled_has_no_gap(policy, processor):
    vision = policy_model.vision_of(policy, processor)
    group = recorded(policy, processor, vision, shift=-0.5)
    stats = finish(learner_of(policy, processor, vision).updating(rollout_of(group), step=9, version=8))
    assert stats.gap.logp_diff_mean is None and stats.gap.engine_kl is None and stats.gap.tis_weight_mean > 1


class Trained:
    """A policy at version 2 whose engine sampled a conversation at each version."""

    def __init__(self, policy, processor, staleness):
        self.policy, engine = policy, engine_for(policy, processor)
        self.canary = Canary(
            policy, processor, engine.vision, [], SINGLE, temperature=1.0, bound=None, staleness=staleness
        )
        self.conversations = []
        for version in range(3):
            if version:
                nudge(policy, version)
                asyncio.run(engine.switch(policy, version))
            self.conversations.append(asyncio.run(self._sampled(engine, version)))
            if version < 2:
                self.canary.check([self.conversations[version]], version=version, where="before")

    async def _sampled(self, engine, version):
        async with opened(engine, 1) as (session,):
            await session.generate()
            return Conversation(f"q{version}", session.segments())


def test_the_canary_compares_tokens_with_the_weights_that_sampled_them(policy, processor):
    trained = Trained(policy, processor, staleness=2)
    before = checkpoint.fingerprint(policy)
    for version in range(3):
        found = trained.canary.check([trained.conversations[version]], version=2, where="step 3")
        assert found.canary_engine < 1e-5
    assert checkpoint.fingerprint(policy) == before


def test_the_canary_refuses_what_older_weights_than_allowed_sampled(policy, processor):
    trained = Trained(policy, processor, staleness=1)
    with pytest.raises(UserError, match="sampled q0 from version 0 of the weights, the trainer has 2"):
        trained.canary.check(trained.conversations[:1], version=2, where="step 3")

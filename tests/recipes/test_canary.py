"""The canary: no alarm for a healthy policy of any type; each way to lose the adapter, the images or an update is caught."""

from __future__ import annotations

import asyncio
import copy
import re

import numpy as np
import pytest
import torch

from gog import prompts
from gog.engine import Limits
from gog.errors import UserError
from gog.images import Image
from gog.spec import LoraSettings, ModelSpec
from gog_recipes.models import lora, policy_model
from gog_recipes.rollout.engine import Parts
from gog_recipes.rollout.transformers import TransformersEngine
from gog_recipes.runtime import canary, canary_verdict, checkpoint
from gog_recipes.runtime.canary import Canary, Conversation
from gog_recipes.runtime.ranks import SINGLE

CPU = torch.device("cpu")
LIMITS = Limits(160, 12, 1.0)


def nudge(model, size, seed=0):
    """Moves the trained B by random numbers of this size."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for name, each in checkpoint.trainable(model).items():
            if ".lora_B." in name:
                each.add_(torch.randn_like(each) * size)


@pytest.fixture(scope="module")
def sft(tmp_path_factory):
    """An adapter as SFT leaves it."""
    folder = tmp_path_factory.mktemp("sft")
    torch.manual_seed(0)  # of the adapter's As, on which the size of its effect depends
    model = lora.add(policy_model.load_base(ModelSpec(base="tiny"), CPU), LoraSettings())
    nudge(model, 0.05)
    model.save_pretrained(str(folder))
    return folder


class Trainer:
    """A policy with its canary and an engine of its own."""

    def __init__(self, dtype, sft):
        spec = ModelSpec(base="tiny", dtype=dtype)
        torch.manual_seed(0)
        self.processor = policy_model.load_processor(spec)
        self.model = lora.add(lora.with_saved(policy_model.load_base(spec, CPU), [sft]), LoraSettings()).eval()
        self.vision = policy_model.vision_of(self.model, self.processor)
        self.canary = Canary(
            self.model, self.processor, self.vision, [sft], SINGLE, temperature=LIMITS.temperature, bound=None
        )
        self.engine = self.engine_of(self.model)

    def engine_of(self, model, vision=None, version=0):
        return TransformersEngine(Parts(model, self.processor, vision or self.vision, LIMITS, 8, version))

    def sampled(self, engine=None, count=6):
        """Turns by an engine."""
        engine = engine or self.engine
        images = [Image(np.random.default_rng(n).integers(0, 256, (56, 84, 3), dtype=np.uint8)) for n in range(count)]
        self.vision.add(images)

        async def play():
            text = prompts.prompt("what is this?", style=engine.style)
            sessions = [(await engine.open(text, [image], [(1, n)]))[0] for n, image in enumerate(images)]
            await asyncio.gather(*(each.generate() for each in sessions))
            found = [Conversation(f"q{n}", each.segments()) for n, each in enumerate(sessions)]
            for each in sessions:
                each.close()
            return found

        return asyncio.run(play())

    def check(self, conversations, version=0):
        return self.canary.check(conversations, version=version, where="step 3")

    def refusal(self, conversations, version=0):
        with pytest.raises(UserError) as caught:
            self.check(conversations, version)
        return caught.value.what


@pytest.fixture(params=["float32", "bfloat16"])
def trainer(request, sft):
    return Trainer(request.param, sft)


def test_a_healthy_policy_raises_no_alarm_and_its_effects_are_reported(trainer):
    found = trainer.check(trainer.sampled())
    exact = trainer.model.dtype == torch.float32
    assert found.canary_engine < (1e-5 if exact else 0.03)
    assert found.canary_adapter > 10 * found.canary_engine and found.canary_images > 10 * found.canary_engine


def test_the_check_leaves_the_policy_as_it_was(trainer):
    conversations = trainer.sampled()
    trainer.check(conversations)
    nudge(trainer.model, 0.02)
    before = {name: each.clone() for name, each in trainer.model.named_parameters()}
    wanted = {name for name, each in trainer.model.named_parameters() if each.requires_grad}
    with pytest.raises(UserError):  # the policy has moved away from the engine
        trainer.check(conversations)
    assert all(torch.equal(each, before[name]) for name, each in trainer.model.named_parameters())
    assert {name for name, each in trainer.model.named_parameters() if each.requires_grad} == wanted
    trainer.check(trainer.sampled(trainer.engine_of(trainer.model, version=1)), version=1)


def test_an_engine_without_the_adapter_is_caught(trainer):
    bare = policy_model.load_base(ModelSpec(base="tiny", dtype=str(trainer.model.dtype).removeprefix("torch.")), CPU)
    found = trainer.refusal(trainer.sampled(trainer.engine_of(bare)))
    assert re.match(r"step 3: the engine's policy does not see its adapter: over \d+ tokens of 4 trajectories ", found)


class Spoiled:
    """Image features of an engine that get lost on the way."""

    def __init__(self, vision, how):
        self.vision, self.how = vision, how

    def __contains__(self, key):
        return key in self.vision

    def __getattr__(self, name):
        return getattr(self.vision, name)

    def __getitem__(self, key):
        return self.how(self.vision[key])


def test_an_engine_that_shows_the_parts_of_an_image_in_another_order_is_caught(trainer):
    engine = trainer.engine_of(trainer.model, Spoiled(trainer.vision, lambda features: features.roll(2, 0)))
    assert "engine and trainer differ by" in trainer.refusal(trainer.sampled(engine))


def test_an_engine_that_leaves_the_placeholders_of_images_is_caught(trainer):
    pad = policy_model.core(trainer.model).get_input_embeddings().weight[trainer.processor.image_pad].detach()
    engine = trainer.engine_of(trainer.model, Spoiled(trainer.vision, lambda features: pad.expand_as(features)))
    assert "the engine's policy does not see its images" in trainer.refusal(trainer.sampled(engine))


def test_an_engine_whose_switch_was_skipped_is_caught_by_its_version(trainer):
    conversations = trainer.sampled()
    trainer.check(conversations)
    found = trainer.refusal(conversations, version=1)
    assert found.endswith("the engine sampled q0 from version 0 of the weights, the trainer has 1")


def test_turns_of_other_weights_under_the_same_version_are_not_read(sft):
    """An earlier attempt sampled them, whose weights of that version were others."""
    trainer = Trainer("float32", sft)
    conversations = trainer.sampled()
    nudge(trainer.model, 0.05)
    assert "the engine's policy does not see the adapter that is trained" in trainer.refusal(conversations)
    others = [Conversation(each.id, [_of_other_weights(part) for part in each.segments]) for each in conversations]
    assert trainer.check(others).canary_engine is None
    own = trainer.sampled(trainer.engine_of(trainer.model), count=1)
    continued = Conversation("q", [*own[0].segments, *others[0].segments[1:]])
    assert trainer.check([*others, continued]).canary_engine < 1e-5


def _of_other_weights(segment):
    return segment.model_copy(update={"weights": "others"}) if segment.source == "model" else segment


def test_an_engine_that_claims_weights_it_has_not_loaded_is_caught(sft):
    trainer = Trainer("float32", sft)
    trainer.check(trainer.sampled())
    stale = trainer.engine_of(trainer.model, version=1)
    nudge(trainer.model, 2e-4)
    assert "the engine's policy is that before the last update" in trainer.refusal(trainer.sampled(stale), version=1)


def test_an_engine_that_never_got_the_adapter_that_is_trained_is_caught_below_the_bound(trainer):
    """It has that of SFT and the weights of many steps ago, to which those before the last update are not near."""
    drift = 1e-4 if trainer.model.dtype == torch.float32 else 1e-2
    stale = trainer.engine_of(trainer.model, version=2)
    nudge(trainer.model, drift)
    trainer.check(trainer.sampled(trainer.engine_of(trainer.model, version=1)), version=1)
    nudge(trainer.model, drift / 50, seed=1)
    conversations = trainer.sampled(stale)
    found = {each.id: each.engine for each in trainer.canary._read(conversations)}
    suspect = [each for each in conversations if found[each.id] > trainer.canary.rounding]  # a later step reads them
    assert sum(found[each.id] for each in suspect) < trainer.canary.bound * len(suspect)
    assert "the engine's policy does not see the adapter that is trained" in trainer.refusal(suspect, version=2)


def test_a_policy_that_does_not_see_its_images_is_caught(trainer, monkeypatch):
    conversations = trainer.sampled()
    monkeypatch.setattr(policy_model, "features", lambda batch, vision: None)
    found = trainer.refusal(conversations)
    assert re.fullmatch(
        r"step 3: the policy does not see its images: without them, log-probabilities of \d+ tokens of 4 trajectories are "
        r"the same",
        found,
    )


def test_a_policy_that_does_not_see_its_adapter_is_caught(sft):
    trainer = Trainer("bfloat16", sft)
    conversations = trainer.sampled()
    for layer in trainer.model.modules():
        if isinstance(layer, lora.LoraLayer):
            layer.scaling[lora.FROZEN] = 0.0
    assert trainer.refusal(conversations).startswith("step 3: the policy does not see its adapter: without it, ")


def test_adapters_that_were_never_trained_are_not_missed(tmp_path):
    model = lora.add(policy_model.load_base(ModelSpec(base="tiny"), CPU), LoraSettings())
    model.save_pretrained(str(tmp_path))
    trainer = Trainer("float32", tmp_path)
    assert trainer.check(trainer.sampled()).canary_adapter is None


def test_the_removal_of_merged_adapters_is_the_base_model(sft):
    spec = ModelSpec(base="tiny")
    base = policy_model.load_base(spec, CPU)
    model = lora.add(lora.with_saved(copy.deepcopy(base), [sft]), LoraSettings()).eval()
    nudge(model, 0.05)
    ids, positions = torch.arange(12)[None], torch.arange(12).expand(3, 1, 12)

    def hidden(policy):
        return policy_model.family_of(policy).hidden_states(policy_model.core(policy), ids, positions, None).detach()

    with lora.Removal(model, [sft]).removed():
        torch.testing.assert_close(hidden(model), hidden(base), rtol=1e-4, atol=1e-4)
    assert not torch.allclose(hidden(model), hidden(base), atol=1e-2)


def test_what_was_merged_is_computed_where_the_policy_computes_although_shards_may_be_elsewhere(sft, monkeypatch):
    model = lora.add(lora.with_saved(policy_model.load_base(ModelSpec(base="tiny"), CPU), [sft]), LoraSettings())
    monkeypatch.setattr(policy_model, "device_of", lambda _: torch.device("meta"))  # stands for a GPU
    updates = lora.Removal(model, [sft])._updates.values()
    assert {each.device.type for pairs in updates for pair in pairs for each in pair} == {"meta"}


# ---------------------------------------------------------------- what is read


@pytest.fixture
def passes(monkeypatch):
    """Conversations of each forward pass of the trainer."""
    found, forward = [], policy_model.token_logprobs

    def counted(model, batch, *rest, **settings):
        found.append(sum(len(tree.suffixes) for tree in batch.layout))
        return forward(model, batch, *rest, **settings)

    monkeypatch.setattr(policy_model, "token_logprobs", counted)
    return found


def shifted(conversations, gap):
    """The conversations as an engine would have recorded them that differs by so many nats in the first one."""
    segments = [
        each.model_copy(update={"logprobs": tuple(value + gap for value in each.logprobs)})
        for each in conversations[0].segments
    ]
    return [Conversation(conversations[0].id, segments), *conversations[1:]]


def test_a_step_without_a_suspicion_costs_three_passes_over_one_conversation(sft, passes):
    trainer = Trainer("float32", sft)
    conversations = trainer.sampled()
    for _ in range(2):  # from the second one on there are weights before the last update
        trainer.check(conversations)
    assert passes == [1, 1, 1] * 2


def test_a_suspicion_is_decided_over_four_conversations(sft, passes):
    trainer = Trainer("float32", sft)
    conversations = trainer.sampled()
    trainer.check(conversations)
    passes.clear()
    trainer.check(shifted(conversations, 5e-4))  # above rounding, below the bound
    assert passes == [1, 1, 1, 4, 4, 4, 4]
    trainer.check(shifted(conversations, 1.0))  # of a single conversation, which the bound on the step covers
    assert "differ by" in trainer.refusal([shifted([each], 1.0)[0] for each in conversations])


def test_other_conversations_are_read_in_the_next_step(sft):
    conversations = Trainer("float32", sft).sampled()
    assert [canary._beginnings(conversations, 4, version)[0].id for version in range(7)] == [
        *(f"q{n}" for n in range(6)),
        "q0",
    ]


# ---------------------------------------------------------------- the decision


def reading(engine, *, tokens=20, **variants):
    pairs = {name: canary_verdict.Variant(*pair) for name, pair in variants.items()}
    return canary_verdict.Reading("q", tokens, engine, pairs)


def test_a_trajectory_in_which_the_image_does_not_matter_is_no_alarm_as_long_as_another_shows_its_effect():
    own = [reading(1e-7, images=(0.0, 1e-7)), reading(1e-7, images=(0.2, 0.2))]
    assert canary_verdict.decide(own, 1e-3, 1e-5) is None
    found = canary_verdict.decide(own[:1], 1e-3, 1e-5)
    assert found is not None and "does not see its images" in found.what


def test_an_effect_smaller_than_the_noise_of_kernels_is_no_alarm():
    own = [reading(0.02, images=(0.004, 0.0204), adapter=(0.004, 0.0204), update=(0.0001, 0.02))] * 4
    assert canary_verdict.decide(own, 0.1, 0.02) is None


def test_an_update_too_small_to_be_seen_is_no_alarm():
    assert canary_verdict.decide([reading(0.01, update=(0.0, 0.01))] * 4, 0.1, 0.02) is None


def test_an_update_that_only_changes_what_is_rounded_up_is_no_alarm_in_that_type():
    """As measured for a Qwen3-VL structure in bfloat16 after one update at a rate of 4e-7."""
    own = [reading(0.000467, tokens=89, update=(0.00045, 0.000103))]
    assert canary_verdict.decide(own, 0.1, canary_verdict.ROUNDING["bfloat16"]) is None
    found = canary_verdict.decide(own, 1e-3, canary_verdict.ROUNDING["float32"])
    assert found is not None and "is that before the last update" in found.what


def test_the_gap_of_one_odd_trajectory_is_left_to_the_bound_on_the_step():
    assert canary_verdict.decide([reading(0.01)] * 3 + [reading(2.0)], 0.1, 0.02) is None
    found = canary_verdict.decide([reading(0.2)] * 3 + [reading(2.0)], 0.1, 0.02)
    assert found is not None and "the bound is 0.1" in found.what


def test_nothing_read_is_no_alarm():
    assert canary_verdict.decide([], 1e-3, 1e-5) is None


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_log_probs_that_are_not_finite_stop_the_stage_with_the_trajectory_s_name(bad):
    found = canary_verdict.decide([reading(1e-7), reading(1e-7, images=(bad, 0.1))], 1e-3, 1e-5)
    assert found is not None and "of trajectory q are not finite" in found.what
    assert canary_verdict.decide([reading(bad)], 1e-3, 1e-5) is not None

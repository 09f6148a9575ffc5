"""`gog_recipes.estimate`: its bytes are those of the same code on real tensors, item by item, to within a twentieth."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from support.allocations import Allocations
from support.estimate_builders import CONVERSATIONS, LENGTH, configuration
from support.real_structures import FAMILIES, real_base  # noqa: F401 (a fixture)

from gog import exclusion
from gog.engine import Limits
from gog.errors import UserError
from gog.images import Image
from gog.spec import GRPOConfig, SFTConfig
from gog.trajectory import Segment, Trajectory, Turn
from gog_recipes import losses
from gog_recipes.estimate import phases, published, report, subject, trace
from gog_recipes.estimate.meter import Item
from gog_recipes.estimate.request import Request, StageRequest
from gog_recipes.models import checkpointing, lora, packing, policy_model
from gog_recipes.rollout.engine import Parts
from gog_recipes.rollout.transformers import TransformersEngine
from gog_recipes.runtime import optimizer
from gog_recipes.runtime.learner import Learner, StepRollout
from gog_recipes.runtime.ranks import SINGLE

CPU = torch.device("cpu")
MINUTES = pytest.mark.exhaustive
"""A CPU without instructions for bfloat16 multiplies in it ten times slower."""
CLOSE = 0.05
"""Largest relative difference between an estimate and what is allocated; a tenth is promised."""


@dataclass
class Real:
    """A real policy on the CPU, set up as the recipes do."""

    cfg: Any

    def __post_init__(self) -> None:
        base = policy_model.load_base(self.cfg.model, CPU, self.cfg.base_quantization)
        self.processor = policy_model.load_processor(self.cfg.model)
        self.model = lora.add(base, self.cfg.lora).eval()
        checkpointing.apply(self.model, self.cfg.activation_checkpointing, self.cfg.micro_batch_tokens)
        self.vision = policy_model.vision_of(self.model, self.processor)
        self.image = Image(np.random.default_rng(0).integers(0, 255, (self.side, self.side, 3), dtype=np.uint8))
        self.vision.add([self.image])
        self.optimizer = optimizer.build(self.cfg.optimizer, self.model.parameters(), 1e-6)

    @property
    def side(self) -> int:
        """Of an image that takes up half of a conversation."""
        settings = policy_model.core(self.model).config.vision_config
        return int((LENGTH // 2) ** 0.5) * settings.patch_size * settings.spatial_merge_size

    def bytes(self, *, adapters: bool) -> int:
        own = [p for name, p in self.model.named_parameters() if (".lora_" in name) == adapters]
        own += [] if adapters else list(self.model.buffers())
        return sum({each.untyped_storage().data_ptr(): each.untyped_storage().nbytes() for each in own}.values())

    def optimizer_bytes(self) -> int:
        states = (each for state in self.optimizer.state.values() for each in state.values())
        return sum(each.nbytes for each in states if isinstance(each, torch.Tensor))

    def segments(self, tokens: int, written: int, number: int = 0, *, shown: bool = True) -> tuple[Segment, ...]:
        """A conversation; its prompt is another one for every number."""
        image = [self.processor.image_pad] * self.vision.tokens(self.image.hash) if shown else []
        written = min(written, tokens - len(image) - 1)  # room for the number
        text = [number, *[self.processor.turn_end] * (tokens - written - len(image) - 1)]
        return (
            Segment(source="prompt", tokens=(*text, *image), images=(self.image.hash,) if shown else ()),
            Segment(source="model", tokens=(self.processor.turn_end,) * written, logprobs=(-1.0,) * written),
        )

    def trajectory(self, number: int, *segments: Segment) -> Trajectory:
        return Trajectory(
            id=str(number), question_id="", question="", answers=("",), image="", stop="answer", advantage=1.0,
            turns=(Turn(text="", action="answer"),), segments=segments,
        )  # fmt: skip

    def update(self, conversations: list[tuple[Segment, ...]]) -> None:
        """An optimizer step of the stage."""
        if isinstance(self.cfg, SFTConfig):
            self._fine_tune(conversations)
            return
        groups = [[self.trajectory(number, *each) for number, each in enumerate(conversations)]]
        learner = Learner(
            self.cfg, losses.load("grpo"), self.model, self.processor, self.vision, self.optimizer, SINGLE,
            together=self.cfg.micro_batch_tokens,  # as on a GPU
        )  # fmt: skip
        learner.update(StepRollout(groups, groups, exclusion.count(groups), 0), step=1)

    def _fine_tune(self, rows: list[tuple[Segment, ...]]) -> None:
        for members in packing.passes(rows, self.cfg.micro_batch_tokens):
            batch = policy_model.collate([rows[each] for each in members], self.processor, self.vision, CPU)
            (
                -policy_model.token_logprobs(self.model, batch, policy_model.features(batch, self.vision)).sum()
            ).backward()
        optimizer.apply_step(self.optimizer, self.model, SINGLE, step=1, loss=0.0, grad_norm=0.0)


def measured_update(real: Real) -> tuple[int, int]:
    """Peak of an update of two full passes when the optimizer has its state; bytes of the gradients."""
    real.vision[real.image.hash]  # encoded before, as in a rollout
    real.update([real.segments(16, 8, shown=False)])
    gradients: list[int] = []
    real.optimizer.register_step_pre_hook(
        lambda *_: gradients.append(sum(p.grad.nbytes for p in real.model.parameters() if p.grad is not None))
    )
    with Allocations() as found:
        real.update([real.segments(LENGTH, trace.conversation(real.cfg).learned, number) for number in range(4)])
    return found.peak, gradients[-1]


def of(items: dict[Item, int], *wanted: Item) -> int:
    return sum(items[item] for item in wanted)


def assert_close(estimated: int, real: int, what: str) -> None:
    assert abs(estimated - real) <= CLOSE * real, f"{what}: {estimated:,} bytes are estimated, {real:,} allocated"


@pytest.mark.parametrize(
    ("family", "kind", "dtype", "setting", "quantization"),
    [
        ("qwen3_vl", SFTConfig, "float32", "on", "none"),
        ("qwen3_vl_moe", GRPOConfig, "float32", "off", "none"),
        pytest.param("qwen2_5_vl", GRPOConfig, "bfloat16", "on", "none", marks=MINUTES),
        pytest.param("qwen3_vl", GRPOConfig, "bfloat16", "off", "none", marks=MINUTES),
        pytest.param("qwen2_5_vl", GRPOConfig, "bfloat16", "on", "nf4", marks=MINUTES),
        pytest.param("qwen3_vl_moe", SFTConfig, "bfloat16", "off", "nf4", marks=MINUTES),
    ],
)
def test_every_item_of_an_update_is_within_a_twentieth_of_what_is_allocated(
    real_base, family, kind, dtype, setting, quantization,  # noqa: F811
):  # fmt: skip
    folder = real_base(family)
    cfg = configuration(kind, folder, dtype, activation_checkpointing=setting, base_quantization=quantization)
    config = json.loads((folder / "config.json").read_text())
    estimated = trace.stage(config, cfg, ranks=1, usable_bytes=10**10).phases["update"]
    real = Real(cfg)
    peak, gradients = measured_update(real)
    assert_close(estimated[Item.BASE], real.bytes(adapters=False), "base weights")
    assert_close(estimated[Item.ADAPTERS], real.bytes(adapters=True), "adapters")
    assert_close(estimated[Item.OPTIMIZER], real.optimizer_bytes(), "optimizer state")
    assert_close(estimated[Item.GRADIENTS], gradients, "gradients")
    beyond = of(estimated, Item.ACTIVATIONS, Item.LOGITS, Item.FEATURES, Item.GRADIENTS)
    assert_close(beyond, peak, "the update beyond weights and optimizer")


@pytest.mark.parametrize("family", FAMILIES)
def test_the_engines_cache_and_its_steps_are_within_a_twentieth_of_what_is_allocated(real_base, family):  # noqa: F811
    folder = real_base(family)
    cfg = configuration(
        GRPOConfig, folder, "float32", concurrent_episodes=CONVERSATIONS, questions_per_step=CONVERSATIONS,
        group_size=2, kv_cache_bytes=2**30, prefill_tokens=LENGTH,
    )  # fmt: skip
    config = json.loads((folder / "config.json").read_text())
    estimated = trace.stage(config, cfg, ranks=1, usable_bytes=10**10).phases
    real = Real(cfg)
    limits = Limits(LENGTH, LENGTH, 1.0)
    with Allocations() as found:
        engine = TransformersEngine(Parts(real.model, real.processor, real.vision, limits, CONVERSATIONS, settings=cfg))
        cache = asyncio.run(fill(engine))
    assert_close(estimated["decode"][Item.CACHE], cache, "key-value cache")
    parts = (Item.COPIES, Item.CACHE, Item.ACTIVATIONS, Item.LOGITS, Item.FEATURES)
    largest = max(of(items, *parts) for name, items in estimated.items() if name not in ("loading", "vision", "update"))
    assert_close(largest, found.peak, "the engine beyond the policy")


async def fill(engine: TransformersEngine) -> int:
    """Lets conversations of one prompt, which decode together, grow to their full length; returns the cache's bytes."""
    ids = engine.processor.encode("glance " * 4 * LENGTH, [])[: LENGTH - 4]
    keys = [(number, 0) for number in range(CONVERSATIONS)]
    sessions = await engine.open(engine.processor.decode(ids), [], keys)
    await asyncio.gather(*(session.generate() for session in sessions))
    size = engine.decoder.cache.bytes
    for session in sessions:
        session.close()
    await engine.close()
    return size


@pytest.mark.parametrize("family", FAMILIES)
def test_a_pass_of_the_vision_tower_is_within_a_twentieth_of_what_is_allocated(real_base, family):  # noqa: F811
    folder = real_base(family)
    cfg = configuration(SFTConfig, folder, "float32")
    config = json.loads((folder / "config.json").read_text())
    of_fake = subject.build(config, cfg, 4, frozen=0, ranks=1)
    [estimated] = phases.encode(of_fake, 336 * 336).values()
    real = Real(cfg)
    settings = policy_model.core(real.model).config.vision_config
    side = 336 // (settings.patch_size * settings.spatial_merge_size) * settings.spatial_merge_size
    count = min(phases.vision.MAX_PASS_IMAGES, phases.vision.MAX_PASS_PATCHES // side**2)
    with Allocations() as found, torch.no_grad():
        rows = torch.zeros(count * side**2, 3 * settings.temporal_patch_size * settings.patch_size**2)
        policy_model.family_of(real.model).encode_images(
            policy_model.core(real.model), rows, torch.tensor([[1, side, side]] * count)
        )
    assert_close(of(estimated, Item.ACTIVATIONS, Item.FEATURES), found.peak, "a pass of the vision tower")


@pytest.mark.parametrize("dtype", ["float32", pytest.param("bfloat16", marks=MINUTES)])
def test_a_deep_model_is_continued_exactly_from_two_shallow_ones(real_base, dtype):  # noqa: F811
    config = json.loads((real_base("qwen3_vl") / "config.json").read_text())
    config["text_config"]["num_hidden_layers"] = 11
    cfg = configuration(GRPOConfig, "unused", dtype, activation_checkpointing="on", kv_cache_bytes=2**30)
    continued = trace.stage(config, cfg, ranks=2, usable_bytes=10**10).phases
    subject.TRACED_WHOLE, kept = 11, subject.TRACED_WHOLE
    try:
        whole = trace.stage(config, cfg, ranks=2, usable_bytes=10**10).phases
    finally:
        subject.TRACED_WHOLE = kept
    for name, items in whole.items():
        assert sum(continued[name].values()) == pytest.approx(sum(items.values()), rel=0.005), name


def test_a_peak_that_moves_with_the_depth_is_not_continued_item_by_item():
    shallow = {"whole": {Item.BASE: 4414, Item.GATHERED: 0}, "forward": {Item.BASE: 2489, Item.GATHERED: 2210}}
    deeper = {"whole": {Item.BASE: 4800, Item.GATHERED: 0}, "forward": {Item.BASE: 4800, Item.GATHERED: 201}}
    subjects = [SimpleNamespace(layers=layers, of=36) for layers in (2, 3)]
    found = trace._at_depth([{"loading": shallow}, {"loading": deeper}], subjects)
    assert found["loading"] == {Item.BASE: 4414 + 34 * 386, Item.GATHERED: 0}


def test_the_largest_moment_of_sharding_is_that_of_the_real_depth():
    """Of two layers it is when embedding and head are sharded, of three and more when the first layer is."""
    config = json.loads(json.dumps(published.CONFIGS["Qwen3-VL-8B"]))
    cfg = configuration(SFTConfig, "unused", "bfloat16", activation_checkpointing="on")
    base = 2 * subject.parameters(config).total
    subjects = [subject.build(config, cfg, layers, frozen=0, ranks=2) for layers in subject.DEPTHS]
    found = trace._at_depth([each.loading for each in subjects], subjects)["loading"]
    assert base < sum(found.values()) < 1.03 * base


def test_an_update_that_the_next_steps_are_played_beside_has_the_engine_s_memory_too(real_base):  # noqa: F811
    config = json.loads((real_base("qwen3_vl") / "config.json").read_text())
    config["text_config"]["num_hidden_layers"] = 1
    few = {"questions_per_step": 2, "group_size": 2, "kv_cache_bytes": 2**20, "prefill_tokens": LENGTH}
    cfg = configuration(GRPOConfig, "unused", "bfloat16", **few, **{"async": {"max_staleness": 2}})
    traced = trace.Trace(config, cfg, ranks=2)
    found = traced.on(10**9)
    alone, update, decode = traced._found["update"], found.phases["update"], found.phases["decode"]
    assert found.wanted == 3 * 2 and alone[Item.CACHE] == alone[Item.COPIES] == 0
    for item in (Item.CACHE, Item.COPIES, Item.GATHERED):
        assert update[item] == alone[item] + decode[item] > alone[item], item


def test_what_the_cpu_keeps_takes_no_memory_of_a_gpu(real_base):  # noqa: F811
    config = json.loads((real_base("qwen3_vl") / "config.json").read_text())

    def update(ranks, offload):
        cfg = configuration(SFTConfig, "unused", "bfloat16", activation_checkpointing="on", offload=offload)
        return trace.stage(config, cfg, ranks=ranks, usable_bytes=10**10).phases["update"]

    shards, kept = update(2, "none"), update(2, "cpu")
    for item in (Item.OPTIMIZER, Item.GRADIENTS, Item.ADAPTERS, Item.HOST):
        assert kept[item] == 0, item
    assert kept[Item.BASE] < shards[Item.BASE] / 5  # buffers
    assert kept[Item.ACTIVATIONS] == pytest.approx(shards[Item.ACTIVATIONS], rel=0.01)
    alone = update(1, "cpu")  # at the peak of a backward pass, before the optimizer step
    assert alone[Item.OPTIMIZER] == 0 < alone[Item.GRADIENTS]


def test_the_vision_tower_is_divided_among_ranks_and_whole_while_they_encode_and_sample(real_base):  # noqa: F811
    config = json.loads((real_base("qwen3_vl") / "config.json").read_text())
    with torch.device("meta"):
        model = subject._model(config, 4, torch.bfloat16)
    tower, whole = (
        sum(each.numel() * each.element_size() for each in part.parameters())
        for part in (policy_model.vision_tower(model), model)
    )
    cfg = configuration(GRPOConfig, "unused", "bfloat16", activation_checkpointing="on", kv_cache_bytes=2**20)
    found = trace.stage(config, cfg, ranks=4, usable_bytes=10**10).phases
    assert_close(found["update"][Item.BASE], whole // 4, "base weights of one of four ranks")
    assert_close(found["vision"][Item.GATHERED], tower, "what is gathered to encode images")
    assert_close(found["decode"][Item.GATHERED], tower, "what is gathered for a rollout")


PARAMETERS = {
    "Qwen2.5-VL-3B": 3_754_622_976,
    "Qwen2.5-VL-7B": 8_292_166_656,
    "Qwen2.5-VL-32B": 33_452_718_336,
    "Qwen3-VL-8B": 8_767_123_696,
    "Qwen3-VL-30B-A3B": 31_070_754_032,
    "Qwen3-VL-32B": 33_357_390_064,
}
"""As the repositories report them."""


@pytest.mark.parametrize("name", published.CONFIGS)
def test_a_published_configuration_has_exactly_as_many_parameters_as_its_repository_reports(name):
    assert subject.parameters(published.CONFIGS[name]).total == PARAMETERS[name]


UNUSABLE = {
    "another architecture": {"model_type": "llama"},
    "no architecture": {"architectures": []},
    "no layers": {"text_config": {"num_hidden_layers": None}},
    "a width in words": {"text_config": {"hidden_size": "wide"}},
    "heads of no size": {"text_config": {"num_attention_heads": 0}},
}


@pytest.mark.parametrize("what", UNUSABLE)
def test_a_configuration_that_no_model_can_be_built_from_is_the_users_error(what):
    config = json.loads(json.dumps(published.CONFIGS["Qwen2.5-VL-3B"]))
    for key, value in UNUSABLE[what].items():
        config[key] = config[key] | value if isinstance(value, dict) else value
    with pytest.raises(UserError):
        subject.parameters(config)


def test_gpus_of_several_sizes_are_estimated_from_one_trace_as_each_by_itself(real_base):  # noqa: F811
    config = json.loads((real_base("qwen3_vl") / "config.json").read_text())
    cfg = configuration(GRPOConfig, "unused", "bfloat16", activation_checkpointing="on")
    together = trace.Trace(config, cfg, ranks=2)
    sizes = (3 * 10**7, 10**9)
    found = [together.on(size) for size in sizes]
    assert found == [trace.stage(config, cfg, ranks=2, usable_bytes=size) for size in sizes]
    assert found[0].conversations < found[1].conversations


def test_several_optimizer_steps_per_rollout_take_time_and_no_memory(real_base):  # noqa: F811
    config = json.loads((real_base("qwen3_vl") / "config.json").read_text())

    def grpo(updates):
        cfg = configuration(GRPOConfig, "unused", "bfloat16", updates_per_rollout=updates, kv_cache_bytes=2**20)
        stage = StageRequest(key="grpo", kind="grpo", gpus=1, gpus_per_node=1, config=cfg.model_dump(mode="json"))
        [found] = report.estimate(Request(gpu_bytes=4 * 10**9, model="small", stages=[stage]), "small", config).stages
        return found

    one, four = grpo(1), grpo(4)
    assert one.phases == four.phases
    # Of a token: forward, backward, checkpointing and the reference; and three quarters of them are read once more.
    assert four.speed.update_seconds == pytest.approx(one.speed.update_seconds * 4.75 / 4)


def test_a_base_is_found_by_its_name():
    names = {
        "Qwen3-VL-8B": "Qwen3-VL-8B",
        "/models/Qwen2.5-VL-7B-Instruct/": "Qwen2.5-VL-7B",
        "hf://Qwen/Qwen3-VL-30B-A3B-Instruct@v1": "Qwen3-VL-30B-A3B",
        "/models/mine": None,
    }
    assert {base: published.name_of(base) for base in names} == names

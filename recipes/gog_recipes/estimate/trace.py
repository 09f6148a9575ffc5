"""The phases of a stage at the real depth, from traces of models with fewer layers.

Decoder layers are alike, so the bytes of an item at a moment grow by the same amount with each. Two depths give that
amount; a model of few layers is traced as it is.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gog.spec import (
    EvaluateConfig,
    GRPOConfig,
    SFTConfig,
    StageConfig,
    StratifyConfig,
)
from gog_recipes.estimate import phases
from gog_recipes.estimate.meter import Bytes, Item
from gog_recipes.estimate.phases import Conversation, Rollout
from gog_recipes.estimate.subject import Subject, build, depths

IMAGE_PIXELS = 1_003_520
"""Pixels of an image where neither the manifest nor the smaller bound of the base model says otherwise."""
TURNS_OF_DEMONSTRATION = 0.5
"""Share of a demonstration that its model wrote, at most."""


@dataclass(frozen=True)
class Traced:
    """A stage at its real depth."""

    phases: dict[str, Bytes]
    """Bytes by item at the peak of each phase, in order of time."""
    conversations: int
    """Conversations that the key-value cache holds at their full length; 0 without a cache."""
    wanted: int
    """Conversations that a rank has open at once."""


def stage(config: Mapping[str, Any], cfg: StageConfig, *, ranks: int, usable_bytes: int, frozen: int = 0) -> Traced:
    """Traces a stage on GPUs of one size; see Trace."""
    return Trace(config, cfg, ranks=ranks, frozen=frozen).on(usable_bytes)


class Trace:
    """What a stage does with memory, whatever the size of a GPU. That decides about the engine's cache only.

    Args:
        config: config.json of the base model
        cfg: of the stage
        ranks: processes with one GPU each
        frozen: rank of the saved adapters beneath the policy, all together
    """

    def __init__(self, config: Mapping[str, Any], cfg: StageConfig, *, ranks: int, frozen: int = 0) -> None:
        self.cfg, self.ranks = cfg, ranks
        self._subjects = [build(config, cfg, layers, frozen=frozen, ranks=ranks) for layers in depths(config)]
        self._found = _at_depth([each.loading for each in self._subjects], self._subjects)
        self._found |= _at_depth(_vision(self._subjects, cfg.model.max_pixels or IMAGE_PIXELS), self._subjects)
        if isinstance(cfg, (SFTConfig, GRPOConfig)):
            updates = [{"update": phases.update(each, cfg, conversation(cfg))} for each in self._subjects]
            self._found |= _at_depth(updates, self._subjects)

    @property
    def patch(self) -> int:
        """Side of an image patch in pixels."""
        return int(self._subjects[0].config.vision_config.patch_size)

    def on(self, usable_bytes: int) -> Traced:
        """The stage on GPUs with so much memory, without what the driver and the allocator take."""
        cfg, found = self.cfg, {name: self._on_gpu(name, peak) for name, peak in self._found.items()}
        if not isinstance(cfg, (StratifyConfig, GRPOConfig, EvaluateConfig)) or cfg.engine != "transformers":
            return Traced(_ordered(found), 0, 0)
        wanted = _conversations(cfg, self.ranks)
        sampled = _sampled(self._subjects, cfg, wanted, usable_bytes)
        found |= {name: self._on_gpu(name, peak) for name, peak in sampled.items()}
        if isinstance(cfg, GRPOConfig) and cfg.asynchronous:
            found["update"] = _beside_the_engine(found["update"], found["decode"])
        return Traced(_ordered(found), _held(found, wanted, cfg.max_tokens, self._subjects[0]), wanted)

    def _on_gpu(self, name: str, peak: Bytes) -> Bytes:
        """What of a phase's peak is in the GPU's memory."""
        elsewhere = {Item.HOST}
        if name != "update" and getattr(self.cfg, "offload", "none") == "cpu":
            elsewhere.add(Item.OPTIMIZER)
        return {item: 0 if item in elsewhere else size for item, size in peak.items()}


ENGINES = (Item.CACHE, Item.COPIES, Item.GATHERED)
"""What the engine keeps as long as it is not at rest: its cache, and what was gathered for it of a sharded policy."""


def _beside_the_engine(update: Bytes, decode: Bytes) -> Bytes:
    """An update during which the engine samples the next steps."""
    return {item: size + (decode[item] if item in ENGINES else 0) for item, size in update.items()}


_PASSES: dict[str, Bytes] = {}
"""What a pass of a vision tower needs beside the weights that are there before, by tower and pixels and whether it is
sharded. It takes half of a trace, and is the same in every stage."""


def _vision(subjects: Sequence[Subject], pixels: int) -> list[phases.Phases]:
    """The phase of the vision tower, which no decoder layer takes part in: traced once, with the weights of each."""
    first = subjects[0]
    dtype = next(first.model.parameters()).dtype
    key = f"{first.config.vision_config.to_json_string(use_diff=False)} {dtype} {pixels} {first.tower is None}"
    if key not in _PASSES:
        before = first.meter.now()
        [peak] = phases.encode(first, pixels).values()
        _PASSES[key] = {item: peak[item] - before[item] for item in peak}
    weights = [each.meter.now() for each in subjects]
    return [{"vision": {"peak": {item: _PASSES[key][item] + own[item] for item in own}}} for own in weights]


def _sampled(subjects: Sequence[Subject], cfg: Any, wanted: int, usable_bytes: int) -> dict[str, Bytes]:
    """The phases of the engine, whose cache may take half of what is free when it starts."""
    decoders = [phases.start(each)[0] for each in subjects]
    in_use = _at_depth([{"now": {"now": each.meter.now()}} for each in subjects], subjects)["now"]
    in_use[Item.HOST] = 0
    limit = cfg.kv_cache_bytes or max(0, usable_bytes - sum(in_use.values())) // 2
    rollout = Rollout(wanted, cfg.max_tokens, cfg, limit)
    return _at_depth(
        [phases.sample(each, decoder, rollout) for each, decoder in zip(subjects, decoders, strict=True)], subjects
    )


def conversation(cfg: SFTConfig | GRPOConfig) -> Conversation:
    """The largest conversation that a stage trains on."""
    written = (
        cfg.max_turns * cfg.max_turn_tokens
        if isinstance(cfg, GRPOConfig)
        else math.ceil(cfg.max_tokens * TURNS_OF_DEMONSTRATION)
    )
    return Conversation.largest(cfg.max_tokens, written)


def _conversations(cfg: StratifyConfig | GRPOConfig | EvaluateConfig, ranks: int) -> int:
    """Conversations that a rank has open at once."""
    if isinstance(cfg, GRPOConfig):
        steps = 1 + (cfg.asynchronous.max_staleness if cfg.asynchronous else 0)
        questions = steps * -(-cfg.questions_per_step // ranks)
        return min(max(cfg.concurrent_episodes, cfg.group_size), questions * cfg.group_size)
    return cfg.concurrent_episodes


def _held(found: Mapping[str, Bytes], wanted: int, longest: int, subject: Subject) -> int:
    config = subject.config.get_text_config()
    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    size = next(subject.model.parameters()).dtype.itemsize
    token = 2 * subject.of * config.num_key_value_heads * head * size
    return min(wanted, found["decode"][Item.CACHE] // (token * longest))


def _ordered(found: dict[str, Bytes]) -> dict[str, Bytes]:
    """In order of time: sampling comes before the update."""
    return dict(sorted(found.items(), key=lambda entry: entry[0] == "update"))


def _at_depth(traces: Sequence[phases.Phases], subjects: Sequence[Subject]) -> dict[str, Bytes]:
    """The largest moment of each phase, at the real depth, from its traces with each subject."""
    depths, found = [each.layers for each in subjects], {}
    for name in traces[0]:
        moments = [
            _continued([(depth, trace[name][moment]) for depth, trace in zip(depths, traces)], subjects[0].of)
            for moment in traces[0][name]
        ]
        largest = max(moments, key=lambda each: sum(each.values()))
        found[name] = {item: max(0, size) for item, size in largest.items()}
    return found


def _continued(points: Sequence[tuple[int, Bytes]], layers: int) -> Bytes:
    """The bytes of each item at a depth, on the line through two others.

    Where the peak of a few layers is at another point of the program than that of one layer more, items lie on lines that
    mean nothing by themselves, and may fall below 0. Their sum does not exceed what the deeper model needs.

    >>> _continued([(4, {Item.BASE: 50}), (5, {Item.BASE: 60})], 36)
    {<Item.BASE: 'base weights'>: 370}
    """
    if len(points) == 1:
        return dict(points[0][1])
    (low, first), (high, second) = points
    return {item: first[item] + (second[item] - first[item]) * (layers - low) // (high - low) for item in first}

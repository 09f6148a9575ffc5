"""What a stage does with memory, one phase after the other, on fake tensors: the recipes' own code with the largest inputs.

    vision    one pass of the vision tower
    growth    the engine's cache grows to its bound
    prefill   a step of the engine that reads prompts or observations, with a full cache
    decode    a step that samples one token per conversation, with a full cache
    update    forward and backward passes of the largest micro-batch, and an optimizer step

A conversation is taken to be as long as it may be, to have written all that it may write, and to show images in half of
its tokens.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from gog import exclusion
from gog.spec import EngineSettings, GRPOConfig, SFTConfig
from gog.trajectory import Segment, Trajectory, Turn
from gog_recipes import losses
from gog_recipes.estimate.meter import Bytes, Item, Moments
from gog_recipes.estimate.subject import Subject
from gog_recipes.models import kv_cache, packing, policy_model, vision
from gog_recipes.models.decoder import Decoder, StepInputs
from gog_recipes.rollout import draw
from gog_recipes.runtime import optimizer
from gog_recipes.runtime.learner import Learner, StepRollout

Phases = dict[str, Moments]
"""Peaks by phase."""


@dataclass(frozen=True)
class Conversation:
    """How a conversation is made up."""

    tokens: int
    """All of them."""
    learned: int
    """Those that the model wrote."""
    image: int
    """Those of images."""

    @classmethod
    def largest(cls, tokens: int, written: int) -> Conversation:
        """A conversation of so many tokens whose turns hold up to `written`."""
        learned = min(written, tokens - 2)
        return cls(tokens, learned, min(tokens // 2, tokens - learned - 1))


@dataclass(frozen=True)
class Rollout:
    """What a rank samples at once."""

    conversations: int
    """Conversations that are open at once, at most."""
    longest: int
    """Tokens of each, at most."""
    settings: EngineSettings
    """Of the engine."""
    cache_bytes: int
    """Bound of the key-value cache, in bytes of the whole model."""


@dataclass
class Features:
    """Stands for the cache of image features: one image per conversation, of as many tokens as its image tokens."""

    subject: Subject
    """Decides their width."""
    tokens: int
    """Of an image."""

    def grid(self, image_hash: str) -> tuple[int, int, int]:
        """Of any image."""
        return (1, 1, self.tokens)

    def __getitem__(self, image_hash: str) -> torch.Tensor:
        """Features of an image."""
        with self.subject.meter.label(Item.FEATURES):
            return image_features(self.subject.config, self.tokens, policy_model.language_model(self.subject.model))

    def features(self, image_hashes: Sequence[str]) -> torch.Tensor | None:
        """Features of images, in order."""
        return torch.cat([self[each] for each in image_hashes]) if image_hashes else None


@dataclass(frozen=True)
class Tokens:
    """Stands for the processor of the base model, of which only ids are used."""

    image_pad: int
    """Token id of an image token."""
    turn_end: int = 1
    """Token id that ends a turn."""
    pad: int = 0
    """Token id that fills a batch up."""
    suppress_tokens: list[int] = field(default_factory=lambda: [0])
    """Token ids that are never sampled."""

    def positions(self, ids: Sequence[int], grids: Sequence[Any], start: int = 0) -> tuple[Any, int]:
        """Rotary positions of the right shape."""
        return torch.zeros(3, len(ids), dtype=torch.int64).numpy(), len(ids)


def image_features(config: Any, tokens: int, language: Any) -> torch.Tensor:
    """Features [tokens, h], or with DeepStack [tokens, 1 + levels, h]."""
    levels = getattr(config.vision_config, "deepstack_visual_indexes", None)
    shape = (tokens, 1 + len(levels)) if levels else (tokens,)
    return torch.empty(*shape, config.get_text_config().hidden_size, dtype=language.norm.weight.dtype)


# ---------------------------------------------------------------- vision


def encode(subject: Subject, pixels: int) -> Moments:
    """One pass of the vision tower over images of so many pixels, as many as a pass takes."""
    settings = subject.config.vision_config
    unit = settings.patch_size * settings.spatial_merge_size
    side = max(1, int(math.sqrt(pixels)) // unit) * settings.spatial_merge_size
    count = max(1, min(vision.MAX_PASS_IMAGES, vision.MAX_PASS_PATCHES // side**2))
    values = 3 * settings.temporal_patch_size * settings.patch_size**2
    with subject.traced() as meter, torch.no_grad():
        rows = torch.empty(count * side**2, values)
        grids = torch.tensor([[1, side, side]] * count)
        model = policy_model.core(subject.model)
        subject.gather_tower()
        policy_model.family_of(subject.model).encode_images(model, rows, grids)
        subject.release_tower()
    return meter.peaks


# ---------------------------------------------------------------- the engine


def start(subject: Subject) -> tuple[Decoder, Moments]:
    """The engine's decoder, which holds copies of weights that are sharded, beside the gathered vision tower."""
    with subject.traced() as meter:
        subject.gather_tower()
        with meter.label(Item.COPIES):
            return Decoder(subject.model), meter.peaks


def sample(subject: Subject, decoder: Decoder, rollout: Rollout) -> Phases:
    """Steps of the in-process engine with a full cache, which holds one conversation at least."""
    found: Phases = {}
    with subject.traced() as meter:
        bound = rollout.cache_bytes * subject.layers // subject.of
        decoder.make_cache(rollout.longest, max(bound, decoder.layout.conversation_bytes(rollout.longest)))
        with meter.label(Item.CACHE):
            held = _fill(decoder, rollout)
        found["growth"] = meter.peaks
        for count in (min(rollout.settings.prefill_tokens, rollout.longest - 1), _observation(rollout, len(held))):
            meter.restart()
            rows = held[: max(1, rollout.settings.prefill_tokens // count)]
            _step(subject, decoder, rows, rollout.longest - count, count)
            found[f"prefill {count}"] = meter.peaks
        meter.restart()
        _step(subject, decoder, held, rollout.longest - 1, 1)
        logits = torch.empty(rollout.conversations, decoder.vocabulary, dtype=decoder.head.dtype)
        draw.draw(logits.float(), [(0,)] * len(logits), [0.5] * len(logits), 1.0)
        found["decode"] = meter.peaks
        for blocks in held:
            decoder.cache.release(blocks)
        decoder.rest()
        subject.release_tower()
    return found


def _fill(decoder: Decoder, rollout: Rollout) -> list[list[int]]:
    """Blocks of the conversations that the cache holds at their full length."""
    held: list[list[int]] = []
    for _ in range(rollout.conversations):
        blocks: list[int] = []
        if not decoder.cache.reserve(blocks, rollout.longest):
            break
        held.append(blocks)
    return held


def _observation(rollout: Rollout, held: int) -> int:
    """New tokens of each where one step reads an observation of every conversation."""
    return max(2, min(rollout.settings.prefill_tokens // max(1, held), rollout.longest - 1))


def _step(subject: Subject, decoder: Decoder, rows: list[list[int]], start: int, count: int) -> None:
    ids = torch.zeros(len(rows), count, dtype=torch.int64)
    images = features = None
    if count > 1:
        images = torch.zeros(len(rows), count, dtype=torch.bool)
        images[:, : count // 2] = True
        language = policy_model.language_model(subject.model)
        features = image_features(subject.config, len(rows) * (count // 2), language)
        subject.meter.hold(features, Item.FEATURES)
    places = torch.zeros(3, len(rows), count, dtype=torch.int64)
    held = [kv_cache.Row(blocks) for blocks in rows]
    decoder.step(StepInputs(held, [start] * len(rows), [count] * len(rows), ids, places, images, features))


# ---------------------------------------------------------------- training


def update(subject: Subject, cfg: GRPOConfig | SFTConfig, conversation: Conversation) -> Moments:
    """A full pass when the optimizer has its state and earlier passes left gradients, and an optimizer step.

    The subject keeps the optimizer.
    """
    with subject.traced() as meter:
        weights = [each for each in subject.model.parameters() if each.requires_grad]
        trained = optimizer.build(cfg.optimizer, weights, cfg.learning_rate)
        subject.kept.append(trained)
        with meter.label(Item.HOST if meter.offloaded else Item.GRADIENTS):
            for each in weights:
                each.grad = torch.zeros_like(each)
        trained.step()
        meter.restart()
        _train(subject, cfg, conversation, max(1, cfg.micro_batch_tokens // conversation.tokens), trained)
    if cfg.offload == "cpu":  # the state is on the GPU in the optimizer step only, if at all
        return {name: _without_state(items, name) for name, items in meter.peaks.items()}
    return meter.peaks


def _without_state(items: Bytes, moment: str) -> Bytes:
    return items if moment == "optimizer step" else items | {Item.OPTIMIZER: 0}


def _train(subject: Subject, cfg: GRPOConfig | SFTConfig, each: Conversation, count: int, trained: Any) -> None:
    processor = Tokens(subject.config.image_token_id)
    features = Features(subject, each.image)
    if isinstance(cfg, GRPOConfig):
        cfg = cfg.model_copy(update={"max_logprob_gap": math.inf})  # the log-probs here are no numbers
        groups = [[_trajectory(each, number, processor) for number in range(count)]]
        rollout = StepRollout(groups, groups, exclusion.count(groups), 0)
        loss = losses.load(cfg.loss)
        learner = Learner(
            cfg, loss, subject.model, processor, features, trained, subject.ranks,  # type: ignore[arg-type]
            together=cfg.micro_batch_tokens,  # as on a GPU; the tensors here are a CPU's
        )  # fmt: skip
        learner.update(rollout, step=1)
        return
    rows = [_segments(each, processor, number) for number in range(count)]
    for members in packing.passes(rows, cfg.micro_batch_tokens):
        batch = policy_model.collate([rows[place] for place in members], processor, features, torch.device("cpu"))  # type: ignore[arg-type]
        images = policy_model.features(batch, features)  # type: ignore[arg-type]
        logp = policy_model.token_logprobs(subject.model, batch, images)
        (-logp.sum()).backward()
        del batch, images, logp
    optimizer.clip_gradients(subject.model, cfg.clip_grad_norm)
    optimizer.apply_step(trained, subject.model, subject.ranks, step=1, loss=0.0, grad_norm=0.0)


def _segments(each: Conversation, processor: Tokens, number: int) -> tuple[Segment, ...]:
    """A conversation whose prompt is its own, because a shared one would count once and leave room in the pass."""
    text = each.tokens - each.learned - each.image
    first = number if number < processor.image_pad else number + 1
    opening = itertools.chain([first], [processor.turn_end] * (text - 1), [processor.image_pad] * each.image)
    images = ("image",) if each.image else ()
    learned = (processor.turn_end,) * each.learned
    return (
        Segment(source="prompt", tokens=tuple(opening), images=images),
        Segment(source="model", tokens=learned, logprobs=(0.0,) * each.learned),
    )


def _trajectory(each: Conversation, number: int, processor: Tokens) -> Trajectory:
    return Trajectory(
        id=str(number), question_id="", question="", answers=("",), image="image", stop="answer", advantage=1.0,
        turns=(Turn(text="", action="answer"),), segments=_segments(each, processor, number),
    )  # fmt: skip

"""Engines by name (`stages.*.engine`): which implementation of `gog.engine.Engine` samples a stage's rollouts."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import torch

from gog.engine import Engine, Limits
from gog.errors import QuestionSkipped, UserError
from gog.spec import EngineSettings
from gog.trajectory import Segment
from gog_recipes.models.family import Processor
from gog_recipes.models.vision import Vision
from gog_recipes.runtime.stage import Stage

ENGINES = {
    "transformers": "gog_recipes.rollout.transformers:TransformersEngine",
    "vllm": "gog_recipes.rollout.vllm:VLLMEngine",
}
"""`module:factory` of each engine by name."""


@dataclass(frozen=True)
class Parts:
    """What a stage has at hand when it makes its engine."""

    model: torch.nn.Module
    """The policy, with or without an adapter; sharded over ranks where there are several."""
    processor: Processor
    """Tokenizer and image processor of the model."""
    vision: Vision
    """Image features, shared with the trainer."""
    limits: Limits
    """How far a conversation may go, and how it is sampled."""
    capacity: int
    """Conversations that may be open at once in this process."""
    version: int = 0
    """Version of the weights: optimizer steps behind them."""
    saved: Sequence[Path] = ()
    """Adapters that are applied to the model beneath the one that is trained, as PEFT saves them, in the order in which
    they were trained."""
    stage: Stage | None = None
    """The stage that samples: its configuration, folders, ranks and outages, for engines that ask servers."""
    settings: EngineSettings = field(default_factory=EngineSettings)
    """Of the stage: bounds of memory, and whether results must repeat bit for bit."""


def create(name: str, parts: Parts) -> Engine:
    """The engine of a stage.

    Args:
        name: a key of ENGINES, or `module:factory` of an installed module; the factory is called with the parts.
        parts: what it may be made of.

    Raises:
        UserError: there is no such engine.
    """
    module, _, factory = ENGINES.get(name, name).partition(":")
    try:
        found = getattr(importlib.import_module(module), factory)
    except (ImportError, AttributeError, ValueError) as error:
        raise UserError(
            f"no engine {name!r}: {error}", where="engine", remedy=f"{', '.join(ENGINES)}, or module:factory"
        ) from None
    return cast(Callable[[Parts], Engine], found)(parts)


def check_prompt(opening: Segment, limits: Limits) -> None:
    """Raises QuestionSkipped for a prompt that leaves no room for a turn."""
    if len(opening.tokens) + 2 > limits.tokens:
        raise QuestionSkipped(
            f"the prompt alone has {len(opening.tokens)} tokens, the limit is {limits.tokens}",
            where="max_tokens",
            remedy=f"allow several times {len(opening.tokens)}: an episode holds turns and observations too",
        )


def check_resumable(
    segments: Sequence[Segment], opening: Segment, limits: Limits, is_known: Callable[[str], bool]
) -> None:
    """Raises ValueError for segments that cannot be continued; nothing is a conversation that starts.

    Args:
        segments: of the conversation to resume
        opening: the prompt that it must begin with
        limits: how long it may be
        is_known: whether an image of this content hash is at hand
    """
    if not segments:
        return
    if segments[0].tokens != opening.tokens or segments[0].images != opening.images:
        raise ValueError("the conversation to resume has another prompt")
    tokens = sum(len(segment.tokens) for segment in segments)
    if tokens > limits.tokens:
        raise ValueError(f"the conversation to resume has {tokens} tokens, the limit is {limits.tokens}")
    absent = [image for segment in segments for image in segment.images if not is_known(image)]
    if absent:
        raise ValueError(f"the conversation to resume shows image {absent[0]}, which is not given")


def check_observation(observation: Segment, room: int) -> None:
    """Raises ValueError for an observation of more tokens than a conversation can still take."""
    if len(observation.tokens) > room:
        raise ValueError(f"an observation of {len(observation.tokens)} tokens for a room of {room}")

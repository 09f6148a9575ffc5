"""What recipes and the rollout engine need to know about an architecture.

Shapes: b conversations of n tokens, h hidden size, k image tokens, p patches.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from gog import prompts
from gog.images import Image
from gog.spec import PixelBounds
from gog_recipes.models.packing import Tree

Grid = tuple[int, int, int]
"""Patches of an image: (1, rows, columns)."""


@dataclass(frozen=True)
class Resized:
    """An image at the size in which the model sees it; its patches take eight times as many bytes."""

    pixels: np.ndarray
    """[height, width, 3] uint8."""
    grid: Grid
    """(1, rows, columns) in patches."""


@dataclass(frozen=True)
class Patches:
    """An image as its vision tower reads it."""

    rows: np.ndarray
    """[p, values per patch] float32."""
    grid: Grid
    """(1, rows, columns) in patches; p is their product."""


class Processor(Protocol):
    """Between text with images and token ids. Made from a base model's folder."""

    tokenizer: Any
    """The folder's tokenizer (transformers)."""
    style: prompts.Style
    """Style of prompts and observations."""
    image_pad: int
    """Token id of an image token, repeated once per token of the image."""
    turn_end: int
    """Token id with which the model ends a turn by itself."""
    pad: int
    """Token id that fills a batch up."""
    suppress_tokens: list[int]
    """Token ids that are never sampled: those the agent has no use for, and rows of the embedding without a token."""

    def forbidden(self, tags: Sequence[str]) -> list[int]:
        """Ids of those tags that are single tokens."""
        ...

    def grid(self, width: int, height: int) -> Grid:
        """Patches of an image of this size in pixels. Raises UserError for one that the model cannot take."""
        ...

    def resize(self, image: Image) -> Resized:
        """An image at the size in which the model sees it. Raises UserError for one that the model cannot take."""
        ...

    def rows(self, image: Resized) -> np.ndarray:
        """Patches [p, values per patch] float32 of a resized image."""
        ...

    def patches(self, image: Image) -> Patches:
        """An image for the vision tower. Raises UserError for one that the model cannot take."""
        ...

    def resized(self, image: Image, grid: Grid) -> Image:
        """An image at the size of its grid, whose patches are those of the image."""
        ...

    def image_tokens(self, grid: Grid) -> int:
        """How many tokens an image takes up."""
        ...

    def encode(self, text: str, image_tokens: Sequence[int]) -> list[int]:
        """Token ids of a text; the n-th image placeholder is repeated image_tokens[n] times."""
        ...

    def decode(self, ids: Sequence[int]) -> str:
        """Text of token ids, special tokens included."""
        ...

    def ends_turn(self, ids: Sequence[int]) -> bool:
        """Whether the last of these tokens of a turn ends it."""
        ...

    def turn_text(self, ids: Sequence[int]) -> tuple[str, bool]:
        """The text of a turn up to its closing tag, and whether its last token holds more text behind the tag."""
        ...

    def positions(self, ids: Sequence[int], grids: Sequence[Grid], start: int = 0) -> tuple[np.ndarray, int]:
        """Rotary positions [3, len(ids)] int64 of tokens from position `start` on, and the position after them."""
        ...


class HiddenStates(Protocol):
    """The forward pass of the language model."""

    def __call__(
        self,
        model: Any,
        ids: torch.Tensor,
        positions: torch.Tensor,
        features: torch.Tensor | None,
        layout: Sequence[Tree] | None = None,
    ) -> torch.Tensor:
        """Hidden states [b, n, h], after the last norm.

        Args:
            model: as loaded, with or without adapters
            ids: token ids [b, n]
            positions: rotary positions [3, b, n]
            features: [k, …] in place of the image tokens in `ids`, row by row; None without images
            layout: the conversations that one row packs, b being 1; none of them sees another, apart from the prefix
                that they share. None where every row is one conversation
        """
        ...


@dataclass(frozen=True)
class Family:
    """One architecture."""

    load: Callable[[Path, torch.device, torch.dtype], Any]
    """load(folder, device, dtype): the model of a folder in Hugging Face form, from safetensors only."""
    processor: Callable[[Path, prompts.Style, PixelBounds], Processor]
    """processor(folder, style, pixels): pixels bounds the size of images."""
    lora_targets: str
    """Regular expression of the linears that get an adapter."""
    language_model: Callable[[Any], Any]
    """The stack of decoder layers of a model, with `layers`, `embed_tokens` and `norm`."""
    vision_tower: Callable[[Any], torch.nn.Module]
    """What encodes images, with its blocks in a ModuleList."""
    encode_images: Callable[[Any, torch.Tensor, torch.Tensor], torch.Tensor]
    """encode_images(model, rows [p, values per patch], grids [images, 3]): features [k, …] of all images in order.
    Further dimensions of features are defined by the family."""
    hidden_states: HiddenStates
    """[b, n, h], after the last norm."""
    lora_parameters: tuple[str, ...] = ()
    """Parameters [experts, out, in] that get an adapter, by the ends of their names. See gog_recipes.models.experts."""

"""Between text with images and token ids with grids, for every Qwen-VL model.

The agent's text is ChatML with one `<|image_pad|>` per image; a Qwen-VL model needs that token once per merged patch.
The processor repeats it, knows where a turn ends, which tokens must never be sampled, and the M-RoPE positions: a word
advances all three axes, an image spans its grid. How a model mixes the axes is its own rotary module's business.

Sizes, means and patches are the folder's own. Only the number of pixels is bounded further: published settings allow
16,000 tokens for one image, twice as many as an episode may have.

Not here: videos, and images side by side without text between them.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image as PILImage
from transformers import AutoTokenizer
from transformers.image_utils import SizeDict
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil, smart_resize

from gog import actions, prompts
from gog.errors import QuestionSkipped, UserError
from gog.images import Image
from gog.spec import PixelBounds
from gog_recipes.models import loading
from gog_recipes.models.family import Grid, Patches, Resized

IMAGE_PAD = "<|image_pad|>"
MAX_PIXELS = 1280 * 28 * 28
"""Pixels of an image after resizing, where `model.maxPixels` is not set: 1,280 tokens of Qwen2.5-VL, 980 of Qwen3-VL
[peer: the upper end of the range that Qwen recommends]."""
_SAMPLED = frozenset({prompts.TURN_END, "<think>", "</think>", *actions.CONTROL_TAGS})
"""Added tokens that the agent may write; any other one is a frame, a placeholder or of another task."""
_LONGEST_TAG = max(len(tag) for tag in actions.CLOSING_TAGS)


class Processor:
    """The tokenizer and image processor of one model folder.

    Args:
        folder: in Hugging Face form
        style: of prompts and observations
        pixels: bounds of an image's size that take precedence over the folder's own

    Raises:
        UserError: when the tokenizer or the image processor cannot be loaded, the tokenizer lacks a special token, or
            the bounds of the image size contradict each other.
    """

    def __init__(self, folder: Path, style: prompts.Style, pixels: PixelBounds | None = None) -> None:
        self.style = style
        try:
            self.tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
            self.processor = Qwen2VLImageProcessorPil.from_pretrained(folder, local_files_only=True)
        except (OSError, ValueError, KeyError) as error:
            raise UserError(f"cannot be loaded: {loading.brief(error)}", where=str(folder)) from error
        self._vocabulary: dict[str, int] = self.tokenizer.get_vocab()
        self.merge = int(self.processor.merge_size)
        self.patch = int(self.processor.patch_size)
        self._frames = int(self.processor.temporal_patch_size)
        self._values = _values(self.processor)
        self.size = _size(self.processor.size, pixels or PixelBounds(), folder)
        self.image_pad = self._required(IMAGE_PAD, folder)
        self.turn_end = self._required(prompts.TURN_END, folder)
        self.pad = self._required("<|endoftext|>", folder)
        self.suppress_tokens = self._suppressed(folder)
        self._tags = frozenset(self._known(actions.CLOSING_TAGS))
        self._words = [""] * max(_embedding_rows(folder), 1 + max(self._vocabulary.values()))
        for word, token in self._vocabulary.items():
            self._words[token] = word
        self._heads = {token: heads for word, token in self._vocabulary.items() if (heads := _heads(word))}

    def _required(self, word: str, folder: Path) -> int:
        if word not in self._vocabulary:
            raise UserError(
                f"its tokenizer has no token {word}", where=str(folder), remedy="fetch the tokenizer of the base model"
            )
        return self._vocabulary[word]

    def _known(self, words: Sequence[str]) -> list[int]:
        """Ids of those words that are single tokens."""
        return [self._vocabulary[word] for word in words if word in self._vocabulary]

    def _suppressed(self, folder: Path) -> list[int]:
        """Added tokens that the agent has no use for, and rows of the embedding without a token (padding)."""
        added = {token for token, word in self.tokenizer.added_tokens_decoder.items() if word.content not in _SAMPLED}
        empty = set(range(_embedding_rows(folder))) - set(self._vocabulary.values())
        return sorted(added | empty)

    def forbidden(self, tags: Sequence[str]) -> list[int]:
        """Ids of those tags that are single tokens; a tag of several tokens cannot be forbidden by token."""
        return self._known(tags)

    # ---------------------------------------------------------------- images

    def grid(self, width: int, height: int) -> Grid:
        """Patches of an image of this size in pixels.

        Raises:
            QuestionSkipped: the model cannot take it, or no size within the bounds keeps its ratio. A server's processor
                would resize such an image again, to other pixels than the trainer's, so no engine takes it.
        """
        factor, smallest, largest = self.patch * self.merge, self.size["shortest_edge"], self.size["longest_edge"]
        try:
            high, wide = smart_resize(height, width, factor, smallest, largest)
        except ValueError as error:
            raise QuestionSkipped(
                f"an image of {width} x {height} pixels: {loading.brief(error)}",
                where="image",
                remedy="crop it to a ratio of at most 200 between its sides",
            ) from None
        if not smallest <= high * wide <= largest:
            high, wide = _exact_size(height, width, factor, smallest, largest)
        if not smallest <= high * wide <= largest:
            raise QuestionSkipped(
                f"an image of {width} x {height} pixels has no size of {smallest:,} to {largest:,} pixels that keeps its "
                "ratio",
                where="image",
                remedy="crop it to a smaller ratio between its sides, or raise model.maxPixels",
            )
        return (1, high // self.patch, wide // self.patch)

    def resize(self, image: Image) -> Resized:
        """An image at the size in which the model sees it. Raises QuestionSkipped for one that the model cannot take."""
        grid = self.grid(image.width, image.height)
        return Resized(self._scaled(image.pixels, grid), grid)

    def _scaled(self, pixels: np.ndarray, grid: Grid) -> np.ndarray:
        """Pixels at the size of a grid. What transformers does with copies of the whole image between, of which one of
        12 megapixels has 36 MB."""
        size = (grid[2] * self.patch, grid[1] * self.patch)
        return np.asarray(PILImage.fromarray(pixels).resize(size, self.processor.resample))

    def rows(self, image: Resized) -> np.ndarray:
        """Patches [p, values per patch] float32 of a resized image: bit for bit those of transformers' image processor,
        whose copies of the image and checks of settings take ten times as long."""
        (_, high, wide), merge, side = image.grid, self.merge, self.patch
        cut = image.pixels.reshape(high // merge, merge, side, wide // merge, merge, side, 3)
        cut = cut.transpose(0, 3, 1, 4, 6, 2, 5) + _CHANNELS  # [rows, columns, merge, merge, channel, side, side]
        frames = (*cut.shape[:5], self._frames, side, side)
        return np.broadcast_to(self._values[cut][:, :, :, :, :, None], frames).reshape(high * wide, -1)

    def patches(self, image: Image) -> Patches:
        """An image for the vision tower. Raises QuestionSkipped for one that the model cannot take."""
        resized = self.resize(image)
        return Patches(self.rows(resized), resized.grid)

    def resized(self, image: Image, grid: Grid) -> Image:
        """An image at the size of its grid, as `resize` resizes it, so that another processor need not resize it."""
        high, wide = grid[1] * self.patch, grid[2] * self.patch
        return image if (image.height, image.width) == (high, wide) else Image(self._scaled(image.pixels, grid))

    def image_tokens(self, grid: Grid) -> int:
        """Tokens of an image of this grid: one per merged patch."""
        _, high, wide = grid
        return high * wide // self.merge**2

    # ---------------------------------------------------------------- tokens

    def encode(self, text: str, image_tokens: Sequence[int]) -> list[int]:
        """Token ids of a text; the n-th image pad is repeated image_tokens[n] times. Raises ValueError for other numbers."""
        ids: list[int] = self.tokenizer.encode(text, add_special_tokens=False)
        if ids.count(self.image_pad) != len(image_tokens):
            raise ValueError(f"{ids.count(self.image_pad)} image pads in the text for {len(image_tokens)} images")
        counts = iter(image_tokens)
        return [token for i in ids for token in ([i] * next(counts) if i == self.image_pad else (i,))]

    def decode(self, ids: Sequence[int]) -> str:
        """Text of token ids, special tokens included."""
        return self.tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)

    def ends_turn(self, ids: Sequence[int]) -> bool:
        """Whether the last token of a turn completes a closing tag (or is the model's own end of turn).

        A tag may end inside a token: `>.` completes `</answer` as well as `>` does. The tag's other letters lie in at
        most as many tokens before. Nothing is decoded, because this is asked for every token of every conversation, and
        byte-level tokenizers write the letters of tags as themselves.
        """
        if ids[-1] == self.turn_end or ids[-1] in self._tags:
            return True
        heads = self._heads.get(ids[-1])
        if heads is None:
            return False
        return "".join(map(self._words.__getitem__, ids[-_LONGEST_TAG:-1])).endswith(heads)

    def turn_text(self, ids: Sequence[int]) -> tuple[str, bool]:
        """The text of a turn up to its closing tag, and whether its last token holds more text behind the tag.

        The model had no chance to stop between the two, so that text is neither parsed nor learned.
        """
        text = self.decode(ids)
        ends = [at + len(tag) for tag in actions.CLOSING_TAGS if (at := text.find(tag)) >= 0]
        end = min(ends, default=len(text))
        return text[:end], end < len(text)

    def positions(self, ids: Sequence[int], grids: Sequence[Grid], start: int = 0) -> tuple[np.ndarray, int]:
        """M-RoPE positions of tokens.

        Args:
            ids: token ids, whole images included
            grids: of the images, in order
            start: position of the first token

        Returns:
            [3, len(ids)] int64, equal to transformers' get_rope_index for images, and the position after the last token.

        Raises:
            ValueError: when the image tokens are not those of images of these grids.
        """
        pads = np.flatnonzero(np.fromiter(ids, np.int64, len(ids)) == self.image_pad)
        if len(pads) != sum(self.image_tokens(grid) for grid in grids):
            raise ValueError(f"{len(pads)} image tokens for {len(grids)} images of other sizes")
        out = np.empty((3, len(ids)), dtype=np.int64)
        at, position, seen = 0, start, 0
        for grid in grids:
            first = int(pads[seen])
            out[:, at:first] = np.arange(position, position + first - at)
            position += first - at
            high, wide = grid[1] // self.merge, grid[2] // self.merge
            at, seen = first + high * wide, seen + high * wide
            out[0, first:at] = position
            out[1, first:at] = position + np.repeat(np.arange(high), wide)
            out[2, first:at] = position + np.tile(np.arange(wide), high)
            position += max(high, wide)
        out[:, at:] = np.arange(position, position + len(ids) - at)
        return out, position + len(ids) - at


_CHANNELS = 256 * np.arange(3, dtype=np.intp)[:, None, None]
"""Where the values of each channel begin in what `_values` returns."""


def _values(processor: Any) -> np.ndarray:
    """What the image processor makes of each value of a pixel: [3 · 256] float32, red, green, blue."""
    ramp = np.tile(np.arange(256, dtype=np.uint8), (3, 1, 1))
    if processor.do_rescale:
        ramp = processor.rescale(ramp, processor.rescale_factor)
    if processor.do_normalize:
        ramp = processor.normalize(ramp, processor.image_mean, processor.image_std)
    return np.asarray(ramp, dtype=np.float32).ravel()


def _heads(word: str) -> tuple[str, ...]:
    """Texts behind which a token completes a closing tag; none for nearly every token.

    >>> _heads(">.")[-1], _heads("wer>"), _heads("a>b")
    ('</answer', ('</ans',), ())
    """
    begins = [word[:at] for at, letter in enumerate(word) if letter == ">"]
    whole = [(tag[:-1], begin) for tag in actions.CLOSING_TAGS for begin in begins]
    split = {tag.removesuffix(begin) for tag, begin in whole if tag.endswith(begin)}
    return tuple(sorted(split | {"" for tag, begin in whole if begin.endswith(tag)}, reverse=True))


def _size(own: SizeDict, wanted: PixelBounds, folder: Path) -> SizeDict:
    """The smallest and largest number of pixels of an image. Raises UserError where the first is above the second."""
    largest = wanted.max_pixels or min(own["longest_edge"], MAX_PIXELS)
    smallest = wanted.min_pixels or min(own["shortest_edge"], largest)
    if smallest > largest:
        raise UserError(
            f"{smallest} pixels at least and {largest} at most",
            where="model.minPixels" if wanted.min_pixels else str(folder),
            remedy="set model.minPixels below model.maxPixels",
        )
    return SizeDict(shortest_edge=smallest, longest_edge=largest)


def _exact_size(height: int, width: int, factor: int, smallest: int, largest: int) -> tuple[int, int]:
    """The size that smart_resize means: without the rounding of its square roots, which may miss a bound by one step.

    With bounds of 112 x 112 pixels, smart_resize gives a square of 43 pixels 140 x 140.
    """

    def scaled(side: int, other: int) -> int:
        """The multiple of the factor next to the side that has, with the other one in proportion, a bound's pixels."""
        if shrinks:
            return max(1, math.isqrt(side * largest // (other * factor**2))) * factor
        return (math.isqrt(-(-side * smallest // (other * factor**2)) - 1) + 1) * factor

    shrinks = round(height / factor) * round(width / factor) * factor**2 > largest
    return scaled(height, width), scaled(width, height)


def _embedding_rows(folder: Path) -> int:
    """Rows of the embedding by config.json; published models have some hundred more than tokens."""
    try:
        config = json.loads((folder / "config.json").read_bytes())
    except (OSError, ValueError):
        return 0
    return int((config | config.get("text_config", {})).get("vocab_size", 0))

"""Between text with images and token ids with grids.

The agent's text is ChatML with one `<|image_pad|>` per image; a Qwen-VL model needs that token once per merged patch.
The processor repeats it, knows where a turn ends, which tokens must never be sampled (an untrained model samples image
tokens, and crashes), and the M-RoPE positions: a word advances all three axes, an image spans its grid.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image as PILImage
from transformers import AutoTokenizer
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from gog import actions, prompts
from gog.errors import QuestionSkipped, UserError
from gog.images import Image
from gog_recipes.models import loading
from gog_recipes.models.family import Grid, Patches

IMAGE_PAD = "<|image_pad|>"
_NEVER_SAMPLED = (
    "<unk>",
    "<|endoftext|>",
    "<|im_start|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    IMAGE_PAD,
    "<|video_pad|>",
)


class Processor:
    """The tokenizer and image processor of one model folder.

    Args:
        folder: in Hugging Face form
        style: of prompts and observations

    Raises:
        UserError: when the tokenizer or the image processor cannot be loaded, or the tokenizer lacks a special token.
    """

    def __init__(self, folder: Path, style: prompts.Style) -> None:
        self.style = style
        try:
            self.tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
            self.processor = Qwen2VLImageProcessorPil.from_pretrained(folder, local_files_only=True)
        except (OSError, ValueError, KeyError) as error:
            raise UserError(f"cannot be loaded: {loading.brief(error)}", where=str(folder)) from error
        self._vocabulary: dict[str, int] = self.tokenizer.get_vocab()
        self.merge = int(self.processor.merge_size)
        self.image_pad = self._required(IMAGE_PAD, folder)
        self.turn_end = self._required(prompts.TURN_END, folder)
        self.pad = self._required("<|endoftext|>", folder)
        self.suppress_tokens = self._known(_NEVER_SAMPLED)
        closers = self._known(actions.CLOSING_TAGS)
        self._closers = frozenset(closers) if len(closers) == len(actions.CLOSING_TAGS) else frozenset()

    def _required(self, word: str, folder: Path) -> int:
        if word not in self._vocabulary:
            raise UserError(
                f"its tokenizer has no token {word}", where=str(folder), remedy="fetch the tokenizer of the base model"
            )
        return self._vocabulary[word]

    def _known(self, words: Sequence[str]) -> list[int]:
        """Ids of those words that are single tokens."""
        return [self._vocabulary[word] for word in words if word in self._vocabulary]

    def forbidden(self, tags: Sequence[str]) -> list[int]:
        """Ids of those tags that are single tokens; a tag of several tokens cannot be forbidden by token."""
        return self._known(tags)

    def patches(self, image: Image) -> Patches:
        """An image for the vision tower. Raises QuestionSkipped for one that the model cannot take."""
        try:
            # Channels last, explicitly: an image of 1 to 4 pixels' height would be taken for channels first.
            out = self.processor([image.pixels], return_tensors="np", input_data_format="channels_last")
        except ValueError as error:
            raise QuestionSkipped(
                f"an image of {image.width} x {image.height} pixels: {loading.brief(error)}",
                where="image",
                remedy="crop it to a ratio of at most 200 between its sides",
            ) from None
        time, high, wide = (int(side) for side in out["image_grid_thw"][0])
        return Patches(out["pixel_values"].astype(np.float32), (time, high, wide))

    def resized(self, image: Image, grid: Grid) -> Image:
        """An image at the size of its grid, as `patches` resizes it, so that another processor need not resize it.

        Raises:
            QuestionSkipped: another processor would resize it again, because no size within the limits keeps its ratio.
        """
        side = int(self.processor.patch_size)
        high, wide = grid[1] * side, grid[2] * side
        if not self.processor.size["shortest_edge"] <= high * wide <= self.processor.size["longest_edge"]:
            raise QuestionSkipped(
                f"an image of {image.width} x {image.height} pixels has no size within the model's limits",
                where="image",
                remedy="crop it to a smaller ratio between its sides, or raise maxPixels",
            )
        if (image.height, image.width) == (high, wide):
            return image
        pixels = PILImage.fromarray(image.pixels).resize((wide, high), self.processor.resample)
        return Image(np.asarray(pixels))

    def image_tokens(self, grid: Grid) -> int:
        """Tokens of an image of this grid: one per merged patch."""
        _, high, wide = grid
        return high * wide // self.merge**2

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
        """Whether the last token of a turn completes a closing tag (or is the model's own end of turn)."""
        if ids[-1] == self.turn_end or ids[-1] in self._closers:
            return True
        return not self._closers and self.decode(ids[-12:]).rstrip().endswith(actions.CLOSING_TAGS)

    def positions(self, ids: Sequence[int], grids: Sequence[Grid], start: int = 0) -> tuple[np.ndarray, int]:
        """M-RoPE positions of tokens.

        Args:
            ids: token ids, whole images included
            grids: of the images, in order
            start: position of the first token

        Returns:
            [3, len(ids)] int64, equal to transformers' get_rope_index for images, and the position after the last token.
        """
        out = np.empty((3, len(ids)), dtype=np.int64)
        at, position, images = 0, start, iter(grids)
        while at < len(ids):
            if ids[at] != self.image_pad:
                out[:, at] = position
                at, position = at + 1, position + 1
                continue
            _, high, wide = next(images)
            high, wide = high // self.merge, wide // self.merge
            count = high * wide
            out[0, at : at + count] = position
            out[1, at : at + count] = position + np.repeat(np.arange(high), wide)
            out[2, at : at + count] = position + np.tile(np.arange(wide), high)
            at, position = at + count, position + max(high, wide)
        return out, position

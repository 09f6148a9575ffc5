"""Between text with images and token ids with grids.

The agent's text is ChatML with one `<|image_pad|>` per image; a Qwen-VL model wants that token once per merged patch.
The processor repeats it, knows where a turn ends, which tokens must never be sampled (an untrained model would happily
write image tokens, and crash), and the M-RoPE positions: a word advances all three axes, an image spans its grid.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from transformers import AutoTokenizer
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from gog import actions, prompts
from gog.images import Image
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
    """The tokenizer and image processor of one model folder."""

    def __init__(self, folder: Path, style: prompts.Style) -> None:
        self.style = style
        self.tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        self.processor = Qwen2VLImageProcessorPil.from_pretrained(folder, local_files_only=True)
        self.merge = int(self.processor.merge_size)
        self.image_pad = self.tokenizer.convert_tokens_to_ids(IMAGE_PAD)
        self.turn_end = self.tokenizer.convert_tokens_to_ids(prompts.TURN_END)
        self.pad = self.tokenizer.convert_tokens_to_ids("<|endoftext|>")
        self.suppress_tokens = self._known(_NEVER_SAMPLED)
        closers = self._known(actions.CLOSING_TAGS)
        self._closers = frozenset(closers) if len(closers) == len(actions.CLOSING_TAGS) else frozenset()

    def _known(self, words: Sequence[str]) -> list[int]:
        """Ids of those words that are single tokens."""
        vocabulary = self.tokenizer.get_vocab() if words else {}
        return [vocabulary[word] for word in words if word in vocabulary]

    def forbidden(self, tags: Sequence[str]) -> list[int]:
        """Ids that open these tags, where a tag is one token; a model of many-token tags is told in its prompt instead."""
        return self._known(tags)

    def patches(self, image: Image) -> Patches:
        out = self.processor([image.pixels], return_tensors="np")
        time, high, wide = (int(side) for side in out["image_grid_thw"][0])
        return Patches(out["pixel_values"].astype(np.float32), (time, high, wide))

    def image_tokens(self, grid: Grid) -> int:
        """Tokens of an image of this grid: one per merged patch."""
        _, high, wide = grid
        return high * wide // self.merge**2

    def encode(self, text: str, image_tokens: Sequence[int]) -> list[int]:
        """Token ids; the n-th image pad stands image_tokens[n] times."""
        ids: list[int] = self.tokenizer.encode(text, add_special_tokens=False)
        if ids.count(self.image_pad) != len(image_tokens):
            raise ValueError(f"{ids.count(self.image_pad)} image pads in the text for {len(image_tokens)} images")
        counts = iter(image_tokens)
        return [token for i in ids for token in ([i] * next(counts) if i == self.image_pad else (i,))]

    def decode(self, ids: Sequence[int]) -> str:
        return self.tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)

    def ends_turn(self, ids: Sequence[int]) -> bool:
        """Whether the last token of a turn completes a closing tag (or is the model's own end of turn)."""
        if ids[-1] == self.turn_end or ids[-1] in self._closers:
            return True
        return not self._closers and self.decode(ids[-12:]).rstrip().endswith(actions.CLOSING_TAGS)

    def positions(self, ids: Sequence[int], grids: Sequence[Grid], start: int = 0) -> tuple[np.ndarray, int]:
        """M-RoPE positions [3, len(ids)] of a stretch that begins at position `start`, and the position after it.

        Equals transformers' get_rope_index for images (tested).
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

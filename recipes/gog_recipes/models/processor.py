"""Between text with images and token ids with grids.

The agent's text is ChatML with one `<|image_pad|>` per image; a Qwen-VL model wants that token once per merged patch.
The processor repeats it, knows where a turn ends, which tokens must never be sampled (an untrained model would happily
write image tokens, and crash), and the M-RoPE positions: a word advances all three axes, an image spans its grid.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from transformers import AutoTokenizer
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from gog import actions, prompts
from gog.images import Image

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


@dataclass(frozen=True)
class Patches:
    """What the vision tower reads: rows [patches, channels·time·14·14] float32 and the grid (1, high, wide) in patches."""

    rows: np.ndarray
    grid: tuple[int, int, int]


class Processor:
    """The tokenizer and image processor of one model folder."""

    def __init__(self, folder: Path, *, style: prompts.Style) -> None:
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

    def positions(
        self, ids: Sequence[int], grids: Sequence[tuple[int, int, int]], start: int = 0
    ) -> tuple[np.ndarray, int]:
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


class Vision:
    """Features of images by content: each image is encoded once, for rollouts and training alike.

    That is exact because the vision tower is frozen. `add` prepares an image, which tells its size in tokens; the tower
    runs when features are asked for, over all that were prepared since, because one wide pass costs far less than
    many narrow ones. The least recently used features go first.
    """

    def __init__(self, tower: torch.nn.Module, processor: Processor, *, limit: int = 20_000) -> None:
        self._tower, self._codec, self.limit = tower, processor, limit
        self._grids: dict[str, tuple[int, int, int]] = {}
        self._waiting: dict[str, Patches] = {}
        self._features: dict[str, torch.Tensor] = {}
        self.encoded = 0
        self.asked = 0

    def __contains__(self, image_hash: str) -> bool:
        return image_hash in self._features or image_hash in self._waiting

    def __len__(self) -> int:
        return len(self._features) + len(self._waiting)

    def grid(self, image_hash: str) -> tuple[int, int, int]:
        """(1, high, wide) in patches."""
        return self._grids[image_hash]

    def tokens(self, image_hash: str) -> int:
        _, high, wide = self._grids[image_hash]
        return high * wide // self._codec.merge**2

    def add(self, images: Sequence[Image]) -> None:
        """Makes images known; those that are new wait to be encoded."""
        self.asked += len(images)
        for image in images:
            if image.hash in self._features:  # move to the young end
                self._features[image.hash] = self._features.pop(image.hash)
            elif image.hash not in self._waiting:
                patches = self._codec.patches(image)
                self._waiting[image.hash], self._grids[image.hash] = patches, patches.grid

    def __getitem__(self, image_hash: str) -> torch.Tensor:
        """Features [tokens, hidden] of an image that was added."""
        if image_hash in self._waiting:
            self._encode()
        return self._features[image_hash]

    @torch.no_grad()
    def _encode(self) -> None:
        waiting, self._waiting = self._waiting, {}
        device = next(self._tower.parameters()).device
        rows = torch.from_numpy(np.concatenate([item.rows for item in waiting.values()])).to(device)
        grids = torch.tensor([item.grid for item in waiting.values()], device=device)
        features = self._tower(rows, grid_thw=grids).pooler_output
        split = features.split([self.tokens(image_hash) for image_hash in waiting])
        self._features.update((image_hash, own.clone()) for image_hash, own in zip(waiting, split, strict=True))
        self.encoded += len(waiting)
        while len(self._features) > self.limit:
            oldest = next(iter(self._features))
            del self._features[oldest], self._grids[oldest]

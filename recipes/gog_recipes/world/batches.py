"""Rows of lessons as tensors for the tiny model, made fast enough not to be noticed beside its 0.1-second steps.

Patches and M-RoPE positions are in closed form, because the world's images have two sizes only; both equal what the
library computes (tested). Images must be whole cells; anything else is the image processor's business.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import transformers
from transformers.image_utils import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD

from gog import images
from gog_recipes.world import drawing, pretrain_tasks, tiny_model, vocabulary


@dataclass(frozen=True)
class Batch:
    """b rows of n tokens, padded on the right.

    ids [b, n]; learned [b, n] bool; positions [3, b, n]; patches [p, 1176] and grids [images, 3], or None.
    """

    ids: torch.Tensor
    learned: torch.Tensor
    positions: torch.Tensor
    patches: torch.Tensor | None
    grids: torch.Tensor | None


def collate(rows: Sequence[pretrain_tasks.Row], tokenizer: transformers.PreTrainedTokenizerFast) -> Batch:
    """All rows tokenised in one go. The pieces of a row are whole words, so they tokenise as the row does."""
    texts = [text for row in rows for text in _spread(row)]
    encoded = iter(tokenizer(texts, add_special_tokens=False).input_ids)
    pieces = [[(next(encoded), learned) for _, learned in row.pieces] for row in rows]
    length = max(sum(len(ids) for ids, _ in row) for row in pieces)
    ids = np.full((len(rows), length), tokenizer.pad_token_id)
    learned = np.zeros((len(rows), length), dtype=bool)
    for number, row in enumerate(pieces):
        flat = [(token, flag) for tokens, flag in row for token in tokens]
        ids[number, : len(flat)], learned[number, : len(flat)] = zip(*flat, strict=True)
    shown = [image for row in rows for image in row.shown]
    whole = np.array([any(image.width > drawing.CELL for image in row.shown) for row in rows])
    image_pad = tokenizer.convert_tokens_to_ids(vocabulary.IMAGE_PAD)
    return Batch(
        torch.from_numpy(ids),
        torch.from_numpy(learned),
        torch.from_numpy(positions(ids, whole, image_pad)),
        torch.from_numpy(np.concatenate([patches(image) for image in shown])) if shown else None,
        torch.tensor([grid(image) for image in shown]) if shown else None,
    )


def positions(ids: np.ndarray, whole: np.ndarray, image_pad: int) -> np.ndarray:
    """M-RoPE positions [3, b, n]: time, height, width. whole [b]: rows whose (only) image is a scene.

    A word advances all three; a crop is one token and counts as a word; a scene spans GRID x GRID at its first position.
    """
    side = drawing.GRID
    out = np.broadcast_to(np.arange(ids.shape[1]), (3, *ids.shape)).copy()
    for row in np.flatnonzero(whole):
        first = int(np.argmax(ids[row] == image_pad))
        last = first + side * side
        out[:, row, last:] -= side * side - side
        out[:, row, first:last] = first + np.stack(
            [np.zeros(side * side, int), *np.indices((side, side)).reshape(2, -1)]
        )
    return out


def patches(image: images.Image) -> np.ndarray:
    """Rows as Qwen-VL's vision tower reads them: [patches, 3 * 2 * 14 * 14], cell by cell, each image shown twice."""
    pixels = (image.pixels.astype(np.float32) / 255 - _MEAN) / _STD
    _, height, width = grid(image)
    merge, patch = tiny_model.MERGE, tiny_model.PATCH
    cells = pixels.reshape(height // merge, merge, patch, width // merge, merge, patch, 3)
    ordered = cells.transpose(0, 3, 1, 4, 6, 2, 5).reshape(height * width, 3, 1, patch * patch)
    return np.repeat(ordered, 2, axis=2).reshape(height * width, -1)


def grid(image: images.Image) -> tuple[int, int, int]:
    """Frames, patches high, patches wide."""
    return 1, image.height // tiny_model.PATCH, image.width // tiny_model.PATCH


def _spread(row: pretrain_tasks.Row) -> list[str]:
    """The row's pieces with one image pad for each token of its images, in order; a scene comes before any crop."""
    cells = iter([(shown.width // drawing.CELL) * (shown.height // drawing.CELL) for shown in row.shown])
    return [
        vocabulary.IMAGE_PAD.join(
            part if first else vocabulary.IMAGE_PAD * (next(cells) - 1) + part
            for first, part in zip(
                (True, *[False] * text.count(vocabulary.IMAGE_PAD)), text.split(vocabulary.IMAGE_PAD), strict=True
            )
        )
        for text, _ in row.pieces
    ]


_MEAN = np.array(OPENAI_CLIP_MEAN, np.float32)
_STD = np.array(OPENAI_CLIP_STD, np.float32)

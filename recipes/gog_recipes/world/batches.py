"""Pre-training examples as tensors for the tiny model, fast enough for its steps of 0.1 seconds.

Patches and M-RoPE positions are computed in closed form, because the world's images have two sizes only. Both equal what
the library computes (tested). The sides of images must be multiples of a cell.
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
    """b sequences of n tokens, padded on the right."""

    ids: torch.Tensor
    """[b, n] int64: token ids."""
    loss_mask: torch.Tensor
    """[b, n] bool: tokens that count in the loss."""
    positions: torch.Tensor
    """[3, b, n] int64: M-RoPE positions."""
    patches: torch.Tensor | None
    """[patches, 1176] float32: patches of all images; None without images."""
    grids: torch.Tensor | None
    """[images, 3] int64: frames, height and width in patches; None without images."""


def collate(examples: Sequence[pretrain_tasks.Example], tokenizer: transformers.PreTrainedTokenizerFast) -> Batch:
    """A batch of examples.

    All are tokenized in one call. The pieces of an example are whole words, so they tokenize as the whole does.
    """
    texts = [text for example in examples for text in _spread(example)]
    encoded = iter(tokenizer(texts, add_special_tokens=False).input_ids)
    pieces = [[(next(encoded), trained) for _, trained in example.pieces] for example in examples]
    length = max(sum(len(ids) for ids, _ in sequence) for sequence in pieces)
    ids = np.full((len(examples), length), tokenizer.pad_token_id)
    loss_mask = np.zeros((len(examples), length), dtype=bool)
    for number, sequence in enumerate(pieces):
        flat = [(token, flag) for tokens, flag in sequence for token in tokens]
        ids[number, : len(flat)], loss_mask[number, : len(flat)] = zip(*flat, strict=True)
    shown = [image for example in examples for image in example.images]
    whole = np.array([any(image.width > drawing.CELL for image in example.images) for example in examples])
    image_pad = tokenizer.convert_tokens_to_ids(vocabulary.IMAGE_PAD)
    return Batch(
        torch.from_numpy(ids),
        torch.from_numpy(loss_mask),
        torch.from_numpy(positions(ids, whole, image_pad)),
        torch.from_numpy(np.concatenate([patches(image) for image in shown])) if shown else None,
        torch.tensor([grid(image) for image in shown]) if shown else None,
    )


def positions(ids: np.ndarray, whole: np.ndarray, image_pad: int) -> np.ndarray:
    """M-RoPE positions of a batch.

    A word advances all three axes. A crop is one token and counts as a word. A scene spans GRID x GRID positions.

    Args:
        ids: [b, n] int64.
        whole: [b] bool: sequences whose only image is a scene.
        image_pad: id of the image token.

    Returns:
        [3, b, n] int64: time, height, width.
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
    """Input of Qwen-VL's vision tower for an image: [patches, 3 * 2 * 14 * 14] float32.

    Patches are ordered cell by cell, and the two frames are the same image.
    """
    pixels = (image.pixels.astype(np.float32) / 255 - _MEAN) / _STD
    _, height, width = grid(image)
    merge, patch = tiny_model.MERGE, tiny_model.PATCH
    cells = pixels.reshape(height // merge, merge, patch, width // merge, merge, patch, 3)
    ordered = cells.transpose(0, 3, 1, 4, 6, 2, 5).reshape(height * width, 3, 1, patch * patch)
    return np.repeat(ordered, 2, axis=2).reshape(height * width, -1)


def grid(image: images.Image) -> tuple[int, int, int]:
    """Frames, height and width of an image in patches."""
    return 1, image.height // tiny_model.PATCH, image.width // tiny_model.PATCH


def _spread(example: pretrain_tasks.Example) -> list[str]:
    """An example's pieces, with one image pad for each token of its images, in order."""
    cells = iter([(image.width // drawing.CELL) * (image.height // drawing.CELL) for image in example.images])
    return [
        vocabulary.IMAGE_PAD.join(
            part if first else vocabulary.IMAGE_PAD * (next(cells) - 1) + part
            for first, part in zip(
                (True, *[False] * text.count(vocabulary.IMAGE_PAD)), text.split(vocabulary.IMAGE_PAD), strict=True
            )
        )
        for text, _ in example.pieces
    ]


_MEAN = np.array(OPENAI_CLIP_MEAN, np.float32)
_STD = np.array(OPENAI_CLIP_STD, np.float32)

"""The back end `gog_recipes.photos.detector:PhotoDetector` of grounding: finds the things of the photo world.

A small network divides an image into background and classes; a connected region is a thing. It is trained in minutes on
pictures of the training cut-outs (`train`), and sees pixels only. It finds things better than it tells their classes, so
an expression ranks them by the share of the classes that it names, and leaves none out.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
from PIL import Image as PILImage
from pydantic import Field
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional

from gog import tool_api
from gog.errors import UserError
from gog.images import Image
from gog_recipes.photos import cutouts

WIDTH, HEIGHT = 192, 144
"""What the network reads, in pixels."""
STRIDE = 2
"""Pixels of that for each cell of its answer."""
CHANNELS = (16, 32, 64, 96)
"""Of its levels, each half as wide and high as the one before."""
KINDS = tuple(cutouts.CLASSES)
"""Its classes, after the background."""
WEIGHTS = "detector.safetensors"
LEAST_CELLS = 30
"""Cells of the smallest thing."""


class Divider(nn.Module):
    """Divides images into background and classes."""

    def __init__(self) -> None:
        super().__init__()
        widths = (3, *CHANNELS)
        self.down = nn.ModuleList(_block(a, b, 2) for a, b in itertools.pairwise(widths))
        self.deep = _block(CHANNELS[-1], CHANNELS[-1], 1)
        pairs = list(zip(CHANNELS[:0:-1], CHANNELS[-2::-1], strict=True))
        self.up = nn.ModuleList(_block(a + b, b, 1) for a, b in pairs)
        self.head = nn.Conv2d(CHANNELS[0], 1 + len(KINDS), 1)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Logits [n, 1 + classes, HEIGHT / STRIDE, WIDTH / STRIDE] of pixels [n, 3, HEIGHT, WIDTH] from -1 to 1."""
        levels = []
        for block in self.down:
            pixels = block(pixels)
            levels.append(pixels)
        found = self.deep(levels.pop())
        for block in self.up:
            beside = levels.pop()
            found = block(torch.cat([functional.interpolate(found, size=beside.shape[-2:]), beside], 1))
        return self.head(found)


def _block(before: int, after: int, stride: int) -> nn.Module:
    return nn.Sequential(nn.Conv2d(before, after, 3, stride, 1), nn.GroupNorm(8, after), nn.ReLU())


def prepare(image: Image) -> torch.Tensor:
    """What the network reads of an image: [3, HEIGHT, WIDTH] from -1 to 1."""
    return resized(image, WIDTH, HEIGHT)


def resized(image: Image, width: int, height: int) -> torch.Tensor:
    """An image in another size, for a network: [3, height, width] from -1 to 1."""
    small = PILImage.fromarray(image.pixels).resize((width, height), PILImage.Resampling.BILINEAR)
    return torch.from_numpy(np.array(small, np.float32)).permute(2, 0, 1) / 127.5 - 1


class PhotoDetector:
    """A Detector of gog's grounding server."""

    def __init__(
        self,
        fetch_model: Callable[[str], Path] = Path,
        *,
        weights: Annotated[str, Field(min_length=1, max_length=1_024)],
        threads: Annotated[int, Field(ge=1, le=64)] = 1,
    ) -> None:
        """Loads the network. Raises UserError where the folder holds none.

        Args:
            fetch_model: finds the folder of the weights.
            weights: their name: a folder, `s3://` or `hf://`.
            threads: of torch.
        """
        path = fetch_model(weights) / WEIGHTS
        if not path.is_file():
            raise UserError(
                f"no {WEIGHTS}", where=weights, remedy="name the folder that `python -m gog_recipes.photos` wrote"
            )
        torch.set_num_threads(threads)
        self._network = Divider()
        self._network.load_state_dict(load_file(path))
        self._network.eval()

    @torch.inference_mode()
    def detect(self, images: Sequence[Image], expressions: Sequence[str]) -> list[list[tool_api.Detection]]:
        """The things in each image, those first that are most surely of a class that its expression names."""
        shares = functional.softmax(self._network(torch.stack([prepare(image) for image in images])), 1).numpy()
        return [
            things(each, image.width, image.height, classes(words))
            for each, image, words in zip(shares, images, expressions, strict=True)
        ]


def classes(expression: str) -> list[int]:
    """Places in KINDS of the classes that an expression names; all without any."""
    words = set(re.findall(r"[a-z]+", expression.lower()))
    return [place for place, kind in enumerate(KINDS) if {kind, f"{kind}s"} & words] or list(range(len(KINDS)))


def things(shares: np.ndarray, width: int, height: int, wanted: Sequence[int]) -> list[tool_api.Detection]:
    """The things in an image, the most wanted first.

    Args:
        shares: probabilities [1 + classes, rows, columns].
        width, height: of the image, in pixels.
        wanted: places in KINDS.
    """
    rows, columns = shares.shape[1:]
    scale = np.array([width / columns, height / rows] * 2)
    found = []
    for cells in regions(shares[0] < 0.5):
        if len(cells) < LEAST_CELLS:
            continue
        kinds = shares[1:, cells[:, 0], cells[:, 1]].mean(1)
        (y0, x0), (y1, x1) = cells.min(0), cells.max(0) + 1
        box = tuple(float(each) for each in np.array([x0, y0, x1, y1]) * scale)
        score = float(min(1.0, kinds[list(wanted)].sum()))
        found.append(tool_api.Detection(box=box, score=score, label=KINDS[int(kinds.argmax())]))
    return sorted(found, key=lambda each: -each.score)


def regions(mask: np.ndarray) -> list[np.ndarray]:
    """Connected regions of mask [rows, columns]: the cells of each, [cells, 2] as row and column."""
    left = {(int(y), int(x)) for y, x in np.argwhere(mask)}
    found = []
    while left:
        cells = [left.pop()]
        for y, x in cells:  # grows while it is walked
            near = {(y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)} & left
            left -= near
            cells += near
        found.append(np.array(cells))
    return found

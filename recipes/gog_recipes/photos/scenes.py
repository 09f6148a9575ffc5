"""Pictures of several cut-outs on a photograph, with exact boxes."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image as PILImage

from gog import regions
from gog.errors import UserError
from gog.images import Image
from gog_recipes.photos.cutouts import OPAQUE, Cutout

WIDTH, HEIGHT = 384, 288
"""Of a picture, in pixels."""
SIZES = (0.24, 0.42)
"""Longest side of a thing, as a share of the picture's height: smallest and largest."""
TRIES = 60
"""Places that are tried for a thing before it is left out."""
MAX_OVERLAP = 0.08
"""Share of the smaller of two boxes that the other one may cover."""
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")

Box = tuple[int, int, int, int]


@dataclass(frozen=True)
class Thing:
    """A cut-out in a picture."""

    cutout: Cutout
    """Which."""
    box: Box
    """Of its opaque pixels: x0, y0, x1, y1, ends exclusive."""


@dataclass(frozen=True)
class Scene:
    """A picture."""

    image: Image
    """Its pixels."""
    things: tuple[Thing, ...]
    """What is in it, in the order in which it was put there."""
    mask: np.ndarray
    """For each pixel the number of its thing, counted from 1; 0 for the photograph behind; [HEIGHT, WIDTH] uint8."""


class Photographs:
    """The photographs of a folder, read once.

    Args:
        folder: with JPEG, PNG or WebP files at any depth.

    Raises:
        UserError: it holds none that is as large as a picture.
    """

    def __init__(self, folder: Path) -> None:
        self.paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)
        self._opened: dict[Path, PILImage.Image] = {}
        if len(self.paths) < 2:
            raise UserError("fewer than two photographs", where=str(folder), remedy="name a folder of JPEG files")

    def split(self) -> tuple[list[Path], list[Path]]:
        """Those behind training questions, and every third one, behind held-out questions."""
        held = self.paths[::3]
        return [path for path in self.paths if path not in held], held

    def crop(self, rng: random.Random, path: Path) -> PILImage.Image:
        """A random part of a photograph, in the size of a picture."""
        whole = self._open(path)
        scale = rng.uniform(1.0, min(whole.width / WIDTH, whole.height / HEIGHT))
        width, height = int(WIDTH * scale), int(HEIGHT * scale)
        left, top = rng.randint(0, whole.width - width), rng.randint(0, whole.height - height)
        return whole.crop((left, top, left + width, top + height)).resize((WIDTH, HEIGHT), PILImage.Resampling.BILINEAR)

    def _open(self, path: Path) -> PILImage.Image:
        if path not in self._opened:
            try:
                opened = PILImage.open(path).convert("RGB")
            except (OSError, ValueError) as error:
                raise UserError(f"cannot be read: {error}", where=str(path), remedy="remove it") from None
            opened.thumbnail((4 * WIDTH, 4 * HEIGHT))  # keeps the ratio, so the other side may be too short
            shortest = max(WIDTH / opened.width, HEIGHT / opened.height, 1.0)
            size = (int(np.ceil(opened.width * shortest)), int(np.ceil(opened.height * shortest)))
            self._opened[path] = opened.resize(size, PILImage.Resampling.BILINEAR) if shortest > 1 else opened
        return self._opened[path]


def compose(rng: random.Random, behind: PILImage.Image, cutouts: Sequence[Cutout]) -> Scene:
    """A picture of things on a photograph; one for which there is no room is left out."""
    canvas, mask = behind.copy(), np.zeros((HEIGHT, WIDTH), np.uint8)
    things: list[Thing] = []
    for cutout in cutouts:
        picture = cutout.picture()
        longest = rng.uniform(*SIZES) * HEIGHT
        scale = longest / max(picture.size)
        picture = picture.resize(
            (max(1, round(picture.width * scale)), max(1, round(picture.height * scale))), PILImage.Resampling.LANCZOS
        )
        place = _place(rng, picture.size, [each.box for each in things])
        if place is None:
            continue
        canvas.paste(picture, place, picture)
        x, y = place
        mask[y : y + picture.height, x : x + picture.width][np.asarray(picture)[..., 3] >= OPAQUE] = len(things) + 1
        things.append(Thing(cutout, (x, y, x + picture.width, y + picture.height)))
    return Scene(Image(np.asarray(canvas)), tuple(things), mask)


def _place(rng: random.Random, size: tuple[int, int], taken: Sequence[Box]) -> tuple[int, int] | None:
    width, height = size
    for _ in range(TRIES):
        x, y = rng.randint(0, WIDTH - width), rng.randint(0, HEIGHT - height)
        if all(_overlap((x, y, x + width, y + height), box) <= MAX_OVERLAP for box in taken):
            return x, y
    return None


def _overlap(a: Box, b: Box) -> float:
    """Share of the smaller box that the other one covers."""
    inner = regions.area((max(a[0], b[0]), max(a[1], b[1]), min(a[2], b[2]), min(a[3], b[3])))
    return inner / min(regions.area(a), regions.area(b))

"""The back end `world` of grounding: finds what an expression names by pixels alone, and ranks badly on purpose.

Colour is the palette entry that most pixels of a thing are nearest to; form is the nearest reference silhouette, drawn
here. Every thing that shares its colour or form with the expression is a candidate. Real detectors on open words put
the right box among the first few but often not first. A score that is mostly noise gives the policy the same choice to
make: the best-scored candidate is right about half the time. The noise is a function of image and expression, so the
same request gets the same answer.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from PIL import Image as PILImage
from PIL import ImageDraw
from pydantic import Field

from gog import judging, tool_api
from gog.images import Image
from gog_tools.search import segmentation

PALETTE = {
    "red": (220, 40, 40),
    "green": (40, 180, 60),
    "blue": (50, 80, 230),
    "yellow": (230, 210, 40),
    "purple": (150, 50, 190),
    "white": (245, 245, 245),
}
OUTLINES: dict[str, tuple[tuple[float, float], ...]] = {
    "square": ((-1, -1), (1, -1), (1, 1), (-1, 1)),
    "triangle": ((0, -1), (1, 1), (-1, 1)),
    "cross": (
        *((-0.35, -1), (0.35, -1), (0.35, -0.35), (1, -0.35), (1, 0.35), (0.35, 0.35)),
        *((0.35, 1), (-0.35, 1), (-0.35, 0.35), (-1, 0.35), (-1, -0.35), (-0.35, -0.35)),
    ),
    "bar": ((-1, -0.45), (1, -0.45), (1, 0.45), (-1, 0.45)),
}
"""Corners of the forms that have corners, in a square from -1 to 1."""
RING_HOLE = 0.55
"""Radius of a ring's hole in radii of the ring."""
GRID = 12
"""Cells on each side of a silhouette's raster."""
ASPECT_WEIGHT = 6.0
"""Weight of the aspect among the cells of a silhouette."""


@dataclass(frozen=True)
class Thing:
    """What the detector recognises in a box."""

    box: segmentation.Box
    """Pixels of the image, ends exclusive."""
    colour: str
    """A key of PALETTE."""
    form: str
    """`circle`, `ring` or a key of OUTLINES."""


class WorldDetector:
    """A Detector of the embedded world's things."""

    def __init__(self, *, noise: Annotated[float, Field(ge=0, le=1_000)] = 10.0) -> None:
        """Creates a detector.

        Args:
            noise: range of the noise in scores; a thing that agrees in colour and form starts 1 ahead of one that
                agrees in either, so 0 always ranks the right thing first
        """
        self.noise = noise

    def detect(self, images: Sequence[Image], expressions: Sequence[str]) -> list[list[tool_api.Detection]]:
        """All candidates for each expression in its image, best score (0 to 1) first."""
        return [_rank(image, words, self.noise) for image, words in zip(images, expressions, strict=True)]


def recognise(pixels: np.ndarray) -> list[Thing]:
    """Everything in an image [h, w, 3] uint8, in reading order."""
    segments = segmentation.segment(pixels)
    return [Thing(box, _colour(segments, box), _form(segments, box)) for box in segments.boxes]


def _rank(image: Image, expression: str, noise: float) -> list[tool_api.Detection]:
    words = set(judging.normalise(expression).split())
    found = []
    for index, thing in enumerate(recognise(image.pixels)):
        agreement = (thing.colour in words) + (thing.form in words)
        if agreement:
            score = (agreement + noise * _noise(image, words, index)) / (2 + noise)
            found.append(tool_api.Detection(box=thing.box, score=score, label=f"{thing.colour} {thing.form}"))
    return sorted(found, key=lambda detection: -detection.score)


def _noise(image: Image, words: set[str], index: int) -> float:
    """Uniform from 0 to 1; the same for the same image, words and thing."""
    key = f"{image.hash} {' '.join(sorted(words))} {index}".encode()
    return int.from_bytes(hashlib.blake2b(key, digest_size=4).digest(), "big") / 2**32


_COLOURS = np.array(list(PALETTE.values()), np.float32)
_NAMES = tuple(PALETTE)


def _colour(segments: segmentation.Segments, box: segmentation.Box) -> str:
    x0, y0, x1, y1 = box
    pixels = segments.pixels[y0:y1, x0:x1][segments.mask[y0:y1, x0:x1]].astype(np.float32)
    # |p|² is the same for every colour c, so the argmin of |p - c|² does not need it.
    nearest = ((_COLOURS**2).sum(1) - 2 * pixels @ _COLOURS.T).argmin(1)
    return _NAMES[int(np.bincount(nearest).argmax())]


def _form(segments: segmentation.Segments, box: segmentation.Box) -> str:
    x0, y0, x1, y1 = box
    distances = ((_SILHOUETTES - _silhouette(segments.mask[y0:y1, x0:x1])) ** 2).sum(1)
    return _FORMS[int(distances.argmin())]


def _silhouette(mask: np.ndarray) -> np.ndarray:
    """Of mask [h, w]: how much of each cell of a GRID x GRID raster is filled, and the aspect; [GRID * GRID + 1] float32."""
    image = PILImage.fromarray(mask.astype(np.uint8) * 255).resize((GRID, GRID), PILImage.Resampling.BOX)
    aspect = min(1.0, mask.shape[0] / mask.shape[1])
    return np.append(np.asarray(image, np.float32).ravel() / 255, ASPECT_WEIGHT * np.float32(aspect))


def _draw(form: str, radius: int = 60) -> np.ndarray:
    """The reference silhouette of a form as a mask [h, w], 2 * radius wide."""
    side = 2 * radius
    image = PILImage.new("L", (side, side), 0)
    canvas = ImageDraw.Draw(image)
    if form in OUTLINES:
        canvas.polygon([(radius + x * radius, radius + y * radius) for x, y in OUTLINES[form]], fill=255)
    else:
        canvas.ellipse((0, 0, side - 1, side - 1), fill=255)
    if form == "ring":
        hole = RING_HOLE * radius
        canvas.ellipse((radius - hole, radius - hole, radius + hole, radius + hole), fill=0)
        # The world draws a mark in the middle of a ring.
        canvas.rectangle((radius - 15, radius - 15, radius + 15, radius + 15), fill=255)
    mask = np.asarray(image) > 0
    rows = mask.any(1)
    return mask[rows]


_FORMS = ("circle", "ring", *OUTLINES)
_SILHOUETTES = np.stack([_silhouette(_draw(form)) for form in _FORMS])

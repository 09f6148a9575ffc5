"""Boxes: from a detector's answer to the crop of a candidate.

Detectors return boxes that are outside the image, repeated, inverted or one pixel thin. A box is clamped, checked and
de-duplicated before it is offered as a candidate, and its crop is always cut from the *original* pixels, never from a
resized copy. Boxes are (x0, y0, x1, y1) in pixels, ends exclusive.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np
from PIL import Image as PILImage

from gog import tool_api
from gog.images import Image

Box = tuple[float, float, float, float]


def clamp(box: Box, width: int, height: int) -> Box:
    """The part of a box that is inside an image of this size; may be empty."""
    x0, y0, x1, y1 = box
    return (min(max(x0, 0.0), width), min(max(y0, 0.0), height), min(max(x1, 0.0), width), min(max(y1, 0.0), height))


def area(box: Box) -> float:
    """Square pixels; 0 for an inverted box."""
    return max(0.0, box[2] - box[0]) * max(0.0, box[3] - box[1])


def overlap(a: Box, b: Box) -> float:
    """Intersection over union, 0 to 1."""
    inner = area((max(a[0], b[0]), max(a[1], b[1]), min(a[2], b[2]), min(a[3], b[3])))
    union = area(a) + area(b) - inner
    return inner / union if union > 0 else 0.0


def usable(box: Box, *, min_side: float, max_aspect: float) -> bool:
    """Whether a box is finite, not inverted, large enough and not too thin.

    Args:
        box: the box.
        min_side: smallest width and height, in pixels; at least 1 is required.
        max_aspect: largest ratio of the longer side to the shorter.
    """
    if not all(math.isfinite(side) for side in box):
        return False
    width, height = box[2] - box[0], box[3] - box[1]
    return min(width, height) >= max(min_side, 1) and max(width, height) <= max_aspect * min(width, height)


def select(
    detections: Iterable[tool_api.Detection],
    width: int,
    height: int,
    *,
    limit: int,
    min_side: float,
    max_aspect: float,
    max_overlap: float,
) -> list[tool_api.Detection]:
    """The detections that can be offered: clamped, usable, without duplicates, best score first.

    Args:
        detections: as the detector returned them.
        width, height: of the image, in pixels.
        limit: how many to keep.
        min_side: see `usable`.
        max_aspect: see `usable`.
        max_overlap: of two boxes that overlap by more (intersection over union), the better one is kept.
    """
    kept: list[tool_api.Detection] = []
    for detection in sorted(detections, key=lambda item: -item.score):
        box = clamp(detection.box, width, height)
        if not math.isfinite(detection.score) or not usable(box, min_side=min_side, max_aspect=max_aspect):
            continue
        if any(overlap(box, other.box) > max_overlap for other in kept):
            continue
        kept.append(detection.model_copy(update={"box": box}))
        if len(kept) == limit:
            break
    return kept


def pad(box: Box, by: float, width: int, height: int) -> Box:
    """The box with `by` more pixels on each side, clamped to the image."""
    return clamp((box[0] - by, box[1] - by, box[2] + by, box[3] + by), width, height)


def square(box: Box, by: float, width: int, height: int) -> Box:
    """The smallest square around the box with `by` more pixels on each side, clamped to the image."""
    half = max(box[2] - box[0], box[3] - box[1]) / 2 + by
    x, y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    return clamp((x - half, y - half, x + half, y + half), width, height)


def origin(box: Box, by: float, width: int, height: int) -> tuple[int, int]:
    """Where the whole-pixel crop of a box begins in its image: x and y, see `crop`."""
    x0, y0, _, _ = pad(box, by, width, height)
    return math.floor(x0), math.floor(y0)


def moved(box: Box, x: float, y: float) -> Box:
    """The box shifted by x and y pixels."""
    return (box[0] + x, box[1] + y, box[2] + x, box[3] + y)


def crop(image: Image, box: Box, *, by: int, side: int | None) -> Image:
    """A box with some of its surroundings, cut from the image's own pixels.

    Args:
        image: the original image.
        box: must overlap the image.
        by: pixels added on each side.
        side: None cuts whole pixels; a number resamples the square around the box to that many pixels on each side.
    """
    if side is None:
        x0, y0, x1, y1 = pad(box, by, image.width, image.height)
        return Image(image.pixels[math.floor(y0) : math.ceil(y1), math.floor(x0) : math.ceil(x1)].copy())
    whole = PILImage.fromarray(image.pixels)
    cut = square(box, by, image.width, image.height)
    return Image(np.asarray(whole.resize((side, side), PILImage.Resampling.BILINEAR, box=cut)))


def containing(boxes: Sequence[Box], target: Box) -> int | None:
    """Index of the box that overlaps `target` most; None if none does."""
    best = max(range(len(boxes)), key=lambda index: overlap(boxes[index], target), default=None)
    return best if best is not None and overlap(boxes[best], target) > 0 else None

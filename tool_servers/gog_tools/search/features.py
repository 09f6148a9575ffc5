"""What a thing looks like, as a vector that does not depend on its size, place or background.

A crop, a scene and a reference image of the same thing go through the same functions and come out alike, so their
distance is that of their looks. Features are thumbnails: enough for the flat images of the embedded world, not for
photographs.
"""

from __future__ import annotations

import numpy as np
from PIL import Image as PILImage

from gog.images import Image
from gog_tools.search import segmentation

EDGE = 0.4
"""A resized thing ends where this share of its median contrast is reached; fainter pixels are blur."""
NEUTRAL = 128
"""Grey that replaces the background in thumbnails."""
THUMBNAIL = 14
"""Side of a thumbnail in pixels; features have THUMBNAIL * THUMBNAIL * 3 values."""


def readings(image: Image) -> list[np.ndarray]:
    """Features of what a query image may show.

    A query shows one or more things; as in web image search, the most salient one is looked up. A crop may also be so
    tight that no background is left, so that the whole image is the thing. The image does not show which case applies,
    so both readings are returned.

    Args:
        image: of any size

    Returns:
        Features, each [d] float32 from 0 to 255, the likelier reading first; none for an image of one colour.
    """
    segments = segmentation.segment(image.pixels)
    box = segments.most_salient()
    if box is None:
        return []
    return [of_thing(segments, box), of_pixels(image.pixels)]


def of_thing(segments: segmentation.Segments, box: segmentation.Box) -> np.ndarray:
    """Features [d] float32 of the thing in a box, without its background."""
    x0, y0, x1, y1 = _sharp(segments, box)
    cut = segments.pixels[y0:y1, x0:x1].copy()
    cut[~segments.mask[y0:y1, x0:x1]] = NEUTRAL
    return of_pixels(cut)


def of_pixels(pixels: np.ndarray) -> np.ndarray:
    """Features [d] float32 of pixels [h, w, 3] uint8 that are one thing from edge to edge."""
    height, width = pixels.shape[:2]
    side = max(height, width)
    if height != width:
        left, top = (side - width) // 2, (side - height) // 2
        pixels = np.pad(
            pixels, ((top, side - height - top), (left, side - width - left), (0, 0)), constant_values=NEUTRAL
        )
    image = PILImage.fromarray(pixels).resize((THUMBNAIL, THUMBNAIL), PILImage.Resampling.BILINEAR)
    return np.asarray(image, np.float32).ravel()


def _sharp(segments: segmentation.Segments, box: segmentation.Box) -> segmentation.Box:
    """The box without the blur that resizing leaves around a thing."""
    x0, y0, x1, y1 = box
    contrast = segments.contrast[y0:y1, x0:x1]
    median = np.median(contrast[segments.mask[y0:y1, x0:x1]])
    return segmentation.tight(segments.contrast > EDGE * median, box)

"""Turn any decoded image into the RGB pixels that a person would see.

Files hold more than red, green and blue: an orientation mark that viewers apply, transparency, palettes, inks, 16 bits a
sample. The model must see what the annotator saw, so all of that is resolved here, in one place. Colour profiles are
not applied. Of an animation the first frame counts.
"""

from __future__ import annotations

import numpy as np
from PIL import Image as PILImage

_ORIENTATION = 0x0112
_TRANSPOSE = {
    2: PILImage.Transpose.FLIP_LEFT_RIGHT,
    3: PILImage.Transpose.ROTATE_180,
    4: PILImage.Transpose.FLIP_TOP_BOTTOM,
    5: PILImage.Transpose.TRANSPOSE,
    6: PILImage.Transpose.ROTATE_270,
    7: PILImage.Transpose.TRANSVERSE,
    8: PILImage.Transpose.ROTATE_90,
}
"""What makes an image upright, by its EXIF orientation; 1 is upright."""


def rgb(image: PILImage.Image) -> np.ndarray:
    """Pixels [height, width, 3] uint8 of an opened image: upright, on white, 8 bits a sample.

    Raises:
        OSError, ValueError, SyntaxError: the file is truncated or damaged.
    """
    image.load()
    transpose = _TRANSPOSE.get(_orientation(image))
    if image.mode.startswith("I"):
        image = _eight_bits(image)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = PILImage.alpha_composite(PILImage.new("RGBA", image.size, "white"), image)
    image = image.convert("RGB")
    return np.asarray(image if transpose is None else image.transpose(transpose))


def _orientation(image: PILImage.Image) -> int:
    try:
        return int(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # noqa: BLE001 (Pillow raises whatever a damaged EXIF block leads to; viewers ignore such a block)
        return 1


def _eight_bits(image: PILImage.Image) -> PILImage.Image:
    """A 16-bit greyscale image in 8 bits; Pillow's own conversion cuts every value off at 255."""
    values = np.asarray(image).astype(np.int64).clip(0, 65535)
    grey = PILImage.fromarray(((values * 255 + 32767) // 65535).astype(np.uint8))
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):
        grey.putalpha(PILImage.fromarray(np.where(values == transparent, 0, 255).astype(np.uint8)))
    return grey

"""Thumbnails of search results, as images that the model is shown.

They come from the web, so nothing about them is trusted: each is bounded in bytes and pixels before it is decoded, decoded
by the one guarded decoder, made small, and held to the shapes that models accept. One that fails is left out; that is
neither a failure of the tool, whose titles are there, nor a mistake of the policy.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from PIL import Image as PILImage

from gog import image_limits, tool_api
from gog.errors import UserError
from gog.images import Image
from gog.spec import ThumbnailSettings

TRIES = 3
"""Thumbnails that are decoded for each that may be shown; bounds the work that unusable ones cause."""


@dataclass(frozen=True)
class Decoded:
    """Thumbnails of several searches of one action."""

    by_search: tuple[Mapping[int, Image], ...]
    """For each search its images by the place of their results, from 0."""
    unusable: int = field(default=0)
    """Thumbnails that were tried and left out."""


def decode(searches: Sequence[Sequence[tool_api.SearchHit]], how: ThumbnailSettings) -> Decoded:
    """The thumbnails to show, those of the best results first, in turns among the searches.

    Takes milliseconds for each, so call it in a thread.

    Args:
        searches: the results of each search, best first.
        how: how many, and how large.
    """
    found: list[dict[int, Image]] = [{} for _ in searches]
    ranked = sorted((place, which) for which, hits in enumerate(searches) for place in range(len(hits)))
    tried = 0
    for place, which in ranked:
        text = searches[which][place].thumbnail
        if sum(map(len, found)) >= how.count or tried >= how.count * TRIES:
            break
        if text:
            tried += 1
            if (image := _usable(text, how)) is not None:
                found[which][place] = image
    return Decoded(tuple(found), tried - sum(map(len, found)))


def _usable(text: str, how: ThumbnailSettings) -> Image | None:
    """The image in a base64 text, made small; None if it is too large, damaged, or of a shape that no model accepts."""
    if len(text) * 3 // 4 > how.max_bytes:
        return None
    try:
        image = tool_api.decode_image(text, where="thumbnail", max_pixels=how.max_pixels)
    except UserError:
        return None
    small = PILImage.fromarray(image.pixels)
    small.thumbnail((how.side, how.side))
    if image_limits.QWEN_VL.fault(*small.size):
        return None
    return Image(np.asarray(small))

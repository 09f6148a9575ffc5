"""Crops of the boxes that grounding proposes, cut from the image's own pixels.

The same box of the same image is cut once, however many episodes of a group look at it. Crops are cut, and their hashes
computed, in worker threads, because a crop of a large image takes tens of milliseconds.
"""

from __future__ import annotations

import asyncio
import os
from collections import OrderedDict
from collections.abc import Mapping, Sequence

from gog import regions, tool_api
from gog.images import Image

MAX_KEPT_BYTES = 1 << 29
"""Bytes of crops that the processes of a stage keep in the memory of one machine; each drops the least recently used."""


class Crops:
    """Cuts crops and keeps them. Used in one event loop."""

    def __init__(self, pad: int, side: int | None, environment: Mapping[str, str] = os.environ) -> None:
        """
        Args:
            pad: pixels of context on each side of a box.
            side: of the square in pixels to which each crop is resampled; None keeps its own pixels.
            environment: in which torchrun describes the processes of this machine, who share the memory.
        """
        self.pad, self.side = pad, side
        self._kept: OrderedDict[tuple[str, regions.Box], Image] = OrderedDict()
        self._bytes, self._max_bytes = 0, MAX_KEPT_BYTES // int(environment.get("LOCAL_WORLD_SIZE", "1"))

    async def cut(self, image: Image, boxes: Sequence[regions.Box]) -> tuple[Image, ...]:
        """The crops of boxes [x0, y0, x1, y1] in pixels of the image, in their order."""
        crops = {box: self._kept[image.hash, box] for box in boxes if (image.hash, box) in self._kept}
        missing = [box for box in boxes if box not in crops]
        if missing:
            made = await asyncio.to_thread(_crops, image, missing, self.pad, self.side)
            for box, crop in zip(missing, made, strict=True):
                crops[box] = crop
                self._keep((image.hash, box), crop)
        for box in boxes:
            if (image.hash, box) in self._kept:
                self._kept.move_to_end((image.hash, box))
        return tuple(crops[box] for box in boxes)

    def _keep(self, key: tuple[str, regions.Box], crop: Image) -> None:
        if key not in self._kept:  # an equal call may have cut it meanwhile
            self._kept[key] = crop
            self._bytes += _size(crop)
        while self._bytes > self._max_bytes:
            self._bytes -= _size(self._kept.popitem(last=False)[1])


async def part(image: Image, region: regions.Box, pad: int) -> Image:
    """The pixels around a region at their own size, whose hash is known."""
    (found,) = await asyncio.to_thread(_crops, image, [region], pad, None)
    return found


def in_whole(found: tool_api.Detection, within: Image, x: float, y: float) -> tool_api.Detection:
    """What was found in a part of an image that begins at x, y, in pixels of that image."""
    return found.model_copy(update={"box": regions.moved(regions.clamp(found.box, within.width, within.height), x, y)})


def _size(crop: Image) -> int:
    """Bytes of a crop: its pixels, and its PNG, which is made when it is searched and is no larger."""
    return 2 * crop.pixels.nbytes


def _crops(image: Image, boxes: Sequence[regions.Box], pad: int, side: int | None) -> list[Image]:
    """Crops of boxes, whose hashes are known."""
    crops = [regions.crop(image, box, by=pad, side=side) for box in boxes]
    for crop in crops:
        crop.hash  # noqa: B018 (kept by the crop, and computed here because a caller's loop should not)
    return crops

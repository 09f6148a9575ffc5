"""Images as requests carry them: a PNG in a data URI, at the size that the model sees.

Libraries resize an image to slightly different pixels, which changes log-probs in their second digit. So an image is
resized here, by the run's own processor, and the server finds nothing to resize. An image is prepared and encoded once,
in a worker thread, and kept for as long as a conversation shows it.
"""

from __future__ import annotations

import asyncio
import base64
import weakref
from collections.abc import Sequence
from dataclasses import dataclass

from gog.images import Image
from gog_recipes.models.family import Processor
from gog_recipes.models.vision import Vision


@dataclass(frozen=True, eq=False)
class SentImage:
    """An image as requests carry it."""

    uri: str
    """data:image/png;base64,…"""
    tokens: int
    """Image tokens that it takes up."""


class SentImages:
    """The images of open conversations, by content.

    Args:
        processor: resizes images.
        vision: prepares them for the trainer, which gives their size in tokens.
    """

    def __init__(self, processor: Processor, vision: Vision) -> None:
        self._processor, self._vision = processor, vision
        self._kept: weakref.WeakValueDictionary[str, SentImage] = weakref.WeakValueDictionary()
        self._preparing = asyncio.Lock()

    async def get(self, images: Sequence[Image]) -> list[SentImage]:
        """The images in order; new ones are prepared.

        Raises:
            QuestionSkipped: the model cannot take an image.
        """
        async with self._preparing:  # `vision` is not for several threads
            found = [self._kept.get(image.hash) for image in images]
            if all(found):
                return [each for each in found if each is not None]
            made = await asyncio.to_thread(self._make, images)
            self._kept.update(zip((image.hash for image in images), made, strict=True))
            return made

    def _make(self, images: Sequence[Image]) -> list[SentImage]:
        self._vision.add(images)
        made = []
        for image in images:
            kept = self._kept.get(image.hash)
            if kept is None:
                kept = SentImage(encode(image, self._processor, self._vision), self._vision.tokens(image.hash))
            made.append(kept)
        return made


def encode(image: Image, processor: Processor, vision: Vision) -> str:
    """An image that was added to `vision` as a data URI, at the size that the model sees."""
    png = processor.resized(image, vision.grid(image.hash)).png
    return "data:image/png;base64," + base64.b64encode(png).decode()

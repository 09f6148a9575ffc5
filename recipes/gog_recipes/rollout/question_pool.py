"""The questions of a stage, and their images read when they are needed."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from gog import images
from gog.dataset import Question
from gog.errors import QuestionSkipped, UserError
from gog.images import Image

CACHE_BYTES = 1 << 30
"""Bytes of decoded pixels that are kept, at most; an image that is larger by itself is kept while it is the newest."""


@dataclass
class QuestionPool:
    """Questions with their images; the least recently used images are dropped first."""

    folder: Path
    """The dataset's folder."""
    questions: Sequence[Question]
    """In the order of the dataset."""
    cache_bytes: int = CACHE_BYTES
    """Bytes of decoded pixels that are kept."""
    _images: OrderedDict[str, Image] = field(default_factory=OrderedDict)
    _bytes: int = 0

    async def image(self, question: Question) -> Image:
        """The image of a question, read in a worker thread. Raises QuestionSkipped for one that cannot be read."""
        name = question.image
        if name not in self._images:
            read = await asyncio.to_thread(self._read, name)
            return self._images[name] if name in self._images else self._keep(name, read)
        self._images.move_to_end(name)
        return self._images[name]

    def _keep(self, name: str, image: Image) -> Image:
        self._images[name] = image
        self._bytes += image.pixels.nbytes
        while len(self._images) > 1 and self._bytes > self.cache_bytes:
            self._bytes -= self._images.popitem(last=False)[1].pixels.nbytes
        return image

    def _read(self, name: str) -> Image:
        try:
            image = images.read(self.folder / name)
        except UserError as error:
            raise QuestionSkipped(error.what, where=error.where, remedy=error.remedy) from None
        image.hash  # noqa: B018 (kept by the image: of 12 megapixels it takes 50 ms, which must not delay the engine)
        return image

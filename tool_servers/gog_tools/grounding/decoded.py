"""Images of grounding requests: decoded in threads, once for all requests that show the same, within a bound of bytes.

The samples of a group look at one image with expressions of their own, so that its requests arrive together. A request
says nothing about the size of its image before the image is decoded: 64 photographs of 12 megapixels, in a few megabytes
each, take 2.3 GB. Decoding therefore stops while the images that requests hold have as many bytes as they may.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TypeVar

from gog import tool_api
from gog.images import Image

Made = TypeVar("Made")
THREADS = 2
"""Threads that decode images."""
MAX_BYTES = 1 << 28
"""Bytes of decoded images that are held, beyond which no further one is decoded; those that are being decoded come on top."""
LONG_TEXT = 1 << 17
"""Characters of base64 from which the hash of an image's text is computed in a thread."""


@dataclass
class _Entry:
    """An image that requests show."""

    image: asyncio.Task[Image]
    """The image, once it is decoded."""
    requests: int = 0
    """Requests that hold it."""
    held_bytes: int = 0
    """Its bytes, once it is decoded."""


class DecodedImages:
    """Images that requests hold. Used in one event loop."""

    def __init__(self, max_bytes: int = MAX_BYTES) -> None:
        """max_bytes: bytes of decoded images, beyond which no further one is decoded."""
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="decode")
        self._turns, self._room = asyncio.Semaphore(THREADS), asyncio.Event()
        self._entries: dict[bytes, _Entry] = {}
        self._bytes, self._max_bytes = 0, max_bytes
        self._room.set()

    @asynccontextmanager
    async def held(self, text: str) -> AsyncIterator[Image]:
        """The image of a base64 text, which is held until the end. Raises UserError for one that cannot be read."""
        key = _digest(text) if len(text) <= LONG_TEXT else await self._in_thread(_digest, text)
        entry = self._entries.get(key)
        if entry is None:
            entry = self._entries[key] = _Entry(asyncio.ensure_future(self._decode(key, text)))
            entry.image.add_done_callback(_retrieve)
        entry.requests += 1
        try:
            yield await asyncio.shield(entry.image)
        finally:
            entry.requests -= 1
            if not entry.requests:
                del self._entries[key]
                entry.image.cancel()
                self._add(-entry.held_bytes)

    async def _decode(self, key: bytes, text: str) -> Image:
        async with self._turns:
            await self._room.wait()
            image = await self._in_thread(tool_api.decode_image, text)
            self._entries[key].held_bytes = image.pixels.nbytes
            self._add(image.pixels.nbytes)
            return image

    def _add(self, held_bytes: int) -> None:
        self._bytes += held_bytes
        if self._bytes < self._max_bytes:
            self._room.set()
        else:
            self._room.clear()

    def _in_thread(self, work: Callable[[str], Made], text: str) -> asyncio.Future[Made]:
        return asyncio.get_running_loop().run_in_executor(self._threads, work, text)


def _digest(text: str) -> bytes:
    return hashlib.blake2b(text.encode("utf-8", "replace"), digest_size=16).digest()


def _retrieve(task: asyncio.Task[Image]) -> None:
    """Takes note of an exception, which asyncio would report where every request has gone."""
    if not task.cancelled():
        task.exception()

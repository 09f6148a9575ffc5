"""Images by content.

An image is named by the hash of its *pixels*, not of its file: the same crop encoded twice is one cache entry, one
vision encoding, one file on disk. Decoding is guarded (format allow-list, pixel cap) because images arrive from
search results, that is, from strangers.
"""

from __future__ import annotations

import hashlib
import io
import os
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
from PIL import Image as PILImage

from gog.errors import UserError

MAX_PIXELS = 40_000_000
"""A 10 kB PNG can hold 80 million pixels; beyond this an image is refused before it is decoded."""
FORMATS = ("PNG", "JPEG", "WEBP")


@dataclass(frozen=True, eq=False)
class Image:
    """An RGB image: pixels [height, width, 3] uint8, its hash and, on demand, its PNG bytes."""

    pixels: np.ndarray = field(repr=False)

    @cached_property
    def hash(self) -> str:
        """blake2b-128 over size and pixels, 32 hex digits."""
        digest = hashlib.blake2b(f"{self.width}x{self.height}:".encode(), digest_size=16)
        digest.update(np.ascontiguousarray(self.pixels).data)
        return digest.hexdigest()

    @cached_property
    def png(self) -> bytes:
        stream = io.BytesIO()
        PILImage.fromarray(self.pixels).save(stream, "PNG", compress_level=1)
        return stream.getvalue()

    @property
    def width(self) -> int:
        return int(self.pixels.shape[1])

    @property
    def height(self) -> int:
        return int(self.pixels.shape[0])


def decode(data: bytes, *, where: str = "image") -> Image:
    """Encoded bytes -> Image. Raises UserError for anything that is not a PNG, JPEG or WEBP of bearable size."""
    try:
        image = PILImage.open(io.BytesIO(data), formats=FORMATS)
        _check_size(image, where)
        return Image(np.asarray(image.convert("RGB")))
    except (OSError, ValueError, SyntaxError, PILImage.DecompressionBombError) as error:
        raise _unreadable(error, where) from None


def read(path: Path) -> Image:
    """An image from a file; UserError names the file."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"cannot read image: {error.strerror}", where=str(path)) from None
    return decode(data, where=str(path))


def verify(path: Path) -> None:
    """Looks whether a file is an image that can be read, without unpacking its pixels. Raises UserError.

    A PNG's checksums are compared to its end; of the other formats only the head is read.
    """
    try:
        with PILImage.open(path, formats=FORMATS) as image:
            _check_size(image, str(path))
            image.verify()
    except (OSError, ValueError, SyntaxError, PILImage.DecompressionBombError) as error:
        raise _unreadable(error, str(path)) from None


def _check_size(image: PILImage.Image, where: str) -> None:
    if image.width * image.height > MAX_PIXELS:
        raise UserError(
            f"{image.width} x {image.height} pixels", where=where, remedy=f"at most {MAX_PIXELS:,} are accepted"
        )


def _unreadable(error: Exception, where: str) -> UserError:
    return UserError(f"not a readable image: {error}", where=where, remedy=f"give one of {', '.join(FORMATS)}")


class ImageFolder:
    """Images in a folder, one PNG per content hash. Written beside trajectories, so that a line stays a line."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._known: set[str] = set()

    def path(self, image_hash: str) -> Path:
        return self.root / f"{image_hash}.png"

    def add(self, image: Image) -> str:
        if image.hash not in self._known:
            path = self.path(image.hash)
            if not path.exists():
                self.root.mkdir(parents=True, exist_ok=True)
                temporary = path.with_suffix(f".{os.getpid()}.tmp")  # several ranks may write the same image
                temporary.write_bytes(image.png)
                temporary.replace(path)
            self._known.add(image.hash)
        return image.hash

    def get(self, image_hash: str) -> Image:
        return read(self.path(image_hash))

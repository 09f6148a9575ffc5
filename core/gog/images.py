"""Pictures by content.

A picture is named by the hash of its *pixels*, not of its file: the same crop encoded twice is one cache entry, one
vision encoding, one file on disk. Decoding is guarded (format allow-list, pixel cap) because pictures arrive from
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
from PIL import Image

from gog.errors import UserError

MAX_PIXELS = 40_000_000
"""A 10 kB PNG can hold 80 million pixels; beyond this a picture is refused before it is decoded."""
FORMATS = ("PNG", "JPEG", "WEBP")


@dataclass(frozen=True, eq=False)
class Picture:
    """An RGB picture: pixels [height, width, 3] uint8, its hash and, on demand, its PNG bytes."""

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
        Image.fromarray(self.pixels).save(stream, "PNG", compress_level=1)
        return stream.getvalue()

    @property
    def width(self) -> int:
        return int(self.pixels.shape[1])

    @property
    def height(self) -> int:
        return int(self.pixels.shape[0])


def decode(data: bytes, *, where: str = "picture") -> Picture:
    """Encoded bytes -> Picture. Raises UserError for anything that is not a PNG, JPEG or WEBP of bearable size."""
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
        _check_size(image, where)
        return Picture(np.asarray(image.convert("RGB")))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise _unreadable(error, where) from None


def read(path: Path) -> Picture:
    """A picture from a file; UserError names the file."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"cannot read picture: {error.strerror}", where=str(path)) from None
    return decode(data, where=str(path))


def verify(path: Path) -> None:
    """Looks whether a file is a picture that can be read, without unpacking its pixels. Raises UserError.

    A PNG's checksums are compared to its end; of the other formats only the head is read.
    """
    try:
        with Image.open(path, formats=FORMATS) as image:
            _check_size(image, str(path))
            image.verify()
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise _unreadable(error, str(path)) from None


def _check_size(image: Image.Image, where: str) -> None:
    if image.width * image.height > MAX_PIXELS:
        raise UserError(
            f"{image.width} x {image.height} pixels", where=where, remedy=f"at most {MAX_PIXELS:,} are accepted"
        )


def _unreadable(error: Exception, where: str) -> UserError:
    return UserError(f"not a readable picture: {error}", where=where, remedy=f"give one of {', '.join(FORMATS)}")


class PictureFolder:
    """Pictures in a folder, one PNG per content hash. Written beside trajectories, so that a line stays a line."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._known: set[str] = set()

    def path(self, picture_hash: str) -> Path:
        return self.root / f"{picture_hash}.png"

    def add(self, picture: Picture) -> str:
        if picture.hash not in self._known:
            path = self.path(picture.hash)
            if not path.exists():
                self.root.mkdir(parents=True, exist_ok=True)
                temporary = path.with_suffix(f".{os.getpid()}.tmp")  # several ranks may write the same picture
                temporary.write_bytes(picture.png)
                temporary.replace(path)
            self._known.add(picture.hash)
        return picture.hash

    def get(self, picture_hash: str) -> Picture:
        return read(self.path(picture_hash))

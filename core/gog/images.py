"""Images by content.

An image is named by the hash of its *pixels*, not of its file: the same crop encoded twice is one cache entry, one
vision encoding, one file on disk. Images arrive from datasets and from search results, so decoding is guarded (formats,
pixels, scans, truncation), and every refusal names the file.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
from PIL import Image as PILImage
from PIL import JpegImagePlugin, UnidentifiedImageError

from gog import pixels
from gog.errors import UserError

MAX_PIXELS = 40_000_000
"""A 10 kB PNG can hold 80 million pixels; a larger image is refused before it is decoded."""
MAX_SCANS = 100
"""Scans of a JPEG; encoders write about ten, and a scan of a few bytes costs as much time as the whole image."""
FORMATS = ("PNG", "JPEG", "WEBP")
"""Formats that are accepted."""
_PNG_END = b"IEND\xaeB`\x82"
_MARKER = re.compile(rb"\xff([^\x00\xd0-\xd7\xff])")
"""A marker of a JPEG, apart from those inside a scan."""
_BARE = (b"\x01", b"\xd8")
"""Markers that no length follows."""
_DAMAGE = (OSError, ValueError, SyntaxError, PILImage.DecompressionBombError)


@dataclass(frozen=True, eq=False)
class Image:
    """An RGB image, its hash and, on demand, its PNG bytes."""

    pixels: np.ndarray = field(repr=False)
    """[height, width, 3] uint8."""

    @cached_property
    def hash(self) -> str:
        """blake2b-128 over size and pixels, 32 hex digits."""
        digest = hashlib.blake2b(f"{self.width}x{self.height}:".encode(), digest_size=16)
        digest.update(np.ascontiguousarray(self.pixels).data)
        return digest.hexdigest()

    @cached_property
    def png(self) -> bytes:
        """The image as a PNG."""
        stream = io.BytesIO()
        PILImage.fromarray(self.pixels).save(stream, "PNG", compress_level=1)
        return stream.getvalue()

    @property
    def width(self) -> int:
        return int(self.pixels.shape[1])

    @property
    def height(self) -> int:
        return int(self.pixels.shape[0])


def decode(data: bytes, *, where: str = "image", max_pixels: int = MAX_PIXELS) -> Image:
    """The image that encoded bytes show; see `gog.pixels` for what that means.

    Args:
        data: a PNG, JPEG or WEBP.
        where: what to name in an error.
        max_pixels: an image of more is refused before it is decoded.

    Raises:
        UserError: not such a file, truncated, damaged, or too large.
    """
    try:
        with _open(data, where, max_pixels) as image:
            return Image(pixels.rgb(image))
    except _DAMAGE as error:
        raise _unreadable(error, where) from None


def size(data: bytes, *, where: str = "image", max_pixels: int = MAX_PIXELS) -> tuple[int, int]:
    """Width and height in pixels of an encoded image, by its header. Arguments and errors as of `decode`."""
    try:
        with _open(data, where, max_pixels) as image:
            return image.size
    except _DAMAGE as error:
        raise _unreadable(error, where) from None


def read(path: Path) -> Image:
    """The image in a file; see `decode`. Raises UserError with the path."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"cannot read image: {error.strerror}", where=str(path)) from None
    return decode(data, where=str(path))


def _open(data: bytes, where: str, max_pixels: int) -> PILImage.Image:
    """An image whose pixels are not decoded yet. Raises UserError if it would be too much work, else one of _DAMAGE."""
    image = PILImage.open(io.BytesIO(data), formats=FORMATS)
    if image.width * image.height > max_pixels:
        raise UserError(
            f"{image.width} x {image.height} pixels", where=where, remedy=f"at most {max_pixels:,} are accepted"
        )
    if isinstance(image, JpegImagePlugin.JpegImageFile) and _scans(data) > MAX_SCANS:
        raise UserError(f"{_scans(data)} scans", where=where, remedy=f"at most {MAX_SCANS} are accepted")
    if image.format == "PNG" and _PNG_END not in data:
        raise OSError("image file is truncated")
    return image


def _scans(data: bytes) -> int:
    """Scans of a JPEG up to its end; what follows the end (a second image, a film) does not count."""
    at, scans = 2, 0
    while (found := _MARKER.search(data, at)) and found[1] != b"\xd9":
        length = 0 if found[1] in _BARE else int.from_bytes(data[found.end() : found.end() + 2])
        at = found.end() + length
        scans += found[1] == b"\xda"
    return scans


def _unreadable(error: Exception, where: str) -> UserError:
    if isinstance(error, UnidentifiedImageError):  # its text is the address of our stream
        return UserError(
            "not a readable image: its format is not known", where=where, remedy=f"give one of {', '.join(FORMATS)}"
        )
    return UserError(f"not a readable image: {error}", where=where, remedy=f"give one of {', '.join(FORMATS)}")


class ImageFolder:
    """Images in a folder, one PNG per content hash, for records that refer to images by hash."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._known: set[str] = set()

    def path(self, image_hash: str) -> Path:
        """Where the image of this hash is, or would be."""
        return self.root / f"{image_hash}.png"

    def add(self, image: Image) -> str:
        """Stores an image unless it is there already; returns its hash."""
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
        """The image of this hash. Raises UserError if it is not there."""
        return read(self.path(image_hash))

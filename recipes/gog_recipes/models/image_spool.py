"""Resized images of a rollout, kept until they are trained on: in memory up to a bound, beyond it in files.

Features are dropped when they need too much memory and are made again from these pixels, which take a third to a tenth of
the features' bytes. Nothing here is kept for longer than the process.
"""

from __future__ import annotations

import tempfile
import zlib
from pathlib import Path

import numpy as np

from gog.errors import UnreadableImage

MAX_DISK_BYTES = 64 << 30
"""Bytes of files at most; the oldest are deleted beyond it. A step of GRPO needs a few gigabytes."""


class ImageSpool:
    """Images by content hash, the least recently added or read ones in files.

    Args:
        memory_bytes: kept in memory at most
        disk_bytes: kept in files at most
    """

    def __init__(self, memory_bytes: int, disk_bytes: int = MAX_DISK_BYTES) -> None:
        self._memory_bytes, self._disk_bytes = memory_bytes, disk_bytes
        self._memory: dict[str, np.ndarray] = {}
        self._files: dict[str, tuple[int, int]] = {}
        self._held, self._written = 0, 0
        self._folder: tempfile.TemporaryDirectory[str] | None = None

    def __contains__(self, image_hash: str) -> bool:
        return image_hash in self._memory or image_hash in self._files

    def put(self, image_hash: str, pixels: np.ndarray) -> None:
        """Keeps pixels [height, width, 3] uint8; without effect for an image that is kept."""
        if image_hash not in self:
            self._memory[image_hash] = pixels
            self._held += pixels.nbytes
            self._spill()

    def get(self, image_hash: str) -> np.ndarray:
        """The pixels of an image that was put.

        Raises:
            UnreadableImage: its file was deleted, by the bound or from outside, or is damaged.
        """
        if image_hash in self._memory:
            pixels = self._memory[image_hash] = self._memory.pop(image_hash)
            return pixels
        if image_hash not in self._files:
            raise UnreadableImage(image_hash, f"its file was deleted, because {self._disk_bytes:,} bytes were written")
        path = self._path(image_hash)
        try:
            return self._checked(np.asarray(np.load(path, allow_pickle=False)), image_hash)
        except (OSError, ValueError, EOFError) as error:
            raise UnreadableImage(image_hash, f"{path}: {error}") from error

    def _checked(self, pixels: np.ndarray, image_hash: str) -> np.ndarray:
        """The pixels, if they are those that were written. Raises ValueError."""
        size, checksum = self._files[image_hash]
        if pixels.nbytes != size or zlib.crc32(np.ascontiguousarray(pixels).data) != checksum:
            raise ValueError("its content has changed")
        return pixels

    def _spill(self) -> None:
        """Writes the oldest images into files until the others fit into memory, and deletes the oldest files."""
        while self._held > self._memory_bytes:
            image_hash = next(iter(self._memory))
            pixels = self._memory.pop(image_hash)
            np.save(self._path(image_hash), pixels, allow_pickle=False)
            self._files[image_hash] = (pixels.nbytes, zlib.crc32(np.ascontiguousarray(pixels).data))
            self._held, self._written = self._held - pixels.nbytes, self._written + pixels.nbytes
        while self._written > self._disk_bytes:
            image_hash = next(iter(self._files))
            self._path(image_hash).unlink(missing_ok=True)
            self._written -= self._files.pop(image_hash)[0]

    def _path(self, image_hash: str) -> Path:
        if self._folder is None:
            self._folder = tempfile.TemporaryDirectory(prefix="gog-images-")
        return Path(self._folder.name) / f"{image_hash}.npy"

"""Features of images by content: an image is encoded once, for rollouts and training alike.

That is exact because the vision tower is frozen. `add` resizes an image, which gives its size in tokens and may run in a
worker thread; the tower runs when features are needed, over the wanted images and others that wait, because one wide
pass costs far less than many narrow ones. A pass is bounded, because it must fit into memory and its caller waits for it.

Features are kept in CPU memory, up to a bound in bytes; the least recently used ones are dropped and encoded again when
they are needed, from resized pixels (`image_spool`) or by reading the image again (`expect`). Patches, which are eight
times as large as pixels, exist during a pass only.

Ranks that divide the tower's weights have different images, and so different numbers of passes. So the weights are
gathered for a phase, not for a pass: for a rollout (`gather`), in which each rank encodes whatever its episodes show, and
otherwise for the images of a batch (`features`), if any rank needs one encoded.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

import numpy as np
import torch

from gog.images import Image
from gog_recipes.models.family import Grid, Processor, Resized
from gog_recipes.models.image_spool import ImageSpool

MAX_PASS_IMAGES = 64
"""Images of one pass of the vision tower, at most."""
MAX_PASS_PATCHES = 16_384
"""Patches of one pass, at most, unless a single image has more."""
FEATURE_BYTES = 4 << 30
"""Bytes of features where no bound is given."""


class Shards(Protocol):
    """A vision tower whose weights are divided among ranks. Every method: all ranks at once."""

    def gather(self) -> None:
        """Makes the weights whole on every rank."""
        ...

    def release(self) -> None:
        """Divides them again."""
        ...

    def any(self, mine: bool) -> bool:
        """Whether something holds on any rank."""
        ...

    def agree(self, error: Exception | None) -> None:
        """Raises on every rank where one of them met an error; on that one the error itself."""
        ...


class Vision:
    """A cache of image features by content hash. `add` may be called from any thread, the rest from one.

    Args:
        encode: encode(rows [patches, values], grids [images, 3]) -> features [image tokens, …] of all images in order
        processor: resizes images and cuts them into patches
        feature_bytes: bytes of features kept at most; an eighth of it is kept of resized images besides
        shards: of the tower, where ranks divide its weights

    Attributes:
        alone: whether every image has a pass of its own, so that its features do not depend on the others by rounding
        encoded: images that went through the tower so far
        asked: images that were added so far, known ones included
        held_bytes: of features now
    """

    def __init__(
        self,
        encode: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
        processor: Processor,
        *,
        feature_bytes: int = FEATURE_BYTES,
        shards: Shards | None = None,
    ) -> None:
        self._tower, self._processor, self._feature_bytes = encode, processor, feature_bytes
        self._shards, self._whole = shards, shards is None
        self._grids: dict[str, Grid] = {}
        self._pixels = ImageSpool(feature_bytes // 8)
        self._sources: dict[str, Callable[[], Image]] = {}
        self._waiting: dict[str, None] = {}
        self._features: dict[str, torch.Tensor] = {}
        self.held_bytes = 0
        self._lock = threading.Lock()
        self.alone = False
        self.encoded = 0
        self.asked = 0

    def __contains__(self, image_hash: str) -> bool:
        return image_hash in self._features or image_hash in self._sources or image_hash in self._pixels

    def __len__(self) -> int:
        return len(self._grids)

    def grid(self, image_hash: str) -> Grid:
        """(1, rows, columns) in patches."""
        return self._grids[image_hash]

    def tokens(self, image_hash: str) -> int:
        """Image tokens of an image that was added."""
        return self._processor.image_tokens(self._grids[image_hash])

    def add(self, images: Sequence[Image]) -> None:
        """Resizes images; new ones wait to be encoded. Raises UserError for one that the model cannot take."""
        self.asked += len(images)
        for image in images:
            if image.hash in self._sources or image.hash in self._pixels:
                continue
            resized = self._processor.resize(image)
            with self._lock:
                self._grids[image.hash] = resized.grid
                self._pixels.put(image.hash, resized.pixels)
                if image.hash not in self._features:
                    self._waiting[image.hash] = None

    def expect(self, image: Image, read: Callable[[], Image]) -> None:
        """Notes an image that is encoded when it is needed, and whose pixels are read again then.

        Args:
            image: gives size and hash; it is not kept
            read: reads it again

        Raises:
            UserError: the model cannot take it.
        """
        self._grids[image.hash] = self._processor.grid(image.width, image.height)
        self._sources[image.hash] = read

    def __getitem__(self, image_hash: str) -> torch.Tensor:
        """Features [image tokens, …] of an image that was added, in CPU memory."""
        return self._all([image_hash])[0]

    def gather(self) -> None:
        """Makes the tower whole until `release`, so that ranks may encode at any time. All ranks at once."""
        if self._shards is not None and not self._whole:
            self._shards.gather()
            self._whole = True

    def release(self) -> None:
        """Divides the tower among the ranks again. All ranks at once."""
        if self._shards is not None and self._whole:
            self._shards.release()
            self._whole = False

    def features(self, image_hashes: Sequence[str]) -> torch.Tensor | None:
        """Features [image tokens, …] of images that were added, in order, in CPU memory; None for no images.

        All ranks at once where they divide the tower; each names its own images, or none.

        Raises:
            UserError: an image cannot be read again; so does every rank if that happened on one of them.
            UnreadableImage: likewise; the other ranks raise a RuntimeError.
        """
        if self._whole or self._shards is None:
            return self._joined(image_hashes)
        if not self._shards.any(any(each not in self._features for each in image_hashes)):
            return self._joined(image_hashes)
        found, met = None, None
        self.gather()
        try:
            found = self._joined(image_hashes)
        except Exception as error:  # noqa: BLE001 (raised again below, once the other ranks know)
            met = error
        self.release()
        self._shards.agree(met)
        return found

    def _joined(self, image_hashes: Sequence[str]) -> torch.Tensor | None:
        return torch.cat(self._all(image_hashes)) if image_hashes else None

    def _all(self, image_hashes: Sequence[str]) -> list[torch.Tensor]:
        """Features of each image. They are held here until all are found, because the bound may be too small for all."""
        found: dict[str, torch.Tensor] = {}
        for image_hash in image_hashes:
            if image_hash in self._features:
                self._features[image_hash] = self._features.pop(image_hash)  # to the young end
                found[image_hash] = self._features[image_hash]
        missing = list(dict.fromkeys(each for each in image_hashes if each not in found))
        while missing:
            made = self._encode(self._next_pass(missing))
            found |= made
            missing = [each for each in missing if each not in made]
        return [found[each] for each in image_hashes]

    def _next_pass(self, wanted: list[str]) -> list[str]:
        """The first of the wanted images, and more of them and of those that wait, for as long as the bounds allow."""
        with self._lock:
            limit = 1 if self.alone else MAX_PASS_IMAGES
            chosen: list[str] = []
            patches = 0
            waiting = [each for each in self._waiting if each in self._pixels]  # the spool may have deleted some
            for image_hash in dict.fromkeys([*wanted, *waiting]):
                patches += self._grids[image_hash][1] * self._grids[image_hash][2]
                if chosen and (len(chosen) >= limit or patches > MAX_PASS_PATCHES):
                    break
                chosen.append(image_hash)
            for image_hash in chosen:
                self._waiting.pop(image_hash, None)
            return chosen

    @torch.no_grad()
    def _encode(self, image_hashes: list[str]) -> dict[str, torch.Tensor]:
        assert self._whole, "an image was to be encoded while the vision tower was divided among the ranks"
        rows = np.concatenate([self._processor.rows(self._resized(each)) for each in image_hashes])
        grids = torch.tensor([self._grids[each] for each in image_hashes])
        features = self._tower(torch.from_numpy(rows), grids).cpu()
        split = features.split([self.tokens(each) for each in image_hashes])
        made = {each: own.clone() for each, own in zip(image_hashes, split, strict=True)}
        self.encoded += len(made)
        self._features |= made
        self.held_bytes += _bytes(made.values())
        while self.held_bytes > self._feature_bytes:
            self.held_bytes -= _bytes([self._features.pop(next(iter(self._features)))])
        return made

    def _resized(self, image_hash: str) -> Resized:
        read = self._sources.get(image_hash)
        if read is not None:
            return self._processor.resize(read())
        with self._lock:
            return Resized(self._pixels.get(image_hash), self._grids[image_hash])


def _bytes(tensors: Iterable[torch.Tensor]) -> int:
    return sum(tensor.nbytes for tensor in tensors)

"""Features of images by content: each image is encoded once, for rollouts and training alike.

That is exact because the vision tower is frozen. `add` prepares an image, which gives its size in tokens; the tower runs
when features are needed, over the wanted image and others that wait, because one wide pass costs far less than many
narrow ones. A pass is bounded, because it must fit into memory and its caller waits for it.
The least recently used features are dropped first.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch

from gog.images import Image
from gog_recipes.models.family import Grid, Patches, Processor

MAX_PASS_IMAGES = 64
"""Images of one pass of the vision tower, at most."""
MAX_PASS_PATCHES = 16_384
"""Patches of one pass, at most, unless a single image has more."""


class Vision:
    """A cache of image features by content hash.

    Args:
        encode: encode(rows [patches, values], grids [images, 3]) -> features [image tokens, …] of all images in order
        processor: cuts images into patches
        limit: features kept at most, in images
    """

    def __init__(
        self,
        encode: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
        processor: Processor,
        *,
        limit: int = 20_000,
    ) -> None:
        self._tower, self._processor, self.limit = encode, processor, limit
        self._grids: dict[str, Grid] = {}
        self._waiting: dict[str, Patches] = {}
        self._features: dict[str, torch.Tensor] = {}
        self.encoded = 0
        self.asked = 0

    def __contains__(self, image_hash: str) -> bool:
        return image_hash in self._features or image_hash in self._waiting

    def __len__(self) -> int:
        return len(self._features) + len(self._waiting)

    def grid(self, image_hash: str) -> Grid:
        """(1, rows, columns) in patches."""
        return self._grids[image_hash]

    def tokens(self, image_hash: str) -> int:
        """Image tokens of an image that was added."""
        return self._processor.image_tokens(self._grids[image_hash])

    def add(self, images: Sequence[Image]) -> None:
        """Prepares images; new ones wait to be encoded. Raises UserError for one that the model cannot take."""
        self.asked += len(images)
        for image in images:
            if image.hash in self._features:  # move to the young end
                self._features[image.hash] = self._features.pop(image.hash)
            elif image.hash not in self._waiting:
                patches = self._processor.patches(image)
                self._waiting[image.hash], self._grids[image.hash] = patches, patches.grid

    def __getitem__(self, image_hash: str) -> torch.Tensor:
        """Features [image tokens, …] of an image that was added."""
        if image_hash in self._waiting:
            self._encode(self._next_pass(image_hash))
        return self._features[image_hash]

    def _next_pass(self, wanted: str) -> dict[str, Patches]:
        """Takes an image and others that wait, in their order, for as long as the bounds of a pass allow."""
        chosen = {wanted: self._waiting.pop(wanted)}
        patches = len(chosen[wanted].rows)
        for image_hash, waiting in list(self._waiting.items()):
            patches += len(waiting.rows)
            if len(chosen) >= MAX_PASS_IMAGES or patches > MAX_PASS_PATCHES:
                break
            chosen[image_hash] = self._waiting.pop(image_hash)
        return chosen

    @torch.no_grad()
    def _encode(self, waiting: dict[str, Patches]) -> None:
        rows = torch.from_numpy(np.concatenate([item.rows for item in waiting.values()]))
        features = self._tower(rows, torch.tensor([item.grid for item in waiting.values()]))
        split = features.split([self.tokens(image_hash) for image_hash in waiting])
        self._features.update((image_hash, own.clone()) for image_hash, own in zip(waiting, split, strict=True))
        self.encoded += len(waiting)
        while len(self._features) > self.limit:
            oldest = next(iter(self._features))
            del self._features[oldest], self._grids[oldest]

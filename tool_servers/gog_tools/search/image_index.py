"""Exact nearest neighbours over the looks of a folder of images: what a web image search is to the embedded world.

A query shows one thing or many; as web image search does, the most salient one is looked up. A crop may also be cut so
tightly that no background is left: then the image itself is the thing. Which of the two it is nobody says, so both
readings are looked up and the nearer one counts. Index and query go through the same functions, so a crop, a scene and
a reference image of the same thing come out alike. Exact search in numpy is right up to some 100,000 images;
beyond, an approximate index would take this one's place.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from gog import dataset, images, tool_api
from gog.errors import UserError
from gog_tools.search import segmentation

INDEX = "index/images.jsonl"
Looks = list[np.ndarray]
"""Readings of an image, the likeliest first, each [d] float32; none for an image that shows nothing."""


def looks(image: images.Image) -> Looks:
    view = segmentation.look(image.pixels)
    box = view.most_salient()
    if box is None:
        return []
    return [segmentation.thumbnail(view, box), segmentation.thumbnail_of_all(image.pixels)]


class ImageIndex:
    """entries: titles and addresses; rows [n, d] float32: their looks."""

    def __init__(self, entries: Sequence[dataset.IndexedImage], rows: np.ndarray) -> None:
        self.entries, self.rows = entries, rows
        self.squares = (rows**2).sum(1)

    @classmethod
    def read(cls, folder: Path) -> ImageIndex:
        """The index of a dataset folder. Raises UserError for a missing, empty or broken one."""
        path = folder / INDEX
        entries = list(dataset.read_lines(path, dataset.IndexedImage))
        if not entries:
            raise UserError("no images", where=str(path), remedy="give at least one line")
        rows = []
        for number, entry in enumerate(entries, 1):
            readings = looks(images.read(folder / entry.image))
            if not readings:
                raise UserError(f"image {entry.image!r} shows nothing but background", where=f"{path}:{number}")
            rows.append(readings[0])
        return cls(entries, np.stack(rows))

    def search(self, queries: Sequence[Looks], tops: Sequence[int]) -> list[list[tool_api.SearchHit]]:
        """The nearest entries of each query, best first; score: 1 is equal, 0 as unlike as can be."""
        readings = [reading for query in queries for reading in query]
        if not readings:
            return [[] for _ in queries]
        asked = np.stack(readings)
        distances = (asked**2).sum(1)[:, None] + self.squares - 2 * asked @ self.rows.T
        ends = np.cumsum([len(query) for query in queries])
        return [
            self._nearest(distances[end - len(query) : end].min(0), top) if query else []
            for query, end, top in zip(queries, ends, tops, strict=True)
        ]

    def _nearest(self, distances: np.ndarray, top: int) -> list[tool_api.SearchHit]:
        top = min(top, len(distances))
        nearest = np.argpartition(distances, top - 1)[:top]
        nearest = nearest[np.argsort(distances[nearest], kind="stable")]
        scores = 1 - np.sqrt(np.maximum(distances[nearest], 0) / self.rows.shape[1]) / 255
        return [
            tool_api.SearchHit(
                title=self.entries[index].title, url=self.entries[index].url, score=round(float(score), 6)
            )
            for index, score in zip(nearest.tolist(), scores.tolist(), strict=True)
        ]

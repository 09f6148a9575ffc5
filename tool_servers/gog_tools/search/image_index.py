"""The back end `world` of image search: exact nearest neighbours over the features of a dataset's indexed images.

The nearer of a query's readings counts (features.readings). Exact search in numpy serves up to some 100,000 images; a
larger index needs an approximate one, as a back end of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import Field

from gog import dataset, images, tool_api
from gog.errors import UserError
from gog_tools.search import features
from gog_tools.search.backend import Found


class ImageIndex:
    """An ImageSearch over images in memory."""

    def __init__(
        self, entries: Sequence[dataset.IndexedImage], rows: np.ndarray, data: Path | None = None, thumbnails: int = 0
    ) -> None:
        """Creates an index.

        Args:
            entries: titles and addresses.
            rows: their features [n, d] float32.
            data: folder of their images; needed for thumbnails.
            thumbnails: results of a search that come with their image.
        """
        self.entries, self.rows = entries, rows
        self._data, self._thumbnails = data, thumbnails
        self.squares = (rows**2).sum(1)

    @classmethod
    def read(cls, data: Path, *, thumbnails: Annotated[int, Field(ge=0, le=50)] = 0) -> ImageIndex:
        """The index of a dataset folder.

        Args:
            data: the folder.
            thumbnails: results of a search that come with their image.

        Raises:
            UserError: the index is missing, empty or broken.
        """
        path = data / dataset.INDEX
        entries = list(dataset.read_lines(path, dataset.IndexedImage))
        if not entries:
            raise UserError("no images", where=str(path), remedy="give at least one line")
        rows = []
        for number, entry in enumerate(entries, 1):
            readings = features.readings(images.read(data / entry.image))
            if not readings:
                raise UserError(f"image {entry.image!r} shows nothing but background", where=f"{path}:{number}")
            rows.append(readings[0])
        return cls(entries, np.stack(rows), data, thumbnails)

    def search(self, images: Sequence[images.Image], tops: Sequence[int]) -> list[Found]:
        """The nearest entries of each image, best first; a score of 1 is equal, of 0 as unlike as possible."""
        queries = [features.readings(image) for image in images]
        readings = [reading for query in queries for reading in query]
        if not readings:
            return [Found([]) for _ in queries]
        rows = np.stack(readings)
        distances = (rows**2).sum(1)[:, None] + self.squares - 2 * rows @ self.rows.T
        ends = np.cumsum([len(query) for query in queries])
        return [
            Found(self._nearest(distances[end - len(query) : end].min(0), top) if query else [])
            for query, end, top in zip(queries, ends, tops, strict=True)
        ]

    def _nearest(self, distances: np.ndarray, top: int) -> list[tool_api.SearchHit]:
        """distances [n]: squared distance of each entry."""
        top = min(top, len(distances))
        nearest = np.argpartition(distances, top - 1)[:top]
        nearest = nearest[np.argsort(distances[nearest], kind="stable")]
        scores = 1 - np.sqrt(np.maximum(distances[nearest], 0) / self.rows.shape[1]) / 255
        return [
            tool_api.SearchHit(
                title=self.entries[index].title,
                url=self.entries[index].url,
                thumbnail=self._thumbnail(index) if rank < self._thumbnails else "",
                score=round(float(score), 6),
            )
            for rank, (index, score) in enumerate(zip(nearest.tolist(), scores.tolist(), strict=True))
        ]

    def _thumbnail(self, index: int) -> str:
        assert self._data is not None
        return tool_api.encode_image(images.read(self._data / self.entries[index].image))

"""The back end `embeddings` of image search: images of your own, found by the vectors of a vision encoder, offline.

The index is made by `gog index build`; the encoder is the one that it was made with, and any other is refused. Up to some
100,000 images are compared one by one; larger indexes hold an approximate graph, whose candidates are ranked exactly. A
score is the cosine of two images, from -1 to 1.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from PIL import Image as PILImage
from pydantic import Field

from gog import images as gog_images
from gog import tool_api
from gog.errors import UserError
from gog.images import Image
from gog_tools.search import encoder as encoders
from gog_tools.search import index_file, nearest
from gog_tools.search.backend import Found

THUMBNAIL_SIDE = 256
"""Longest side of a thumbnail, in pixels."""
Address = Annotated[str, Field(min_length=1, max_length=1_024)]


class Embeddings:
    """An ImageSearch over an index in a folder."""

    max_batch = 32

    def __init__(
        self,
        folder: Path,
        encoder: encoders.Encoder,
        *,
        min_score: float = -1.0,
        images: Path | None = None,
        thumbnails: int = 0,
    ) -> None:
        """Opens an index.

        Args:
            folder: as `gog index build` wrote it.
            encoder: that it was built with.
            min_score: results below it are left out.
            images: the folder that was indexed; needed for thumbnails.
            thumbnails: results of a search that come with a small image.

        Raises:
            UserError: the index is missing or damaged, or was built with another encoder.
        """
        if thumbnails and (images is None or not images.is_dir()):
            raise UserError("no such folder", where=f"--options images: {images}", remedy="name the indexed folder")
        self._images, self._thumbnails = images, thumbnails
        manifest = index_file.read_manifest(folder)
        built = manifest.encoder
        if (built.fingerprint, built.dimensions) != (encoder.fingerprint, encoder.dimensions):
            raise UserError(
                f"built with the encoder {built.name} (fingerprint {built.fingerprint}), not with {encoder.name} "
                f"({encoder.fingerprint})",
                where=f"--options index: {folder}",
                remedy="name the encoder that it was built with, or build it again",
            )
        index_file.verify(folder, manifest)
        self._encoder, self._min_score = encoder, min_score
        self._entries = index_file.Entries(manifest.path(folder, "entries"))
        vectors = index_file.vectors(folder, manifest)
        approximate = "graph" in manifest.files
        self.nearest: nearest.Nearest = (
            nearest.Graph(manifest.path(folder, "graph"), vectors) if approximate else nearest.Exact(vectors)
        )

    @classmethod
    def open(
        cls,
        fetch_model: Callable[[str], Path],
        index: Address,
        *,
        encoder: Address | None = None,
        device: Address = "cpu",
        dtype: Literal["float32", "bfloat16"] = "float32",
        min_score: Annotated[float, Field(ge=-1, le=1)] = -1.0,
        images: Address | None = None,
        thumbnails: Annotated[int, Field(ge=0, le=50)] = 0,
    ) -> Embeddings:
        """The index of a folder.

        Args:
            fetch_model: the folder of a model by its address.
            index: folder of the index.
            encoder: folder, `s3://` or `hf://` address of the encoder; None: as the index names it.
            device: torch device of the encoder.
            dtype: type of the encoder's weights.
            min_score: results below it are left out.
            images: the folder that was indexed; needed for thumbnails.
            thumbnails: results of a search that come with a small image.

        Raises:
            UserError: the index or the encoder is missing or damaged, or they do not fit.
            ServiceDown, store.Unavailable: the encoder cannot be fetched now.
        """
        folder = Path(index)
        name = encoder or index_file.read_manifest(folder).encoder.name
        loaded = encoders.Encoder(fetch_model(name), name, device=device, dtype=dtype)
        shown = Path(images) if images is not None else None
        return cls(folder, loaded, min_score=min_score, images=shown, thumbnails=thumbnails)

    def search(self, images: Sequence[Image], tops: Sequence[int]) -> list[Found]:
        """The nearest entries of each image, best first."""
        queries = self._encoder.encode([self._encoder.prepare(image) for image in images])
        rows, scores = self.nearest.search(queries, min(max(tops), len(self._entries)))
        return [Found(self._hits(*each)) for each in zip(rows, scores, tops, strict=True)]

    def _hits(self, rows: np.ndarray, scores: np.ndarray, top: int) -> list[tool_api.SearchHit]:
        found = [(row, score) for row, score in zip(rows.tolist(), scores.tolist()) if score >= self._min_score]
        return [self._hit(self._entries[row], score, rank) for rank, (row, score) in enumerate(found[:top])]

    def _hit(self, entry: index_file.Entry, score: float, rank: int) -> tool_api.SearchHit:
        text = " ".join(filter(None, (entry.caption, f"(licence: {entry.license})" if entry.license else "")))
        thumbnail = self._thumbnail(entry.file) if rank < self._thumbnails else ""
        return tool_api.SearchHit(
            title=entry.title, url=entry.url, text=text, thumbnail=thumbnail, score=round(score, 6)
        )

    def _thumbnail(self, name: str) -> str:
        """A small image of a file below the indexed folder; empty where it cannot be read any more."""
        assert self._images is not None
        path = self._images / name
        try:
            if not path.resolve().is_relative_to(self._images.resolve()):  # an index may come from others
                return ""
            small = PILImage.fromarray(gog_images.read(path).pixels)
        except UserError:
            return ""
        small.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE))
        return tool_api.encode_image(Image(np.asarray(small)))

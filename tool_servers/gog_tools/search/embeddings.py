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

from gog import base_source, tool_api
from gog import images as gog_images
from gog.errors import UserError
from gog.images import Image
from gog.spec import StoreSpec
from gog_tools.search import encoder as encoders
from gog_tools.search import index_file, index_metadata, index_store, nearest
from gog_tools.search.backend import Found
from gog_tools.serving import backends

THUMBNAIL_SIDE = 256
"""Longest side of a thumbnail, in pixels."""


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
        _check_thumbnails(images, thumbnails)
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
        if len(self._entries) != manifest.images:
            raise UserError(f"{len(self._entries):,} entries, not {manifest.images:,}", where=str(folder))
        vectors = index_file.vectors(folder, manifest)
        nearest.check_vectors(vectors, where=str(manifest.path(folder, "vectors")))
        approximate = "graph" in manifest.files
        self.nearest: nearest.Nearest = (
            nearest.Graph(manifest.path(folder, "graph"), vectors) if approximate else nearest.Exact(vectors)
        )

    @classmethod
    def open(
        cls,
        fetch_model: Callable[[str], Path],
        index: backends.LocalPath,
        *,
        encoder: backends.LocalPath | None = None,
        device: Annotated[str, Field(min_length=1, max_length=100)] = "cpu",
        dtype: Literal["float32", "bfloat16"] = "float32",
        min_score: Annotated[float, Field(ge=-1, le=1)] = -1.0,
        images: backends.LocalPath | None = None,
        thumbnails: Annotated[int, Field(ge=0, le=50)] = 0,
        store_options: StoreSpec | None = None,
        scratch: Path | None = None,
    ) -> Embeddings:
        """The index of a folder or a store.

        Args:
            fetch_model: the folder of a model by its address.
            index: folder of the index, or `s3://` or `file://` of a store that holds one.
            encoder: folder, `s3://` or `hf://` address of the encoder; None: as the index names it.
            device: torch device of the encoder; auto: cuda if there is one, else cpu.
            dtype: type of the encoder's weights.
            min_score: results below it are left out.
            images: the folder that was indexed; needed for thumbnails.
            thumbnails: results of a search that come with a small image.
            store_options: how `s3://` is read; None: as the environment says.
            scratch: where a fetched index lies if the user's cache folder cannot be written.

        Raises:
            UserError: the index or the encoder is missing or damaged, or they do not fit.
            ServiceDown, store.Unavailable: the index or the encoder cannot be fetched now.
        """
        shown = Path(images) if images is not None else None
        _check_thumbnails(shown, thumbnails)
        is_remote = index_store.is_address(index)
        folder = index_store.fetch(index, store_options, scratch) if is_remote else Path(index)
        name = encoder or _recorded(folder)
        loaded = encoders.Encoder(fetch_model(name), name, device=device, dtype=dtype)
        return cls(folder, loaded, min_score=min_score, images=shown, thumbnails=thumbnails)

    def search(self, images: Sequence[Image], tops: Sequence[int]) -> list[Found]:
        """The nearest entries of each image, best first.

        Searches for different numbers of results are made apart, because that number decides how much of a graph is
        visited, and an answer must not depend on its batch.
        """
        queries = self._encoder.encode([self._encoder.prepare(image) for image in images])
        found: dict[int, Found] = {}
        for top in set(tops):
            own = [number for number, each in enumerate(tops) if each == top]
            rows, scores = self.nearest.search(queries[own], min(top, len(self._entries)))
            found.update((number, Found(self._hits(*each))) for number, *each in zip(own, rows, scores, strict=True))
        return [found[number] for number in range(len(tops))]

    def _hits(self, rows: np.ndarray, scores: np.ndarray) -> list[tool_api.SearchHit]:
        found = [(row, score) for row, score in zip(rows.tolist(), scores.tolist()) if score >= self._min_score]
        return [self._hit(self._entries[row], score, rank) for rank, (row, score) in enumerate(found)]

    def _hit(self, entry: index_file.Entry, score: float, rank: int) -> tool_api.SearchHit:
        shown = index_metadata.cleaned(entry)  # an index may come from others
        text = " ".join(filter(None, (shown.caption, f"(licence: {shown.license})" if shown.license else "")))
        thumbnail = self._thumbnail(entry.file) if rank < self._thumbnails else ""
        return tool_api.SearchHit(
            title=shown.title, url=shown.url, text=text, thumbnail=thumbnail, score=round(score, 6)
        )

    def _thumbnail(self, name: str) -> str:
        """A small image of a file below the indexed folder; empty where it cannot be read any more."""
        assert self._images is not None
        path = self._images / name
        try:
            if not path.resolve().is_relative_to(self._images.resolve()):  # an index may come from others
                return ""
            small = PILImage.fromarray(gog_images.read(path).pixels)
        except (
            UserError,
            OSError,
            ValueError,
            RuntimeError,
        ):  # NUL in a name, a loop of links, a name that is too long
            return ""
        small.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE))
        return tool_api.encode_image(Image(np.asarray(small)))


def _check_thumbnails(images: Path | None, thumbnails: int) -> None:
    """Raises UserError if thumbnails are wanted and the images are not there to be read."""
    if not thumbnails:
        return
    remedy = "name the indexed folder"
    if images is None:
        raise UserError("thumbnails needs images", where="--options thumbnails", remedy=f"{remedy} in images")
    if not images.is_dir():
        raise UserError("no such folder", where=f"--options images: {images}", remedy=remedy)


def _recorded(folder: Path) -> str:
    """The encoder that an index names. Raises UserError where it is a folder that is not on this machine."""
    name = index_file.read_manifest(folder).encoder.name
    local = base_source.local(name)
    if local is not None and not local.is_dir():
        raise UserError(
            f"the index was built with the encoder {name}, which is not here",
            where="--options encoder",
            remedy="give the option encoder: the same model as a folder, s3:// or hf://org/name",
        )
    return name

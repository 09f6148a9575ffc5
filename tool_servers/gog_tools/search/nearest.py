"""The nearest of many vectors: exact in numpy, or an approximate graph of usearch whose candidates are ranked exactly.

Exact search reads every vector: some 25 queries a second over 100,000 of 768 dimensions on one core, more in batches. The
graph answers a thousand, of any number, and misses less than one neighbour in a hundred.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from gog.errors import UserError

EXACT_LIMIT = 100_000
"""Images up to which the search is exact unless it is set otherwise."""
BLOCK = 8_192
"""Vectors that are compared at once: 25 MB of 768 dimensions."""
OVERSAMPLE = 4
"""Candidates of the graph for each result; the exact ranking picks from them."""
SETTINGS: Mapping[str, Any] = {"metric": "cos", "dtype": "f16", "connectivity": 16, "expansion_add": 128}
"""Of the graph; the defaults of usearch, so that another version builds the same."""
TOLERANCE = 0.01
"""By which the length of a vector may differ from 1."""
MIN_EXPANSION = 128
"""Nodes that a search of the graph visits at least."""


class Nearest(Protocol):
    """Searches vectors of length 1."""

    def search(self, queries: np.ndarray, top: int) -> tuple[np.ndarray, np.ndarray]:
        """The best rows for each query.

        Args:
            queries: [q, d] float32.
            top: rows wanted for each, at most as many as there are.

        Returns:
            Row numbers [q, top] and their dot products [q, top], best first; -inf where fewer were found.
        """
        ...


class Exact:
    """Compares every vector, block by block."""

    def __init__(self, vectors: np.ndarray) -> None:
        """vectors: [n, d] float32; may be mapped from a file."""
        self._vectors = vectors

    def search(self, queries: np.ndarray, top: int) -> tuple[np.ndarray, np.ndarray]:
        rows = np.empty((len(queries), 0), np.int64)
        scores = np.empty((len(queries), 0), np.float32)
        for start in range(0, len(self._vectors), BLOCK):
            block = queries @ self._vectors[start : start + BLOCK].T
            numbers = np.broadcast_to(np.arange(start, start + block.shape[1]), block.shape)
            rows, scores = _best(np.hstack([rows, numbers]), np.hstack([scores, block]), top)
        return rows, scores


class Graph:
    """An HNSW graph of usearch, mapped from its file."""

    def __init__(self, path: Path, vectors: np.ndarray) -> None:
        """path: as `build_graph` wrote it; vectors: [n, d] float32. Raises UserError without usearch, or for a wrong file."""
        self._vectors = vectors
        self._index = _usearch(f"an index of {len(vectors):,} images").Index(ndim=vectors.shape[1], **SETTINGS)
        try:
            self._index.view(str(path))
        except (RuntimeError, ValueError) as error:
            raise UserError(
                f"not a graph of usearch: {error}", where=str(path), remedy="build the index again"
            ) from None
        if (self._index.ndim, len(self._index)) != (vectors.shape[1], len(vectors)):
            raise UserError("a graph of other vectors", where=str(path), remedy="build the index again")

    def search(self, queries: np.ndarray, top: int) -> tuple[np.ndarray, np.ndarray]:
        wanted = min(top * OVERSAMPLE, len(self._vectors))
        self._index.expansion_search = max(MIN_EXPANSION, 2 * wanted)
        rows = np.zeros((len(queries), wanted), np.int64)
        scores = np.full((len(queries), wanted), -np.inf, np.float32)
        for line, query in enumerate(queries):
            keys = np.asarray(self._index.search(query, wanted).keys, np.int64)  # may reach fewer nodes than wanted
            keys = keys[keys < len(self._vectors)]  # a graph from others may hold any
            rows[line, : len(keys)] = keys
            scores[line, : len(keys)] = self._vectors[keys] @ query
        return _best(rows, scores, top)


def check_vectors(vectors: np.ndarray, *, where: str) -> None:
    """Raises UserError unless all vectors [n, d] are finite and of length 1. where: for the message."""
    for start in range(0, len(vectors), BLOCK):
        with np.errstate(over="ignore", invalid="ignore"):
            lengths = np.linalg.norm(vectors[start : start + BLOCK], axis=1)
        wrong = np.flatnonzero(~(np.abs(lengths - 1) < TOLERANCE))
        if len(wrong):
            raise UserError(
                f"vector {start + int(wrong[0])} has the length {lengths[wrong[0]]:g}, not 1",
                where=where,
                remedy="build the index again",
            )


def build_graph(vectors: np.ndarray, path: Path) -> None:
    """Writes the graph of vectors [n, d] float32. Raises UserError without usearch."""
    index = _usearch(f"an index of {len(vectors):,} images").Index(ndim=vectors.shape[1], **SETTINGS)
    for start in range(0, len(vectors), BLOCK):
        block = vectors[start : start + BLOCK]
        # One thread: nodes that several add at once lose links to each other, and 1 in 600 near-duplicates was missed.
        index.add(np.arange(start, start + len(block)), block, threads=1)
    index.save(str(path))


def check_graphs(limit: int) -> None:
    """Raises UserError where usearch is not installed. limit: images up to which search is exact, for the message."""
    _usearch(f"more than {limit:,} images", "raise --exact-limit: search is then exact and slower")


def _best(rows: np.ndarray, scores: np.ndarray, top: int) -> tuple[np.ndarray, np.ndarray]:
    """The best `top` of each line, in order; equal scores in the order of their rows."""
    top = min(top, scores.shape[1])
    kept = np.argpartition(-scores, top - 1, axis=1)[:, :top] if top < scores.shape[1] else np.arange(top)[None]
    rows, scores = np.take_along_axis(rows, kept, 1), np.take_along_axis(scores, kept, 1)
    order = np.lexsort((rows, -scores), axis=1)
    return np.take_along_axis(rows, order, 1), np.take_along_axis(scores, order, 1)


def _usearch(what: str, instead: str = "build it with a higher --exact-limit: search is then exact and slower") -> Any:
    """The module usearch.index. what: needs it; instead: what else can be done. Raises UserError where it is missing."""
    try:
        import usearch.index
    except ImportError:
        raise UserError(
            f"usearch is not installed, which {what} needs", remedy=f"pip install usearch, or {instead}"
        ) from None
    return usearch.index

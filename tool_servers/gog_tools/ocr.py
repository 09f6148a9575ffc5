"""The OCR server: the lines of text in an image, in reading order. Its back end is RapidOCR (PP-OCR through onnxruntime).

The weights lie in RapidOCR's package, so nothing is fetched; they read Chinese, English and other Latin scripts. It runs
on CPUs. Images are decoded and read in a thread, one after the other.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Sequence
from typing import Annotated, Any, Protocol, runtime_checkable

import numpy as np
from fastapi import Request, Response
from pydantic import Field

from gog import tool_api
from gog.errors import UserError
from gog.images import Image
from gog_tools.serving import backend_calls, backends, http_json, inputs, process
from gog_tools.serving.failures import App

NAME = "ocr"
MAX_LINES, MAX_TEXT = 500, 1_000
"""Lines of an image and characters of a line that are returned."""
GRID = 32
"""Pixels; RapidOCR makes the sides of an image multiples of it."""
MIN_SIDE = 8
"""Pixels; an image with a shorter side holds no text that could be read."""


@runtime_checkable
class Ocr(Protocol):
    """What a back end of the OCR server must do."""

    def read(self, images: Sequence[Image]) -> Sequence[Sequence[tool_api.TextLine]]:
        """Reads the text in each image.

        Args:
            images: 1 to `max_batch` images, RGB, of any size that decodes

        Returns:
            For each image its lines in reading order, boxes in pixels of that image; no text is no line, not an error.

        Raises:
            UserError: for an image that cannot be used.
            Unavailable: when a retry may succeed.
        """
        ...


class RapidOcr:
    """RapidOCR with the weights of its package."""

    max_batch = 4

    def __init__(
        self,
        *,
        min_score: Annotated[float, Field(ge=0, le=1)] = 0.5,
        max_side: Annotated[int, Field(ge=32, le=10_000)] = 2_000,
        threads_per_image: Annotated[int, Field(ge=1, le=64)] | None = None,
    ) -> None:
        """Loads the networks.

        Args:
            min_score: confidence below which a line is left out.
            max_side: longest side in pixels; a larger image is made smaller before it is read.
            threads_per_image: threads of a reading; None: as many as this process has CPUs.

        Raises:
            UserError: RapidOCR or onnxruntime is not installed.
        """
        try:
            import onnxruntime  # noqa: F401  rapidocr reports its absence at the first image only
            import rapidocr
        except ImportError as error:
            raise UserError(
                f"needs rapidocr and onnxruntime: {error}", where="--backend rapidocr", remedy="pip install 'gog[ocr]'"
            ) from None
        logging.getLogger("RapidOCR").setLevel(logging.WARNING)
        self._max_side = max_side
        cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        self._engine = rapidocr.RapidOCR(
            params={
                "Global.log_level": "warning",
                "Global.text_score": min_score,
                "Global.max_side_len": max_side,
                "EngineConfig.onnxruntime.intra_op_num_threads": threads_per_image or cpus,
            }
        )

    def read(self, images: Sequence[Image]) -> list[list[tool_api.TextLine]]:
        """The lines of each image."""
        return [self._lines(image) for image in images]

    def _lines(self, image: Image) -> list[tool_api.TextLine]:
        if min(image.width, image.height) < MIN_SIDE:
            return []
        found: Any = self._engine(np.ascontiguousarray(self._padded(image.pixels)[:, :, ::-1]))  # it takes BGR
        if found.boxes is None:
            return []
        lines = zip(found.boxes, found.txts, found.scores, strict=True)
        return [_line(box, text, score) for box, text, score in lines if text.strip()][:MAX_LINES]

    def _padded(self, pixels: np.ndarray) -> np.ndarray:
        """[h, w, 3], below and to the right of which a thin image is padded: RapidOCR would make its short side 0."""
        height, width = pixels.shape[:2]
        least = max(GRID, -(-max(height, width) * GRID // self._max_side))
        below, right = max(0, least - height), max(0, least - width)
        return np.pad(pixels, ((0, below), (0, right), (0, 0)), mode="edge")


def _line(corners: np.ndarray, text: str, score: float) -> tool_api.TextLine:
    """corners: [4, 2] x and y, clockwise."""
    (x0, y0), (x1, y1) = corners.min(0).tolist(), corners.max(0).tolist()
    return tool_api.TextLine(text=text[:MAX_TEXT], box=(x0, y0, x1, y1), score=round(float(score), 4))


def application(backend: Ocr) -> App:
    """The server's application."""

    def work(requests: Sequence[tool_api.OcrRequest]) -> list[Response | Exception]:
        """One batch, in a thread."""
        return backend_calls.with_images(requests, lambda _, images: list(map(_response, backend.read(images))))

    batches = backend_calls.batcher(backend, work)
    app = http_json.application("gog ocr")

    @app.post(tool_api.OCR_PATH)
    async def read(request: Request) -> Response:
        return await backend_calls.answer(batches, await http_json.read(request, tool_api.OcrRequest))

    return app


def _response(lines: Sequence[tool_api.TextLine]) -> Response | Exception:
    """The answer for a back end's result, or the fault in it."""
    try:
        for each in lines:
            backend_calls.finite(*each.box, each.score)
        return http_json.reply(tool_api.OcrResponse(lines=list(lines)))
    except (ValueError, TypeError, AttributeError) as error:
        return error


def build(args: argparse.Namespace) -> App:
    """The application. Raises UserError for a back end that cannot be created."""
    return application(backends.load(NAME, args.backend, args.options, Ocr, inputs.resources(args)))


def main(argv: list[str]) -> int:
    """`gog serve ocr`. Returns the exit code."""
    options = process.parser(NAME, "Reads the text in an image.")
    backends.add_arguments(options, NAME)
    return process.main(NAME, options, argv, build)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))

"""Datasets as other projects publish them, small ones: images, and files in each form."""

from __future__ import annotations

import base64
import io
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow
from PIL import Image as PILImage
from pyarrow import parquet

from gog.dataset import formats
from gog.dataset.formats import LeftOut, Row
from gog.errors import UserError

REAL_FVQA = os.environ.get("GOG_TEST_FVQA", "")
"""A real file of MMSearch-R1 (`mmsearch_r1/data/mini_data.pq` of its repository), which is not part of gog."""


def jpeg(shade: int = 0, width: int = 64, height: int = 48) -> bytes:
    """A JPEG; another shade is another image."""
    stream = io.BytesIO()
    PILImage.new("RGB", (width, height), (shade % 256, 90, 200)).save(stream, "JPEG")
    return stream.getvalue()


def base64_of(data: bytes) -> str:
    return base64.b64encode(data).decode()


def write_images(folder: Path, *names: str) -> Path:
    """Images of these names, each another one."""
    for shade, name in enumerate(names, 1):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(jpeg(40 * shade))
    return folder


def write_lines(path: Path, *rows: Any) -> Path:
    """JSON lines, as Python's own exporters write them: with NaN."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def write_parquet(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    """Columns without a value get the type null, as pandas writes them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(pyarrow.Table.from_pylist([dict(row) for row in rows]), path)
    return path


def fvqa_row(number: int, **changes: Any) -> dict[str, Any]:
    """A row of MMSearch-R1's files."""
    return {
        "prompt": [{"content": f"What is garden {number} named after?", "role": "user"}],
        "images": [{"bytes": jpeg(number), "path": None}],
        "reward_model": {"candidate_answers": '["The Palace", "le palais"]', "ground_truth": "Palace", "style": "rule"},
        "data_source": "mmsearch_r1/fvqa_train",
        "image_urls": None,
        "data_id": f"fvqa_train_{number}",
        "category": "search_required",
        **changes,
    }


def found(kind: str, path: Path, split: str, images: Path | None = None) -> list[Row | LeftOut | UserError]:
    """What a reader gives for a split."""
    return list(formats.load(kind, images).rows(path, split))


def questions(kind: str, path: Path, split: str, images: Path | None = None) -> list[Any]:
    """The questions of a split, all of which must be readable."""
    rows = found(kind, path, split, images)
    assert all(isinstance(row, Row) for row in rows), rows
    return [row.question for row in rows if isinstance(row, Row)]


def only_error(kind: str, path: Path, split: str, images: Path | None = None) -> str:
    """The sentence of the only error among the rows of a split."""
    errors = [row.sentence() for row in found(kind, path, split, images) if isinstance(row, UserError)]
    assert len(errors) == 1, errors
    return errors[0]

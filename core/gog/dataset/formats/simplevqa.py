"""SimpleVQA (m-a-p/SimpleVQA): 1,013 English and 1,012 Chinese questions, images as base64 or embedded.

{"data_id": 7, "image": "/9j/4AAQ…", "question": "…", "answer": "1889", "language": "EN", "original_category": "…",
 "source": "…", "image_description": "…", "atomic_question": "…", "atomic_fact": "…"}

The paper's 1,013 questions are those of `gog import simplevqa … --only language=EN`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from gog.dataset.foreign import values
from gog.dataset.foreign.reader import Source, TableReader
from gog.dataset.formats import Row


class Reader(TableReader):
    """Reads SimpleVQA. Implements gog.dataset.formats.Reader."""

    def has(self, record: Mapping[str, Any]) -> bool:
        return {"data_id", "image", "question", "answer", "language", "original_category"} <= record.keys()

    def questions(self, record: Mapping[str, Any], source: Source) -> Iterator[Row]:
        yield source.row(
            id=f"simplevqa-{record['data_id']}" if not values.is_missing(record.get("data_id")) else None,
            question=values.text(record, "question"),
            answers=values.answers(record.get("answer")),
            image=("image", record.get("image")),
            kind=record.get("original_category"),
            source="simplevqa",
            language=record.get("language"),
        )

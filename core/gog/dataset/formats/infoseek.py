"""InfoSeek's JSON lines (open-vision-language/infoseek); its images are those of OVEN, unpacked into a folder.

{"data_id": "infoseek_train_00000000", "image_id": "oven_01963180", "question": "Who designed this building?",
 "answer": ["Ada"], "answer_eval": ["Ada", "A. Lovelace"], "data_split": "train"}

Numerical questions carry {"wikidata": 12, "range": [11, 13]} in `answer_eval`; its value is accepted. Name the folder of
OVEN's images with `--images`; they are found in it and one level below (`01/oven_01963180.jpg`), whatever their ending.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from gog.dataset.foreign import values
from gog.dataset.foreign.reader import Source, TableReader
from gog.dataset.formats import Row


class Reader(TableReader):
    """Reads InfoSeek's files. Implements gog.dataset.formats.Reader."""

    def has(self, record: Mapping[str, Any]) -> bool:
        return {"data_id", "image_id", "question", "answer_eval"} <= record.keys()

    def questions(self, record: Mapping[str, Any], source: Source) -> Iterator[Row]:
        gold = values.get(record, "answer", "answer_eval")
        yield source.row(
            id=record.get("data_id"),
            question=values.text(record, "question"),
            answers=values.answers(gold, record.get("answer_eval")),
            image=source.places.named(values.text(record, "image_id"), "image_id"),
            kind=record.get("data_split"),
            source="infoseek",
            entity=record.get("entity_text"),
        )

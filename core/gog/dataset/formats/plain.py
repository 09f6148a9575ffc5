"""Plain rows of question, answer and image, as Vision-DeepResearch, WebWatcher and many others write them.

{"id": "q1", "question": "Who is it?", "answer": "Ada", "images": ["images/1.jpg"]}

Also `query` or `prompt` for the question; `answers`, `ground_truth` or `solution` for the answer; `image`, `image_path`,
`file_path` or `image_url` for the image, embedded or named; `question_id`, `data_id` or `qid` for the identifier. JSON
lines, a JSON array, Parquet or Arrow.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from gog.dataset.foreign import files, values
from gog.dataset.foreign.reader import Source, TableReader
from gog.dataset.formats import Row

IDS = ("id", "question_id", "data_id", "sample_id", "qid")
QUESTIONS = ("question", "query", "prompt")
ANSWERS = ("answer", "answers", "ground_truth", "solution")
IMAGES = ("image", "images", "image_path", "file_path", "img_path", "image_url", "file_name")
_OTHERS = (
    {"answer_eval"},  # infoseek
    {"original_category"},  # simplevqa
    {"query_image"},  # mmsearch
    {"options"},  # livevqa
    {"image_url", "question_id", "answer"},  # dynvqa
)
"""Fields by which rows of other formats are known."""


class Reader(TableReader):
    """Reads plain rows. Implements gog.dataset.formats.Reader."""

    OF_HUGGING_FACE = False
    """Whether it is for folders that Hugging Face's `datasets` wrote, or for all others."""

    def has(self, record: Mapping[str, Any]) -> bool:
        known = any(fields <= record.keys() for fields in _OTHERS)
        asked = any(name in record and not isinstance(record[name], list) for name in QUESTIONS)  # a list: ms-swift
        return not known and asked and all(any(name in record for name in names) for names in (ANSWERS, IMAGES))

    def detect(self, path: Path) -> bool:
        return files.is_hugging_face(path) == self.OF_HUGGING_FACE and super().detect(path)

    def questions(self, record: Mapping[str, Any], source: Source) -> Iterator[Row]:
        asked = next((name for name in QUESTIONS if not values.is_missing(record.get(name))), QUESTIONS[0])
        field = next((name for name in IMAGES if not values.is_missing(record.get(name))), IMAGES[0])
        gold = next((name for name in ANSWERS if not values.is_missing(record.get(name))), ANSWERS[0])
        yield source.row(
            id=values.get(record, *IDS),
            question=values.text({asked: record.get(asked)}, asked),
            answers=values.answers(record.get(gold), field=gold),
            image=(field, record.get(field)),
            kind=values.get(record, "kind", "category", "domain", "task"),
            source=record.get("source"),
            language=values.get(record, "language", "lang"),
        )

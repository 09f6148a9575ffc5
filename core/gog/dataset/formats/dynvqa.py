"""DynVQA (Alibaba-NLP/OmniSearch): one file of JSON lines for each language and date, images as URLs.

{"image_url": "https://…/1.jpg", "question": "…", "question_id": "en1", "answer": ["…", 12], "gloden_query": "…"}

`golden_query` is misspelt until December 2024; answers may be integers, and answers of English questions may be Chinese
only (a judge has to know both languages). Each date is another version of the same questions under the same ids, so each
file is a split of its own (`en-202502`), and a file with both spellings is refused as a mixture of versions. All images
are on one host: fetch the URLs that the import lists once, and name their folder with `--images`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from gog.dataset.foreign import files, values
from gog.dataset.foreign.reader import Source, TableReader
from gog.dataset.formats import LeftOut, Row
from gog.errors import UserError

QUERIES = ("gloden_query", "golden_query")


class Reader(TableReader):
    """Reads DynVQA. Implements gog.dataset.formats.Reader."""

    def has(self, record: Mapping[str, Any]) -> bool:
        return {"image_url", "question", "question_id", "answer"} <= record.keys()

    def split_of(self, file: Path) -> str:
        name = file.stem.lower()
        language, date = re.search(r"(?:^|[^a-z])(en|zh)(?:[^a-z]|$)", name), re.search(r"20\d{4}", name)
        parts = [found for found in (language and language[1], date and date[0]) if found]
        return "-".join(parts) or files.split_of(file)

    def rows(self, path: Path, split: str) -> Iterator[Row | LeftOut | UserError]:
        self._spelling = ""
        yield from super().rows(path, split)

    def questions(self, record: Mapping[str, Any], source: Source) -> Iterator[Row]:
        self._require_one_version(record)
        yield source.row(
            id=record.get("question_id"),
            question=values.text(record, "question"),
            answers=values.answers(record.get("answer")),
            image=("image_url", record.get("image_url")),
            source="dynvqa",
            version=source.split,
            query=values.get(record, *QUERIES),
        )

    def _require_one_version(self, record: Mapping[str, Any]) -> None:
        found = next((name for name in QUERIES if name in record), "")
        self._spelling = self._spelling or found
        if found and found != self._spelling:
            raise values.Fault(
                found,
                f"rows before it have {self._spelling}: the file mixes versions of the benchmark",
                "import one version's file",
            )

"""MMSearch (CaraJ/MMSearch), the `end2end` table: 300 questions, 171 of them with an image.

{"sample_id": "…", "query": "…", "query_image": {"bytes": …, "path": null}, "image_search_result": {"bytes": …},
 "area": "news", "subfield": "…", "timestamp": "…", "gt_requery": "…", "gt_answer": "…", "alternative_gt_answers": ["…"]}

Questions without `query_image` are left out: gog asks about an image. `image_search_result` is a screenshot of search
results, which is not used. HR-MMSearch, whose gold answer is `ground_truth`, is read too.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from gog.dataset.foreign import values
from gog.dataset.foreign.reader import Source, TableReader
from gog.dataset.formats import LeftOut, Row


class Reader(TableReader):
    """Reads MMSearch. Implements gog.dataset.formats.Reader."""

    def has(self, record: Mapping[str, Any]) -> bool:
        gold = "gt_answer" in record or {"ground_truth", "difficulty"} <= record.keys()
        return {"sample_id", "query", "query_image"} <= record.keys() and gold and "website_title" not in record

    def is_beside(self, record: Mapping[str, Any]) -> bool:
        return "website_title" in record  # the tables rerank and summarization

    def questions(self, record: Mapping[str, Any], source: Source) -> Iterator[Row | LeftOut]:
        if values.is_missing(record.get("query_image")):
            yield LeftOut(source.where, "no image (query_image is null)")
            return
        gold = values.get(record, "gt_answer", "ground_truth")
        yield source.row(
            id=record.get("sample_id"),
            question=values.text(record, "query"),
            answers=values.answers(gold, record.get("alternative_gt_answers"), field="gt_answer"),
            image=("query_image", record.get("query_image")),
            kind=values.get(record, "area", "category"),
            source="mmsearch",
            subfield=record.get("subfield"),
            timestamp=record.get("timestamp"),
        )

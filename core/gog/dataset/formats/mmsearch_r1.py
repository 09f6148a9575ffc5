"""The Parquet files of MMSearch-R1: FVQA (lmms-lab/FVQA) and its 2,000 questions of InfoSeek, images embedded.

{"prompt": [{"role": "user", "content": "What is this garden named after?"}], "images": [{"bytes": …, "path": null}],
 "reward_model": {"ground_truth": "Tuileries Palace", "candidate_answers": "[\"Palais des Tuileries\"]", "style": "rule"},
 "data_source": "mmsearch_r1/infoseek_train_split", "image_urls": null, "data_id": "fvqa_train_0", "category": "search_free"}

`candidate_answers` is a JSON list inside a string; `image_urls` is a column of type null; `data_id` and `category` are
FVQA's only. The image search results that come beside FVQA are pickles, which gog does not load.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from gog.dataset.foreign import messages, values
from gog.dataset.foreign.reader import Source, TableReader
from gog.dataset.formats import Row


class Reader(TableReader):
    """Reads MMSearch-R1's Parquet files. Implements gog.dataset.formats.Reader."""

    def has(self, record: Mapping[str, Any]) -> bool:
        reward = record.get("reward_model")
        return isinstance(reward, dict) and "candidate_answers" in reward and "prompt" in record

    def questions(self, record: Mapping[str, Any], source: Source) -> Iterator[Row]:
        reward = record.get("reward_model") or {}
        gold, others = values.get(reward, "ground_truth"), values.get(reward, "candidate_answers")
        yield source.row(
            id=record.get("data_id"),
            question=messages.first_user(record.get("prompt"), "prompt"),
            answers=values.answers(gold, others, field="reward_model.ground_truth"),
            image=("images", record.get("images")),
            kind=record.get("category"),
            source=record.get("data_source"),
        )

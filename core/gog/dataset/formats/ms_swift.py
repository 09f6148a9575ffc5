"""Messages with images, as ms-swift, SkyRL and TRL read them: JSON lines, a JSON array or Parquet.

{"messages": [{"role": "user", "content": "<image>Who is it?"}, {"role": "assistant", "content": "Ada"}],
 "images": ["images/1.jpg"]}
{"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,…"}},
 {"type": "text", "text": "Who is it?"}]}], "solution": "Ada"}

The gold answer is `solution` (or `ground_truth`, `answer`) where there is one, else what the last turn of the assistant
answers, as in `sharegpt`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from gog.dataset.foreign import messages, values
from gog.dataset.foreign.reader import Source, TableReader
from gog.dataset.formats import Row

GOLD = ("solution", "ground_truth", "answer")


class Reader(TableReader):
    """Reads messages with images. Implements gog.dataset.formats.Reader."""

    def has(self, record: Mapping[str, Any]) -> bool:
        return isinstance(record.get("messages"), list)

    def questions(self, record: Mapping[str, Any], source: Source) -> Iterator[Row]:
        turns, gold = record.get("messages"), values.get(record, *GOLD)
        if gold is None:
            gold = values.final_answer(messages.last_assistant(turns, "messages"), "messages")
        images = values.get(record, "images", "image")
        yield source.row(
            id=values.get(record, "id"),
            question=messages.first_user(turns, "messages"),
            answers=values.answers(gold, field="messages"),
            image=("images", messages.images(turns) if images is None else images),
            source=record.get("source"),
        )

"""ShareGPT conversations with images, as OpenSearch-VL and LLaMA-Factory publish them: a JSON array or JSON lines.

{"conversations": [{"from": "human", "value": "<image>Who is it?"}, {"from": "gpt", "value": "<answer>Ada</answer>"}],
 "images": ["images/1.jpg"], "system": "…", "tools": "…"}

A conversation becomes a question: the first turn of the user is asked, what the last turn of the assistant answers is
the gold answer (its last <answer>…</answer>, else the whole of a short turn). Its calls of other tools are not replayed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from gog.dataset.foreign import messages, values
from gog.dataset.foreign.reader import Source, TableReader
from gog.dataset.formats import Row


class Reader(TableReader):
    """Reads ShareGPT conversations. Implements gog.dataset.formats.Reader."""

    def has(self, record: Mapping[str, Any]) -> bool:
        return isinstance(record.get("conversations"), list) and ("images" in record or "image" in record)

    def questions(self, record: Mapping[str, Any], source: Source) -> Iterator[Row]:
        turns = record.get("conversations")
        reply = messages.last_assistant(turns, "conversations")
        yield source.row(
            id=values.get(record, "id"),
            question=messages.first_user(turns, "conversations"),
            answers=values.answers(values.final_answer(reply, "conversations"), field="conversations"),
            image=("images", values.get(record, "images", "image")),
            source=record.get("source"),
        )

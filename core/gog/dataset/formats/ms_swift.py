"""Turns with images, as ms-swift, SkyRL and TRL read them: JSON lines, a JSON array or Parquet.

ms-swift   {"messages": [{"role": "user", "content": "<image>Who is it?"}, {"role": "assistant", "content": "Ada"}],
            "images": ["images/1.jpg"]}
SkyRL      {"prompt": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,…"}},
            {"type": "text", "text": "Who is it?"}]}], "reward_spec": {"method": "rule", "ground_truth": "Ada"}}
TRL        {"prompt": [{"role": "system", "content": "…"}, {"role": "user", "content": "Who is it?"}],
            "image": {"bytes": …}, "solution": "Ada"}

The turns are in `messages` or in `prompt`, the images beside them or among their parts. The gold answer is `solution` (or
`ground_truth`, `answer`, `reward_spec.ground_truth`) where there is one, else what the last turn of the assistant in
`messages` answers, as in `sharegpt`. A `prompt` that is text is a row of `plain`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from gog.dataset.foreign import messages, values
from gog.dataset.foreign.reader import Source, TableReader
from gog.dataset.formats import Row

GOLD = ("solution", "ground_truth", "answer")
SPEC = "reward_spec"
_ASKED = ("question", "query")
"""Fields by which a row is one of `plain`, whatever its prompt."""


class Reader(TableReader):
    """Reads turns with images. Implements gog.dataset.formats.Reader."""

    def has(self, record: Mapping[str, Any]) -> bool:
        has_prompt = isinstance(record.get("prompt"), list) and not any(name in record for name in _ASKED)
        has_gold = any(name in record for name in (*GOLD, SPEC))
        return isinstance(record.get("messages"), list) or (has_prompt and has_gold)

    def questions(self, record: Mapping[str, Any], source: Source) -> Iterator[Row]:
        field = "prompt" if values.is_missing(record.get("messages")) else "messages"
        turns, images = record.get(field), values.get(record, "images", "image")
        yield source.row(
            id=values.get(record, "id"),
            question=messages.first_user(turns, field),
            answers=_answers(record, field),
            image=("images", messages.images(turns) if images is None else images),
            source=values.get(record, "source", "data_source"),
        )


def _answers(record: Mapping[str, Any], field: str) -> tuple[str, ...]:
    """The accepted answers of a row whose turns are in a field. Raises Fault if there is none."""
    spec = record.get(SPEC)
    given = {f"{SPEC}.ground_truth": spec.get("ground_truth")} if isinstance(spec, Mapping) else {}
    given |= {name: record.get(name) for name in GOLD}
    name = next((name for name in (*GOLD, *given) if not values.is_missing(given[name])), None)
    if name is not None:
        gold: Any = given[name]
        is_reply = isinstance(gold, str) and values.is_tagged(gold)  # a solution with its reasoning
        return values.answers(values.final_answer(gold, name) if is_reply else gold, field=name)
    if field == "prompt":
        raise values.Fault(GOLD[0], f"holds no answer, nor do {', '.join(GOLD[1:])} and {SPEC}.ground_truth")
    return values.answers(values.final_answer(messages.last_assistant(record.get(field), field), field), field=field)

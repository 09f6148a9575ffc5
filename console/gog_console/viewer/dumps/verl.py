"""verl's `trainer.rollout_data_dir` and `trainer.validation_data_dir`: `<step>.jsonl`, one line per rollout.

{"input": "system\\nYou are …\\nuser\\nWho is it?\\nassistant\\n", "output": "<think>…</think><tool_call>…</tool_call>\\nuser\\n…",
 "gts": "Ada", "score": 1.0, "step": 40, "acc": true, "uid": "3f…_0_0"}

Besides the first five, a line has what the reward function returns and, in newer versions, `uid` or `request_id`. verl
decodes without special tokens, so of a chat template only the names of roles are left. Images are not written, unless the
reward function returns their paths.

Source: verl 0.9.1, `_write_generations` in verl/trainer/ppo/ray_trainer.py and v1/trainer_base.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gog.dataset.foreign import tables, values
from gog_console.viewer.dumps import Played
from gog_console.viewer.foreign import episode

_KNOWN = ("input", "output", "gts", "score", "step")
_VERDICTS = ("acc", "accuracy", "correct", "is_correct")
"""Names under which reward functions return whether the answer is correct; `acc` is what verl itself reports."""


class Reader:
    """Reads verl's rollouts. Implements gog_console.viewer.dumps.Reader."""

    def has(self, file: Path) -> bool:
        return file.suffix == ".jsonl" and {"input", "output", "score"} <= tables.first(file).keys()

    def step(self, file: Path) -> int:
        return int(file.stem) if file.stem.isdecimal() else 0

    def played(self, record: Mapping[str, Any], file: Path) -> Played:
        score = episode.number(record, "score")
        return episode.build(
            prompt=episode.conversation(record, "input"),
            completion=episode.conversation(record, "output", "assistant"),
            answers=episode.accepted(record.get("gts")),
            accuracy=episode.verdict(record, _VERDICTS, score),
            total=score,
            step=int(episode.number(record, "step") or self.step(file)),
            kind=str(values.get(record, "data_source") or ""),
            record=record,
            known=_KNOWN,
        )

"""TRL's `log_completions`: `completions/completions_<step>.parquet`, one row per completion.

{"step": 40, "prompt": "system\\nYou are …\\nuser\\nWho is it?\\nassistant\\n", "completion": "<think>…</think><answer>Ada</answer>",
 "accuracy_reward": 1.0, "format_reward": 0.5, "advantage": 0.7}

The columns between completion and advantage are the reward functions by their names, and what they logged with
`log_extra`. The file does not say which is which, nor the weights: the total is the sum of the columns named after a
reward, or of all numeric ones where none is. Images are not written, unless `log_extra` writes their paths.

Source: TRL 1.16, `GRPOTrainer.log`. Special tokens are left out of its texts; older releases kept them in the prompt.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gog.dataset.foreign import tables, values
from gog_console.viewer.dumps import Played
from gog_console.viewer.foreign import episode

_KNOWN = ("step", "prompt", "completion", "advantage")
_ANSWERS = ("answer", "answers", "solution", "ground_truth", "target")
_STEP = re.compile(r"completions_(\d+)$")


class Reader:
    """Reads TRL's completions. Implements gog_console.viewer.dumps.Reader."""

    def has(self, file: Path) -> bool:
        return file.suffix == ".parquet" and {"prompt", "completion", "step"} <= tables.first(file).keys()

    def step(self, file: Path) -> int:
        found = _STEP.search(file.stem)
        return int(found[1]) if found else 0

    def played(self, record: Mapping[str, Any], file: Path) -> Played:
        rewards = _rewards(record)
        verdicts = [name for name in rewards if "acc" in name or "correct" in name]
        alone = next(iter(rewards.values())) if len(rewards) == 1 else None
        return episode.build(
            prompt=episode.conversation(record, "prompt"),
            completion=episode.conversation(record, "completion", "assistant"),
            answers=episode.accepted(values.get(record, *_ANSWERS)),
            accuracy=episode.verdict(record, verdicts, alone),
            total=sum(rewards.values()) if rewards else None,
            step=int(episode.number(record, "step") or self.step(file)),
            advantage=episode.number(record, "advantage"),
            record=record,
            known=(*_KNOWN, *_ANSWERS),
        )


def _rewards(record: Mapping[str, Any]) -> dict[str, float]:
    """The numeric columns named after a reward; all numeric ones where none is."""
    numbers = {
        name: float(value)
        for name, value in record.items()
        if name not in _KNOWN and isinstance(value, int | float) and not values.is_missing(value)
    }
    return {name: value for name, value in numbers.items() if "reward" in name.lower()} or numbers

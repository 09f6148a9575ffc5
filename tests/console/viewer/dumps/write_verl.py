"""Writes verl/rollouts/<step>.jsonl with verl's own writer, on texts that are decoded as its trainer decodes them.

python write_verl.py FOLDER       needs verl==0.9.1 and what it imports
"""

from __future__ import annotations

import sys

import episodes
from verl.trainer.ppo.ray_trainer import RayPPOTrainer

TOKENIZER = episodes.tokenizer()


def decoded(text: str) -> str:
    """A text after its way through token ids, without special tokens as in `_log_rollout_data`."""
    return TOKENIZER.decode(TOKENIZER(text, add_special_tokens=False)["input_ids"], skip_special_tokens=True)


def main() -> None:
    rows = episodes.rows()
    correct = [f"<answer>{gold}</answer>" in text for _, gold, _, text in rows]
    more = {
        "acc": correct,
        "format": [float("</answer>" in row[3]) for row in rows],
        "image_path": [row[2] for row in rows],
        "request_id": [f"request-{number}" for number in range(len(rows))],
    }
    for step in (9, 10):
        RayPPOTrainer._write_generations(
            [decoded(episodes.prompt(row[0])) for row in rows], [decoded(row[3]) for row in rows],
            [row[1] for row in rows], [0.9 * right + 0.1 * fmt for right, fmt in zip(correct, more["format"], strict=True)],
            more, f"{sys.argv[1]}/rollouts", step,
        )  # fmt: skip


if __name__ == "__main__":
    main()

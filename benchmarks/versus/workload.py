"""The work that both sides of the comparison do: its sizes, and what tools return.

Read by gog's side and by the other trainer's, each in its own environment, so this module needs numpy and Pillow only.

Work is forced: every turn has the same number of tokens, every trajectory the same number of tool calls, and every call
returns one image that no other call returns. So both sides generate, read and encode equally much, whatever a model with
random weights samples.
"""

from __future__ import annotations

import dataclasses
import json
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image as PILImage


@dataclass(frozen=True)
class Workload:
    """Sizes of a step's work, and where its parts are."""

    groups: int = 2
    """Questions of a step."""
    group_size: int = 8
    """Trajectories per question."""
    calls: int = 3
    """Tool calls of a trajectory; one turn more follows them."""
    turn_tokens: int = 32
    """Tokens of a turn."""
    side: int = 112
    """Side of every image in pixels: of the question's and of those that tools return."""
    steps: int = 16
    """Steps for which questions are made."""
    instructions: str = ""
    """System prompt."""
    suppressed: tuple[int, ...] = ()
    """Token ids that are never sampled."""
    lora_targets: str = ""
    """Regular expression of the linears with an adapter."""
    lora_rank: int = 8
    """Rank of the adapter."""
    lora_alpha: int = 16
    """The update is scaled by alpha / rank."""
    learning_rate: float = 2e-6
    """Of AdamW."""

    @property
    def trajectories(self) -> int:
        """Trajectories of a step."""
        return self.groups * self.group_size

    def reward(self, sample: int) -> float:
        """Reward of a group's sample: fixed beforehand, because a random model earns none."""
        return 1.0 if sample % 2 else 0.1

    def advantage(self, sample: int) -> float:
        """Reward minus the group's mean."""
        rewards = [self.reward(each) for each in range(self.group_size)]
        return self.reward(sample) - sum(rewards) / len(rewards)

    def save(self, folder: Path) -> None:
        """Writes it beside the model."""
        (folder / "workload.json").write_text(json.dumps(dataclasses.asdict(self), indent=1))

    @classmethod
    def load(cls, folder: Path) -> Workload:
        """Reads what `save` wrote."""
        found = json.loads((folder / "workload.json").read_text())
        return cls(**{**found, "suppressed": tuple(found["suppressed"])})


def question(number: int) -> str:
    """Text of a question; all have equally many tokens."""
    return f"Which of the things in the image is the one that is meant by number {10 + number % 90}, and who made it?"


def expression(number: int, sample: int, turn: int) -> str:
    """Argument of a tool call; no other call has it."""
    return f"thing {number} {sample} {turn}"


def box_of(wanted: str) -> tuple[int, int, int, int]:
    """The square that a tool finds for an expression: x0, y0, x1, y1, each of two digits, because so have equal tokens."""
    bits = zlib.crc32(wanted.encode())
    x, y, size = 10 + bits % 30, 10 + (bits >> 8) % 30, 28 + (bits >> 16) % 29
    return x, y, x + size, y + size


def crop_of(pixels: np.ndarray, wanted: str) -> np.ndarray:
    """What a tool returns for an expression: its square of the image, as large as the image [side, side, 3] uint8."""
    side = pixels.shape[0]
    image = PILImage.fromarray(pixels).crop(box_of(wanted))
    return np.asarray(image.resize((side, side), PILImage.Resampling.BICUBIC))


def observation(number: int, box: tuple[int, int, int, int]) -> tuple[str, str]:
    """Text before and after the image of an observation. number: of the image in its conversation, from 1."""
    return f"#{number} ", f" box {', '.join(map(str, box))} score 0.90"

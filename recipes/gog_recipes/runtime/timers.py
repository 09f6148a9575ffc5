"""How long a step's parts took, and how much of the device that was.

Utilisation follows the convention of 6 floating-point operations per token and parameter, whatever is frozen, so that
runs compare with others' figures. It is not given where it would be a guess: on a CPU, on a device whose peak is not in
the table, for weights that are not bfloat16. Imported by recipes without torch, so torch is met in `throughput` only.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

PEAKS = {
    "B200": 2250e12,
    "H200": 989e12,
    "H100 PCIe": 756e12,
    "H100": 989e12,
    "A100": 312e12,
    "L40S": 362e12,
    "L4": 121e12,
    "A10": 125e12,
}
"""Operations a second in bfloat16, dense, by a part of the device's name; the first that fits."""


@dataclass
class StepTimer:
    """Seconds of a step, part by part."""

    clock: Callable[[], float] = time.monotonic
    seconds: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._begun = self._last = self.clock()

    def mark(self, part: str) -> float:
        """What has passed since the last mark is this part's; how much it was."""
        now = self.clock()
        self.seconds[part], self._last = now - self._last, now
        return self.seconds[part]

    @property
    def total(self) -> float:
        """From the beginning to the last mark."""
        return self._last - self._begun


@dataclass(frozen=True)
class Throughput:
    """parameters: of the whole model; peak: operations a second of all devices together, None if unknown."""

    parameters: int
    peak: float | None

    def read(self, tokens: int, seconds: float) -> tuple[float, float | None]:
        """Tokens a second, and the utilisation if the peak is known."""
        speed = tokens / seconds if seconds > 0 else 0.0
        return speed, 6 * self.parameters * speed / self.peak if self.peak else None


def throughput(model: Any, device: Any, ranks: int) -> Throughput:
    """Of a model that is spread over ranks, each with one device."""
    parameters = list(model.parameters())
    peak = None
    if device.type == "cuda" and str(parameters[0].dtype) == "torch.bfloat16":
        import torch

        peak = peak_of(torch.cuda.get_device_name(device))
    return Throughput(sum(each.numel() for each in parameters), ranks * peak if peak else None)


def peak_of(device: str) -> float | None:
    """By the name that the driver gives."""
    return next((peak for name, peak in PEAKS.items() if name in device), None)

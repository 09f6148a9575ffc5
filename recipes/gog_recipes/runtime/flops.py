"""How much of the device's peak an update uses.

Utilisation follows the convention of 6 floating-point operations per token and parameter, frozen or not, so that it can
be compared with published figures. It is absent where it would be a guess: on a CPU, on a device whose peak is not in
the table, for weights that are not bfloat16. Recipes without torch import this module, so torch is imported late.
"""

from __future__ import annotations

from dataclasses import dataclass
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
"""Operations per second in bfloat16, dense, by a part of the device's name; the first that matches."""


@dataclass(frozen=True)
class Throughput:
    """Turns tokens and seconds into speed and utilisation."""

    parameters: int
    """Of the whole model."""
    peak: float | None
    """Operations per second of all devices together; None if unknown."""

    def read(self, tokens: int, seconds: float) -> tuple[float, float | None]:
        """Tokens per second, and the utilisation (0 to 1) if the peak is known."""
        speed = tokens / seconds if seconds > 0 else 0.0
        return speed, 6 * self.parameters * speed / self.peak if self.peak else None


def throughput(model: Any, device: Any, ranks: int) -> Throughput:
    """Of a model that is spread over ranks with one device each.

    Args:
        model: a torch module, sharded or not
        device: torch device of this rank
        ranks: how many ranks there are
    """
    parameters = list(model.parameters())
    from gog_recipes.models import nf4

    peak = None
    if device.type == "cuda" and str(parameters[0].dtype) == "torch.bfloat16":
        import torch

        peak = peak_of(torch.cuda.get_device_name(device))
    return Throughput(sum(each.numel() for each in parameters) + nf4.count(model), ranks * peak if peak else None)


def peak_of(device: str) -> float | None:
    """Operations per second of a device by the name that its driver reports; None for one that is not in the table."""
    return next((peak for name, peak in PEAKS.items() if name in device), None)

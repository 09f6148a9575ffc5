"""How much memory a step needs at its peak. Two system calls per step."""

from __future__ import annotations

import resource
import sys
from collections.abc import Sequence
from typing import Any

Peak = tuple[int, int | None]
"""Bytes of this process on the host since it began, and of tensors on its device since the last reading, None on a CPU."""
UNIT = 1 if sys.platform == "darwin" else 1024
"""Bytes of a unit of ru_maxrss."""


def take_peak(device: Any) -> Peak:
    """The peaks of this process, of which that of the device begins anew.

    Args:
        device: torch device of this process
    """
    host = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * UNIT
    if device.type != "cuda":
        return host, None
    import torch

    allocated = torch.cuda.max_memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    return host, allocated


def figures(ranks: Sequence[Peak]) -> dict[str, int | None]:
    """Step metrics: the largest peaks of all ranks."""
    on_device = [device for _, device in ranks if device is not None]
    return {
        "host_memory_peak_bytes": max(host for host, _ in ranks),
        "device_memory_peak_bytes": max(on_device, default=None),
    }

"""How long a step takes, if a GPU reached a stated share of its peak. Pure; never a promise.

Operations are counted as products of matrices, two per multiplication. Frozen weights get no gradients, so a backward pass
costs as much as a forward pass. Attention's own products are left out: below 16,000 tokens they are a tenth.
"""

from __future__ import annotations

from dataclasses import dataclass

from gog_recipes.estimate.request import Speed
from gog_recipes.runtime.flops import PEAKS

BANDWIDTH = {"H100": 3.35e12, "H200": 4.8e12, "A100": 2.0e12}
"""Bytes per second of a GPU's memory by its name, from the data sheets."""
UTILISATION = 0.3
"""Assumed share of the peak of matrix products in passes over many tokens. Published runs of LoRA with whole layers
computed again reach 0.17 to 0.37 at 16,000 to 65,000 tokens (prime-rl, one to eight H100 or H200)."""
READING = 0.6
"""Assumed share of the memory's bandwidth while tokens are sampled."""


@dataclass(frozen=True)
class Work:
    """What a rank does in a step."""

    tokens: int
    """Tokens of its conversations."""
    sampled: int
    """Those that are sampled; 0 in a stage that samples nothing."""
    at_once: int
    """Conversations that are sampled at once."""
    passes: float
    """Forward passes over each token in the update, with those without gradients, of the backward pass (as much as one) and
    of checkpointing."""
    active: int
    """Parameters that take part in a token."""
    weight_bytes: int
    """Bytes that are read per sampled token of all conversations."""
    token_bytes: int
    """Bytes of the key-value cache per token."""
    longest: int
    """Tokens of a conversation."""


def gpu_of(gpu_bytes: int) -> str:
    """The GPU that is assumed for a size of memory."""
    return "H200" if gpu_bytes > 100e9 else "H100" if gpu_bytes > 45e9 else "A100"


def seconds(work: Work, gpu_bytes: int) -> Speed:
    """Seconds of a step.

    Args:
        work: of one rank
        gpu_bytes: memory of its GPU
    """
    name = gpu_of(gpu_bytes)
    products = UTILISATION * PEAKS[name]
    rollout = 0.0
    if work.sampled:
        read = 2 * work.active * (work.tokens - work.sampled) / products
        steps = work.sampled / work.at_once
        cache = work.at_once * work.token_bytes * work.longest / 2
        rollout = read + steps * (work.weight_bytes + cache) / (READING * BANDWIDTH[name])
    passes = f"{UTILISATION:.0%} of an {name}'s {PEAKS[name] / 1e12:.0f} TFLOP/s in passes"
    sampling = f"{READING:.0%} of its {BANDWIDTH[name] / 1e12:.2f} TB/s while sampling, no waiting for tools"
    return Speed(
        rollout_seconds=rollout,
        update_seconds=2 * work.active * work.tokens * work.passes / products,
        assumes=f"conversations of full length, {passes}" + (f", {sampling}" if work.sampled else ""),
    )

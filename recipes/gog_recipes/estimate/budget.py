"""From traced bytes to a verdict: allowances for what is not traced, host memory, disk, what runs out first. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from gog_recipes.estimate.meter import Bytes, Item
from gog_recipes.estimate.request import Phase, StageEstimate

CONTEXT_BYTES = 3 * 2**29
"""Assumed for the CUDA context with the kernels of torch, cuBLAS workspaces included, and of NCCL: 1.5 GiB."""
FRAGMENTATION = 0.05
"""Assumed share of all allocated memory that the allocator reserves but cannot use."""
PROCESS_BYTES = 4 * 2**30
"""Assumed for one process on the host: Python, torch, tokenizer, decoded images."""
ADVISED = 0.02
"""Smallest share of a phase's bytes of an item that is worth a setting."""
CONTEXT, LOST = "CUDA context (assumed)", "fragmentation (assumed)"
"""Names of the items that are assumed."""


def usable(gpu_bytes: int) -> int:
    """Bytes of a GPU that tensors can have."""
    return int((gpu_bytes - CONTEXT_BYTES) / (1 + FRAGMENTATION))


def phase(name: str, items: Mapping[Item, int], knobs: Sequence[str]) -> Phase:
    """Memory of a phase, with the allowances."""
    found = {item.value: size for item, size in items.items() if size}
    found[CONTEXT] = CONTEXT_BYTES
    found[LOST] = int(FRAGMENTATION * sum(items.values()))
    return Phase(name=name, items=found, total=sum(found.values()), knobs=list(knobs))


def knobs(
    kind: str, name: str, items: Bytes, *, sharded: bool, quantizable: bool, bounded: bool, roomy: bool, alone: bool
) -> list[str]:
    """Settings that lower the memory of a phase, those of its largest items first; none for small items.

    Args:
        kind: of the stage
        name: of the phase
        items: its bytes
        sharded: whether more GPUs make the base weights of each smaller, once they are loaded
        quantizable: whether the base weights can be quantized and are not
        bounded: whether a pass holds more than one conversation, so that fewer tokens per pass are possible
        roomy: whether the engine's cache holds more than one conversation, so that a smaller one is possible
        alone: whether one image is more than a pass of the vision tower should take; a pass takes more of smaller images
    """
    stage = f"stages.{kind}"
    training = f"lower {stage}.microBatchTokens" if bounded else f"lower {stage}.maxTokens"
    spread = sharded and name != "loading"  # before it is sharded every process holds the whole base
    weights = "use more GPUs" if spread else "use GPUs with more memory"
    quantized = "set baseQuantization: nf4 in all stages"
    packed = f"{quantized}, or " if quantizable else ""
    if quantizable:
        weights += f", or {quantized}"
    cache_bytes = items.get(Item.CACHE, 0)
    cache = f"set {stage}.kvCacheBytes below {cache_bytes} ({gigabytes(cache_bytes)})"
    working = {
        "update": training,
        "vision": "lower model.maxPixels" if alone else "use GPUs with more memory",
        "loading": weights,
        "decode": f"lower {stage}.concurrentEpisodes",
    }.get(name, f"lower {stage}.prefillTokens")
    advice = {
        Item.BASE: weights,
        Item.COPIES: f"{packed}sample with vLLM on GPUs of its own ({stage}.engine: vllm)",
        Item.GATHERED: "use GPUs with more memory",
        Item.CACHE: cache if roomy else f"lower {stage}.maxTokens",
        Item.ACTIVATIONS: working,
        Item.LOGITS: working,
        Item.FEATURES: working,
        Item.ADAPTERS: f"lower {stage}.lora.rank",
        Item.OPTIMIZER: f"lower {stage}.lora.rank",
        Item.GRADIENTS: f"lower {stage}.lora.rank",
    }
    least = ADVISED * sum(items.values())
    largest = sorted((size, item) for item, size in items.items() if size > least)
    return list(dict.fromkeys(advice[item] for _, item in reversed(largest)))


def verdict(stages: Sequence[StageEstimate], gpu_bytes: int) -> tuple[bool, str]:
    """Whether everything fits, and a sentence about the tightest phase.

    Args:
        stages: with their phases
        gpu_bytes: memory of each GPU
    """
    stage, tightest = max(
        ((stage, phase) for stage in stages for phase in stage.phases), key=lambda each: each[1].total
    )
    where = f"{tightest.name} of {stage.key}"
    item = max((size, name) for name, size in tightest.items.items())[1]
    remedy = "to use less, " + "; or ".join(tightest.knobs[:2])
    others = [
        f"{phase.name} of {each.key}"
        for each in stages
        for phase in each.phases
        if phase.total > gpu_bytes and phase is not tightest
    ]
    if tightest.total <= gpu_bytes:
        left = gigabytes(gpu_bytes - tightest.total)
        return (
            True,
            f"fits: the first to run out would be {where}, which has {left} left and is mostly {item}; {remedy}",
        )
    return False, (
        f"does not fit: {where} needs {gigabytes(tightest.total)} of {gigabytes(gpu_bytes)} and is mostly {item}; {remedy}"
        + (f"; also too large: {', '.join(others)}" if others else "")
    )


def host_bytes(model_bytes: int, processes: int, feature_bytes: int) -> int:
    """Memory of a host while its processes load the base model, each for itself.

    Args:
        model_bytes: of the base weights
        processes: on the host
        feature_bytes: bound of the image features of each
    """
    return processes * (PROCESS_BYTES + max(model_bytes, feature_bytes))


def gigabytes(size: int) -> str:
    """
    >>> gigabytes(80_000_000_000)
    '80.0 GB'
    """
    return f"{size / 1e9:.1f} GB"

"""The estimate of a request: each stage traced, with allowances, host memory, disk and speed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from gog import wording
from gog.spec import CONFIGS, EvaluateConfig, GRPOConfig, SFTConfig, StageConfig
from gog_recipes.estimate import budget, speed, trace
from gog_recipes.estimate.meter import Item
from gog_recipes.estimate.request import Estimate, Request, Speed, StageEstimate, StageRequest
from gog_recipes.estimate.subject import Parameters, parameters
from gog_recipes.estimate.trace import Traced
from gog_recipes.models import vision
from gog_recipes.runtime import config


def estimate(
    request: Request, name: str, found: Mapping[str, Any], report: Callable[[str], None] = lambda line: None
) -> Estimate:
    """The answer to a request; see `estimates`."""
    return estimates(request, name, found, [request.gpu_bytes], report)[0]


def estimates(
    request: Request,
    name: str,
    found: Mapping[str, Any],
    sizes: Sequence[int],
    report: Callable[[str], None] = lambda line: None,
) -> list[Estimate]:
    """The answers to a request on GPUs of several sizes. Each stage is traced once.

    Args:
        request: the stages and their GPUs
        name: of the configuration that is used
        found: config.json of the base model
        sizes: memory of a GPU in bytes, in place of the request's
        report: gets a line before each stage

    Raises:
        UserError: a stage's configuration is invalid, or the model's is not known to transformers.
    """
    counts = parameters(found)
    stages = []
    for number, each in enumerate(request.stages, 1):
        gpus = wording.plural(each.gpus, "GPU", "GPUs")
        report(f"estimating {each.key} ({number} of {len(request.stages)}) with {name} on {gpus}")
        stages.append(_stage(each, sizes, found, counts))
    answers = []
    for size, of_size in zip(sizes, zip(*stages, strict=True), strict=True):
        fits, verdict = budget.verdict(of_size, size)
        answers.append(
            Estimate(
                model=name, parameters=counts.total, gpu_bytes=size, stages=list(of_size), fits=fits, verdict=verdict
            )
        )
    return answers


def _stage(
    asked: StageRequest, sizes: Sequence[int], found: Mapping[str, Any], counts: Parameters
) -> list[StageEstimate]:
    """A stage on GPUs of each size."""
    cfg = config.typed(CONFIGS[asked.kind], asked.config)
    tracing = trace.Trace(found, cfg, ranks=asked.gpus, frozen=_frozen(cfg))
    patches = (cfg.model.max_pixels or trace.IMAGE_PIXELS) / tracing.patch**2
    alone = patches > vision.MAX_PASS_PATCHES
    return [_sized(asked, cfg, tracing.on(budget.usable(size)), size, counts, alone=alone) for size in sizes]


def _sized(
    asked: StageRequest, cfg: Any, traced: Traced, gpu_bytes: int, counts: Parameters, *, alone: bool
) -> StageEstimate:
    trains = isinstance(cfg, (SFTConfig, GRPOConfig))
    sharded = isinstance(cfg, (SFTConfig, GRPOConfig)) and cfg.base_quantization == "none"  # a packed base is not
    plain = getattr(cfg, "base_quantization", "") == "none" and getattr(cfg, "engine", "") != "vllm"
    quantizable = plain and counts.quantizable > 0
    phases = [
        budget.phase(
            name,
            items,
            budget.knobs(
                asked.kind, name, items, sharded=sharded, quantizable=quantizable,
                bounded=isinstance(cfg, (SFTConfig, GRPOConfig)) and cfg.micro_batch_tokens >= 2 * cfg.max_tokens,
                roomy=traced.conversations > 1,
                alone=alone,
            ),
        )
        for name, items in _joined(traced).items()
    ]  # fmt: skip
    size = getattr(torch, cfg.model.dtype).itemsize
    update = traced.phases.get("update", {})
    saved = update.get(Item.GRADIENTS, 0) + update.get(Item.OPTIMIZER, 0)  # a weight is as large as its gradient
    return StageEstimate(
        key=asked.key,
        phases=phases,
        host_bytes=budget.host_bytes(counts.total * size, asked.gpus_per_node, _feature_bytes(cfg)),
        disk_bytes=_checkpoints(cfg) * saved * asked.gpus,
        speed=_speed(cfg, traced, counts, asked.gpus, gpu_bytes) if trains else None,
        notes=_notes(cfg, traced),
    )


def _joined(traced: Traced) -> dict[str, dict[Item, int]]:
    """The largest of the prefill phases as one; the others as they are."""
    joined: dict[str, dict[Item, int]] = {}
    for name, items in traced.phases.items():
        short = name.partition(" ")[0]
        if sum(items.values()) > sum(joined.get(short, {}).values()):
            joined[short] = items
    return joined


def _frozen(cfg: StageConfig) -> int:
    """Rank of the saved adapters beneath the policy, taken to be of the rank that the stage trains or the default."""
    rank = getattr(getattr(cfg, "lora", None), "rank", 8)
    return 0 if isinstance(cfg, SFTConfig) else 2 * rank if isinstance(cfg, EvaluateConfig) else rank


def _feature_bytes(cfg: StageConfig) -> int:
    return int(getattr(cfg, "feature_cache_bytes", 0) or 0)


def _checkpoints(cfg: StageConfig) -> int:
    """Checkpoints that a stage commits; of SFT, whose steps depend on the data, one."""
    return -(-cfg.steps // cfg.save_every) if isinstance(cfg, GRPOConfig) else 1


def _speed(cfg: Any, traced: Traced, counts: Parameters, ranks: int, gpu_bytes: int) -> Speed:
    each = trace.conversation(cfg)
    is_grpo = isinstance(cfg, GRPOConfig)
    number = cfg.questions_per_step * cfg.group_size if is_grpo else cfg.batch_size
    own = -(-number // ranks)
    size = getattr(torch, cfg.model.dtype).itemsize
    held = max(1, traced.conversations)
    again = 1 if cfg.activation_checkpointing != "off" else 0
    work = speed.Work(
        tokens=own * each.tokens,
        sampled=own * each.learned if is_grpo else 0,
        at_once=held,
        passes=2 + again + (_read_only_passes(cfg) if is_grpo else 0),
        active=counts.active,
        weight_bytes=_read_bytes(cfg, counts, size),
        token_bytes=counts.token_elements * size,
        longest=each.tokens,
    )
    return speed.seconds(work, gpu_bytes)


def _read_only_passes(cfg: GRPOConfig) -> float:
    """Passes without gradients over each token: by the reference, and by the policy before an update of several steps."""
    return (1 if cfg.kl_coef else 0) + 1 - 1 / cfg.updates_per_rollout


def _read_bytes(cfg: Any, counts: Parameters, size: int) -> int:
    """Bytes of weights that move for one sampled token; packed ones are read, written unpacked and read again."""
    packed = counts.quantizable if cfg.base_quantization != "none" else 0
    return int((counts.total - packed) * size + packed * (4.5 / 8 + 2 * size))


def _notes(cfg: Any, traced: Traced) -> list[str]:
    notes = []
    if traced.wanted > traced.conversations and traced.wanted:
        notes.append(
            f"the key-value cache holds {traced.conversations} of the {traced.wanted} conversations of each GPU at their "
            f"full length of {cfg.max_tokens} tokens; others wait"
        )
    if getattr(cfg, "engine", "transformers") != "transformers":
        notes.append(f"engine {cfg.engine} samples on GPUs of its own, which are not counted here")
    return notes

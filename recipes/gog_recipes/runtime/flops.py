"""Model FLOPs of an update, and the share of the devices' peak that they are (MFU).

Counted are the products of matrices that the method needs, two operations per multiplication, whatever computes them:
not what checkpointing computes again, and not passes without gradients, whose time is another part of the step. A frozen weight has
a forward product and one for the gradient of its input, so it costs 4 operations per token and not the usual 6; a LoRA
factor costs 6. The head is applied to learned tokens only, a shared prompt is computed once, and attention counts the
pairs of tokens that see each other. A figure with 6 per parameter, or with whole squares of attention, is higher.

On a CPU, a device whose peak is not in the table, or weights that are not bfloat16 there is no MFU, only operations per
second. Recipes without torch import this module, so torch is imported late.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass
from typing import Any

from gog.trajectory import Segment
from gog_recipes.models import packing

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
class Work:
    """What passes of an update compute."""

    tokens: int = 0
    """Tokens that are read; a shared prompt once for each pass."""
    learned: int = 0
    """Tokens whose log-probs are computed."""
    pairs: int = 0
    """Pairs of a token and one that it attends to, itself included."""

    @classmethod
    def total(cls, several: Iterable[Work]) -> Work:
        """The sum of several, field by field."""
        return cls(*map(sum, zip(*map(astuple, several), strict=True)))


def work(rows: Sequence[Sequence[Segment]]) -> Work:
    """Of one pass over some conversations, in which shared prompts are computed once.

    Args:
        rows: conversations as segments
    """
    tokens = pairs = 0
    for members in packing.groups(rows):
        prefix = packing.length(packing.opening(rows[members[0]])) if len(members) > 1 else 0
        rests = [packing.length(rows[index]) - prefix for index in members]
        tokens += prefix + sum(rests)
        pairs += _triangle(prefix) + sum(rest * prefix + _triangle(rest) for rest in rests)
    return Work(tokens, sum(map(packing.learned, rows)), pairs)


def _triangle(count: int) -> int:
    """Pairs of `count` tokens of which each sees itself and all before it."""
    return count * (count + 1) // 2


@dataclass(frozen=True)
class Model:
    """Sizes of a model that is trained by adapters."""

    frozen: int
    """Frozen weights of the decoder layers that a token is multiplied with: of experts those that it is routed to."""
    trained: int
    """Weights of the adapters, likewise."""
    head: int
    """Weights of the language head."""
    width: int
    """Heads times size of a head, summed over layers."""

    def flops(self, done: Work) -> int:
        """Operations of forward and backward passes.

        >>> Model(frozen=100, trained=10, head=50, width=4).flops(Work(tokens=2, learned=1, pairs=3))
        1264
        """
        layers = (4 * self.frozen + 6 * self.trained) * done.tokens
        return layers + 4 * self.head * done.learned + 12 * self.width * done.pairs


def model_of(model: Any) -> Model:
    """Sizes of a loaded model with an adapter, sharded or not, quantized or not."""
    import torch

    from gog_recipes.models import policy_model

    language = policy_model.language_model(model)
    config = language.config
    experts = getattr(config, "num_experts", None) or getattr(config, "num_local_experts", None)
    share = config.num_experts_per_tok / experts if experts else 1.0
    frozen = trained = 0.0
    for name, weight in language.layers.named_parameters():
        if weight.ndim < 2:  # norms and biases
            continue
        active = weight.numel() * (share if "experts" in name.split(".") else 1.0)
        if weight.requires_grad:
            trained += active
        elif weight.is_floating_point():
            frozen += active
    for name, packed in language.layers.named_buffers():
        if name.endswith("codes") and packed.dtype is torch.uint8:  # two weights of 4 bits a byte
            frozen += 2 * packed.numel() * (share if "experts" in name.split(".") else 1.0)
    head = policy_model.core(model).lm_head.weight.numel()
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return Model(round(frozen), round(trained), head, len(language.layers) * config.num_attention_heads * size)


@dataclass(frozen=True)
class Utilisation:
    """Turns the work of an update and its time into figures."""

    model: Model
    """What is trained."""
    peak: float | None
    """Operations per second of all devices together; None if unknown."""

    def figures(self, done: Work, seconds: float) -> dict[str, float | None]:
        """Step metrics: operations per second of all ranks, and the share of the peak if that is known; None for a step
        without an update."""
        speed = self.model.flops(done) / seconds if done.tokens and seconds > 0 else None
        return {"model_flops_per_second": speed, "mfu": speed / self.peak if speed and self.peak else None}


def utilisation(model: Any, device: Any, ranks: int) -> Utilisation:
    """Of a model that is spread over ranks with one device each.

    Args:
        model: a torch module with an adapter, sharded or not
        device: torch device of this rank
        ranks: how many ranks there are
    """
    peak = None
    if device.type == "cuda" and str(next(model.parameters()).dtype) == "torch.bfloat16":
        import torch

        peak = peak_of(torch.cuda.get_device_name(device))
    return Utilisation(model_of(model), ranks * peak if peak else None)


def peak_of(device: str) -> float | None:
    """Operations per second of a device by the name that its driver reports; None for one that is not in the table."""
    return next((peak for name, peak in PEAKS.items() if name in device), None)

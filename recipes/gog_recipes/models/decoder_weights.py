"""The weights of a decoder layer as the sampling decoder uses them: the trainer's own, without a second copy.

A linear is read through the trainer's tensors, and its adapter is computed beside it, in the adapter's own precision.
A quantized one is unpacked at each use. What is neither a linear nor a gated MLP (experts) is the trainer's own module,
called as it is.

Two exceptions hold copies. Of a small model, copies of queries, keys and values side by side, and of gate and up, save
more time than they cost bytes; there the adapter is folded into float32 weights, so sampling costs what the base model
costs. Into weights of lower precision it must not be folded: an update of RL is smaller than the gap between two
bfloat16 numbers, and most of it would be rounded away. There B stays beside the weights as further columns, and A's
output is appended to the input. And a layer that is sharded over ranks is copied whole.

Shapes: h hidden size, H query heads, K key-value heads, d head size, r rank of the adapters of a fused linear, all
together.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from peft.tuners.lora import LoraLayer
from torch.func import functional_call

from gog_recipes.models import lora_linear, nf4
from gog_recipes.runtime import parallel

FUSED_BYTES = 64 * 2**20
"""Bytes of all decoder layers up to which copies are fused."""

Function = Callable[[torch.Tensor], torch.Tensor]
"""[…, in] -> […, out]."""
Keep = Callable[[torch.Tensor], torch.Tensor]
"""What is kept of a weight: itself, or a copy where it is sharded and will be gone."""


@dataclass(frozen=True)
class Layer:
    """A decoder layer."""

    norm1: torch.Tensor
    """[h] of the norm before attention."""
    qkv: Function
    """h -> (H + 2K) · d: queries, keys, values."""
    qk_norm: torch.Tensor | None
    """[H + K, d] of the norms of queries and keys, in models that have them."""
    out: Function
    """H · d -> h."""
    norm2: torch.Tensor
    """[h] of the norm before the MLP."""
    mlp: Function
    """h -> h."""


def layer(module: Any, *, fused: bool) -> Layer:
    """The weights of a transformers decoder layer, with or without adapters. All ranks at once where it is sharded.

    Args:
        module: with `self_attn`, `mlp` and two norms, named as Qwen's are
        fused: whether copies are made that are faster
    """
    attention = module.self_attn
    with parallel.whole(module):
        keep: Keep = torch.Tensor.clone if parallel.is_sharded(module) else torch.Tensor.detach
        projections = (attention.q_proj, attention.k_proj, attention.v_proj)
        return Layer(
            norm1=keep(module.input_layernorm.weight.detach()),
            qkv=_joined(projections, keep, fused=fused),
            qk_norm=_qk_norm(attention),
            out=_joined((attention.o_proj,), keep, fused=fused),
            norm2=keep(module.post_attention_layernorm.weight.detach()),
            mlp=_mlp(module.mlp, keep, fused=fused),
        )


def _qk_norm(attention: Any) -> torch.Tensor | None:
    if getattr(attention, "q_norm", None) is None:
        return None
    d = attention.head_dim
    heads, kv_heads = (attention.config.num_attention_heads, attention.config.num_key_value_heads)
    norms = attention.q_norm.weight.detach().expand(heads, d), attention.k_norm.weight.detach().expand(kv_heads, d)
    return torch.cat(norms)


def _mlp(module: Any, keep: Keep, *, fused: bool) -> Function:
    if not hasattr(module, "gate_proj"):
        return _module(module, keep)
    gate_up = _joined((module.gate_proj, module.up_proj), keep, fused=fused)
    return GatedMLP(gate_up, _joined((module.down_proj,), keep, fused=fused))


def _joined(modules: Sequence[Any], keep: Keep, *, fused: bool) -> Function:
    """Linears of the same input as one function."""
    if fused and all(type(_base(each)) is torch.nn.Linear for each in modules):
        return fuse(*modules)
    parts = tuple(linear(each, keep) for each in modules)
    return parts[0] if len(parts) == 1 else SideBySide(parts)


@dataclass(frozen=True)
class GatedMLP:
    """Down of silu(gate) times up."""

    gate_up: Function
    """h -> 2 · intermediate size."""
    down: Function
    """intermediate size -> h."""

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """[…, h] -> […, h]."""
        gate, up = self.gate_up(x).chunk(2, -1)
        return self.down(F.silu(gate) * up)


@dataclass(frozen=True)
class SideBySide:
    """Functions of the same input, their outputs one after the other."""

    parts: tuple[Function, ...]
    """In the order of the outputs."""

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """[…, in] -> […, sum of the outputs' sizes]."""
        return torch.cat([part(x) for part in self.parts], -1)


@dataclass(frozen=True)
class AdaptedLinear:
    """A linear with its adapters beside it, each computed in its own precision.

    The update enters the product of the weights as its first summand. Added to the rounded product, most of it would be
    rounded away: outputs of bfloat16 are a grid, and an update of RL is smaller than half of its spacing.
    """

    weight: torch.Tensor | nf4.Packed
    """[out, in]."""
    bias: torch.Tensor | None
    """[out]."""
    adapters: tuple[lora_linear.Adapter, ...]
    """Those that take part."""

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """[…, in] -> […, out]."""
        return lora_linear.linear(x, self.weight, self.bias, self.adapters)


@dataclass(frozen=True)
class Copied:
    """A trainer's module with copies of its parameters."""

    module: torch.nn.Module
    """Whose code is run."""
    tensors: dict[str, torch.Tensor]
    """Its parameters and buffers by name."""

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """The module's output."""
        return functional_call(self.module, self.tensors, (x,))


def linear(module: Any, keep: Keep = torch.Tensor.detach) -> Function:
    """A linear as it is trained.

    Args:
        module: torch.nn.Linear, quantized or not, or peft's LoraLayer around one, which are read through their tensors;
            any other module is called
        keep: what is kept of each tensor; of a quantized weight the weight itself, which is whole on every rank
    """
    base = _base(module)
    if type(base) not in (torch.nn.Linear, nf4.Linear):
        return _module(module, keep)
    weight = nf4.weight_of(base)
    if isinstance(weight, torch.Tensor):
        weight = keep(weight.detach())
    adapters = tuple(
        lora_linear.Adapter(
            keep(module.lora_A[name].weight.detach()), keep(module.lora_B[name].weight.detach()), factor
        )
        for name in _active(module)
        if (factor := module.scaling[name])
    )
    return AdaptedLinear(weight, None if base.bias is None else keep(base.bias.detach()), adapters)


def _module(module: torch.nn.Module, keep: Keep) -> Function:
    if keep is torch.Tensor.detach:
        return module
    kept = {name: keep(each.detach()) for name, each in module.named_parameters()}
    return Copied(module, kept | dict(module.named_buffers()))  # buffers are whole on every rank


@dataclass(frozen=True)
class FusedLinear:
    """One or more linears of the same input, side by side."""

    weight: torch.Tensor
    """[out, in], with the adapters folded in; or [out, in + r], with their scaled B as the last r columns, each in the
    rows of its own linear. In the order of `by_input`."""
    bias: torch.Tensor | None
    """[out]."""
    down: torch.Tensor | None = None
    """[r, in] float32: the adapters' A, where they are not folded in."""

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """[…, in] -> […, out]."""
        if self.down is not None:
            x = torch.cat((x, F.linear(x.to(self.down.dtype), self.down).to(x.dtype)), -1)
        return F.linear(x, self.weight, self.bias)


def fuse(*linears: Any) -> FusedLinear:
    """Linears of the same input, with or without LoRA adapters, as one.

    Args:
        linears: torch.nn.Linear, or peft's LoraLayer around one; all with a bias, or none.
    """
    weights, biases, downs, ups = [], [], [], []
    for each in linears:
        base = _base(each)
        weight, adapters = base.weight.detach(), _active(each)
        if weight.dtype.itemsize >= 4:
            weight = sum((each.get_delta_weight(name).detach() for name in adapters), weight)
            adapters = ()
        weights.append(weight)
        biases.append(None if base.bias is None else base.bias.detach())
        downs.append([each.lora_A[name].weight.detach().float() for name in adapters])
        ups.append([each.lora_B[name].weight.detach().float() * each.scaling[name] for name in adapters])
    bias = None if biases[0] is None else torch.cat(biases)
    whole = torch.cat(weights) if len(weights) > 1 else weights[0]
    if not any(downs):
        return FusedLinear(by_input(whole), bias)
    # Each linear's own adapters beside each other, and those of different linears in different rows and columns.
    blocks = [torch.cat(own, 1) if own else weight.new_zeros((len(weight), 0)) for own, weight in zip(ups, weights)]
    up = torch.block_diag(*(block.float() for block in blocks)).to(weights[0].dtype)
    down = torch.cat([each for own in downs for each in own])
    return FusedLinear(by_input(torch.cat((whole, up), 1)), bias, down)


def by_input(weight: torch.Tensor) -> torch.Tensor:
    """A copy of a weight [out, in] whose memory is ordered by input first.

    A product with few rows, as of a decode step, is limited by how fast the weight can be read, and reads this order in
    two thirds of the time.
    """
    copied = torch.empty(weight.shape[::-1], dtype=weight.dtype, device=weight.device).t()
    return copied.copy_(weight)


def _base(module: Any) -> Any:
    return module.get_base_layer() if isinstance(module, LoraLayer) else module


def _active(module: Any) -> tuple[str, ...]:
    """Names of the adapters that take part in a linear's output."""
    if not isinstance(module, LoraLayer) or module.disable_adapters:
        return ()
    return tuple(name for name in module.active_adapters if name in module.lora_A)

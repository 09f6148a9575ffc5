"""A linear with LoRA updates beside weights of low precision, rounded once.

PEFT rounds the base product to the type of the weights, adds the update and rounds again. An update of RL is smaller
than half the gap between two such numbers, so the second rounding removes nearly all of it: of updates of 1e-4 and 1e-5
on outputs of 1 in bfloat16, 6 % and 0.7 % pass. Handed to the product as what it is added to, the update meets the
float32 accumulator and 100 % pass on average, at no cost. So training, the engine and the served policy compute what the
trained adapter says.

Adapters stay float32 parameters, and their own product is float32 (PEFT's autocast_adapter_dtype). PEFT keeps a float32
copy of the input of every adapter for the backward pass, at 7B shapes half of what a layer keeps. Here only the input
itself is kept, which linears of the same input share, and it is cast again, some rows at a time.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from peft.tuners import lora
from torch.autograd.function import once_differentiable

from gog_recipes.models import nf4

CAST_BYTES = 64 * 2**20
"""Bytes of inputs, updates or gradients that are cast at a time."""


@dataclass(frozen=True)
class Adapter:
    """A LoRA update, as PEFT computes it."""

    a: torch.Tensor
    """[r, in]."""
    b: torch.Tensor
    """[out, r]."""
    scaling: float
    """Factor of the update."""

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """[..., in] of any floating-point type -> the update [..., out] in the adapter's."""
        return F.linear(F.linear(x.to(self.a.dtype), self.a), self.b) * self.scaling


def linear(
    x: torch.Tensor, weight: torch.Tensor | nf4.Packed, bias: torch.Tensor | None, adapters: Sequence[Adapter]
) -> torch.Tensor:
    """x · weightᵀ + updates + bias, rounded as `adapted` rounds.

    Args:
        x: [..., in], of the type of the weights
        weight: [out, in], frozen; a packed one is unpacked for each product
        bias: [out], frozen
        adapters: those that take part

    Returns:
        [..., out] of the type of the weights. Autograd keeps x, and nothing else that has a row per token.
    """
    if not adapters:
        return F.linear(x, nf4.whole(weight), bias)
    if isinstance(weight, torch.Tensor) and weight.dtype.itemsize >= 4:
        return adapted(x, weight, bias, sum((each(x) for each in adapters), torch.zeros((), device=x.device)))
    factors = tuple(each.scaling for each in adapters)
    pairs = [tensor for each in adapters for tensor in (each.a, each.b)]
    flat: torch.Tensor = _Product.apply(x.flatten(0, -2), weight, bias, factors, *pairs)
    return flat.view(*x.shape[:-1], len(weight))


class _Product(torch.autograd.Function):
    """x · weightᵀ + updates + bias, for a weight of low precision or a packed one: [n, in] -> [n, out]."""

    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        given: torch.Tensor | nf4.Packed,
        bias: torch.Tensor | None,
        factors: tuple[float, ...],
        *pairs: torch.Tensor,
    ) -> torch.Tensor:
        ctx.packed = given if isinstance(given, nf4.Packed) else None
        ctx.save_for_backward(x, *pairs, *([given] if isinstance(given, torch.Tensor) else []))
        ctx.factors = factors
        weight = nf4.whole(given)
        adapters = _adapters(pairs, factors)
        out = x.new_empty(len(x), len(weight))
        for rows in _rows(weight, len(x)):
            update = sum((each(x[rows]) for each in adapters), torch.zeros((), device=x.device))
            out[rows] = update if bias is None else _sum(x[rows], weight, bias, update)
        return out.addmm_(x, weight.t()) if bias is None else out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, *pairs = ctx.saved_tensors
        weight = pairs.pop() if ctx.packed is None else ctx.packed.unpack()
        of_x = torch.empty_like(x) if ctx.needs_input_grad[0] else None
        of_pairs = [torch.zeros_like(each) for each in pairs]
        for rows in _rows(weight, len(x)):
            update = torch.zeros((), device=x.device)
            for index, each in enumerate(_adapters(pairs, ctx.factors)):
                own, above = x[rows].to(each.a.dtype), gradient[rows].to(each.a.dtype)
                inner = above @ each.b * each.scaling
                of_pairs[2 * index].addmm_(inner.t(), own)
                of_pairs[2 * index + 1].addmm_(above.t(), F.linear(own, each.a), alpha=each.scaling)
                del own, above
                if of_x is not None:
                    update = update + inner @ each.a
            if of_x is not None:
                of_x[rows] = update
        if of_x is not None:
            of_x.addmm_(gradient, weight)
        return of_x, None, None, None, *of_pairs


def _sum(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, update: torch.Tensor) -> torch.Tensor:
    """x · weightᵀ + bias + update in float32: [n, in] -> [n, out].

    A product takes one summand. With two of them, one would have to be added to what is rounded already, or both
    rounded together first, which removes an update that is small beside the bias.
    """
    if x.is_cuda:
        product = torch.mm(x, weight.t(), out_dtype=torch.float32)
    else:
        product = torch.mm(x.float(), weight.t().float())
    return product.add_(bias).add_(update)


def _adapters(pairs: Sequence[torch.Tensor], factors: Sequence[float]) -> list[Adapter]:
    return [Adapter(a, b, factor) for a, b, factor in zip(pairs[::2], pairs[1::2], factors, strict=True)]


def _rows(weight: torch.Tensor, n: int) -> Iterator[slice]:
    """Slices of n rows, of CAST_BYTES each in float32."""
    step = max(1, CAST_BYTES // (4 * max(weight.shape)))
    return (slice(start, start + step) for start in range(0, n, step))


def adapted(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, update: torch.Tensor) -> torch.Tensor:
    """x · weightᵀ + update + bias.

    Args:
        x: [..., in], of the type of the weights
        weight: [out, in]
        bias: [out]
        update: [..., out] by adapters, of any floating-point type

    Returns:
        [..., out] of the type of the weights; all summands are added before they are rounded.
    """
    if weight.dtype.itemsize >= 4:
        return F.linear(x, weight, bias) + update.to(x.dtype)
    flat, rows = update.flatten(0, -2), x.flatten(0, -2)
    out = (
        torch.addmm(flat.to(x.dtype), rows, weight.t()) if bias is None else _sum(rows, weight, bias, flat).to(x.dtype)
    )
    return out.view(update.shape)


class Linear(lora.Linear):
    """PEFT's LoRA linear with that product."""

    def forward(self, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        """[..., in] -> [..., out]."""
        names = [name for name in self.active_adapters if name in self.lora_A]
        weight, bias = nf4.weight_of(self.base_layer), self.base_layer.bias
        plain = type(self.base_layer) is torch.nn.Linear and self.base_layer.weight.dtype.itemsize < 4
        beside = plain or isinstance(weight, nf4.Packed)
        if self.disable_adapters or self.merged or not names or not beside or args or kwargs or self.lora_variant:
            return super().forward(x, *args, **kwargs)
        if any(self._drops(name) for name in names):
            update = torch.zeros((), device=x.device)
            for name in names:
                own = self._cast_input_dtype(x, self.lora_A[name].weight.dtype)
                update = (
                    update + self.lora_B[name](self.lora_A[name](self.lora_dropout[name](own))) * self.scaling[name]
                )
            return adapted(x, nf4.whole(weight), bias, update)
        # One with a factor of 0 takes part, too: without it the sum would be rounded in another order, and the policy
        # would differ from its reference by more than an update of RL.
        adapters = [Adapter(self.lora_A[name].weight, self.lora_B[name].weight, self.scaling[name]) for name in names]
        return linear(x, weight, bias, adapters)

    def _drops(self, name: str) -> bool:
        """Whether an adapter has dropout now: its input differs from that of the weights, and is kept in float32."""
        return self.training and isinstance(self.lora_dropout[name], torch.nn.Dropout)


def install(model: torch.nn.Module) -> None:
    """Makes every LoRA linear of a model one that rounds once; again is harmless."""
    for module in model.modules():
        if type(module) is lora.Linear:
            module.__class__ = Linear

"""A linear with LoRA updates beside its weights: rounded once, and without passes over its output for the update.

PEFT rounds the base product to the type of the weights, adds the update and rounds again. An update of RL is smaller
than half the gap between two such numbers, so the second rounding removes nearly all of it: of updates of 1e-4 and 1e-5
on outputs of 1 in bfloat16, 6 % and 0.7 % pass. Handed to the product as what it is added to, the update meets the
float32 accumulator and 100 % pass on average, at no cost. So training, the engine and the served policy compute what the
trained adapter says.

PEFT scales and adds updates at the width of the output, each in a pass of its own over memory. Here A carries the scaling,
which is r wide, and B's product accumulates in the output. Linears that read the same input (`SAME_INPUT`) are computed
together, so that their A are one product and their gradients of the input accumulate in one tensor.

Adapters stay float32 parameters, and their own product is float32 (PEFT's autocast_adapter_dtype). PEFT keeps a float32
copy of the input of every adapter for the backward pass, at 7B shapes half of what a layer keeps. Here only the input
itself is kept, which linears of the same input share, and it is cast again, some rows at a time.
"""

from __future__ import annotations

import itertools
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
SAME_INPUT = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"))
"""Names of linears of one module that it calls with the same tensor."""


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
        return F.linear(F.linear(x.to(self.a.dtype), self.a) * self.scaling, self.b)


@dataclass(frozen=True)
class Target:
    """A linear with the adapters that take part."""

    weight: torch.Tensor | nf4.Packed
    """[out, in], frozen; a packed one is unpacked for each product."""
    bias: torch.Tensor | None
    """[out], frozen."""
    adapters: tuple[Adapter, ...]
    """Those that take part."""


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
        [..., out] of the type of the weights. Autograd keeps what it keeps of `linears`.
    """
    if not adapters:
        return F.linear(x, nf4.whole(weight), bias)
    if not _fits(x, weight, adapters):
        return adapted(
            x, nf4.whole(weight), bias, sum((each(x) for each in adapters), torch.zeros((), device=x.device))
        )
    return linears(x, [Target(weight, bias, tuple(adapters))])[0]


def linears(x: torch.Tensor, targets: Sequence[Target]) -> tuple[torch.Tensor, ...]:
    """Each of several linears of the same input, as `linear` computes it.

    Args:
        x: [..., in], of the type of the weights
        targets: with at least one adapter among them, of a type that `_fits`

    Returns:
        [..., out] of each. Autograd keeps x; in float32 also the products of A, which are r wide; nothing else that has a
        row per token.
    """
    pairs = [tensor for target in targets for each in target.adapters for tensor in (each.a, each.b)]
    found = _Products.apply(x.flatten(0, -2), tuple(targets), *pairs)
    return tuple(each.view(*x.shape[:-1], each.shape[-1]) for each in found)


def _fits(x: torch.Tensor, weight: torch.Tensor | nf4.Packed, adapters: Sequence[Adapter]) -> bool:
    """Whether the types are those for which `_Products` is made: all alike, or adapters beside low precision."""
    types = {each.dtype for adapter in adapters for each in (adapter.a, adapter.b)}
    return x.dtype == weight.dtype and (len(types) == 1 if x.dtype.itemsize < 4 else types == {x.dtype})


class _Products(torch.autograd.Function):
    """x · weightᵀ + updates + bias of several linears: [n, in] -> [n, out] each."""

    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, targets: tuple[Target, ...], *pairs: torch.Tensor
    ) -> tuple[torch.Tensor, ...]:
        ctx.factors = tuple(tuple(each.scaling for each in target.adapters) for target in targets)
        ctx.packed = tuple(None if isinstance(target.weight, torch.Tensor) else target.weight for target in targets)
        ctx.widest = max(size for target in targets for size in target.weight.shape)
        down, columns = _down(pairs, ctx.factors)
        inner = _inner(x, down, ctx.widest)
        low = x.dtype.itemsize < 4
        weights = [target.weight for target in targets if isinstance(target.weight, torch.Tensor)]
        ctx.save_for_backward(x, *pairs, *weights, *([] if low else [inner]))
        add = _rounded_once if low else _accumulated
        return tuple(
            add(
                x,
                target,
                [(inner[:, part], each.b) for part, each in zip(own, target.adapters, strict=True)],
                ctx.widest,
            )
            for own, target in zip(columns, targets, strict=True)
        )

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, *saved = ctx.saved_tensors
        count = 2 * sum(map(len, ctx.factors))
        pairs, weights = saved[:count], iter(saved[count:])
        held = [next(weights) if each is None else each for each in ctx.packed]
        down, columns = _down(pairs, ctx.factors)
        inner = _inner(x, down, ctx.widest) if x.dtype.itemsize < 4 else next(weights)
        of_inner, of_b = _by_inner(gradients, inner, pairs[1::2], columns, ctx.widest)
        of_x = torch.empty_like(x) if ctx.needs_input_grad[0] else None
        of_down = torch.zeros_like(down)
        for rows in _rows(ctx.widest, len(x)):
            of_down.addmm_(of_inner[rows].t(), x[rows].to(down.dtype))
            if of_x is not None and x.dtype == down.dtype:
                torch.mm(of_inner[rows], down, out=of_x[rows])
            elif of_x is not None:
                of_x[rows] = of_inner[rows] @ down
        if of_x is not None:
            for gradient, weight in zip(gradients, held, strict=True):
                of_x.addmm_(gradient, nf4.whole(weight))
        scales = [factor for own in ctx.factors for factor in own]
        of_a = [part * scale for part, scale in zip(of_down.split([len(a) for a in pairs[::2]]), scales, strict=True)]
        return of_x, None, *(each for pair in zip(of_a, of_b, strict=True) for each in pair)


def _down(pairs: Sequence[torch.Tensor], factors: Sequence[Sequence[float]]) -> tuple[torch.Tensor, list[list[slice]]]:
    """All A below each other, scaled [R, in], and which of these R belong to each adapter of each linear."""
    scales = [factor for own in factors for factor in own]
    down = torch.cat([a * scale for a, scale in zip(pairs[::2], scales, strict=True)])
    ends = [0, *itertools.accumulate(len(a) for a in pairs[::2])]
    parts = iter(slice(start, end) for start, end in itertools.pairwise(ends))
    return down, [[next(parts) for _ in own] for own in factors]


def _inner(x: torch.Tensor, down: torch.Tensor, widest: int) -> torch.Tensor:
    """x · downᵀ [n, R] in the type of the adapters."""
    if x.dtype == down.dtype:
        return x @ down.t()
    out = torch.empty(len(x), len(down), dtype=down.dtype, device=x.device)
    for rows in _rows(widest, len(x)):
        out[rows] = x[rows].to(down.dtype) @ down.t()
    return out


def _by_inner(
    gradients: Sequence[torch.Tensor],
    inner: torch.Tensor,
    ups: Sequence[torch.Tensor],
    columns: Sequence[Sequence[slice]],
    widest: int,
) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Gradients of the products of A [n, R], and of every B."""
    of_inner, of_b = torch.empty_like(inner), [torch.zeros_like(b) for b in ups]
    for gradient, own in zip(gradients, _numbered(columns), strict=True):
        for rows in _rows(widest, len(inner)) if own else ():
            above = gradient[rows].to(inner.dtype)
            for place, part in own:
                of_inner[rows, part] = above @ ups[place]
                of_b[place].addmm_(above.t(), inner[rows, part])
            del above
    return of_inner, of_b


def _numbered(columns: Sequence[Sequence[slice]]) -> list[list[tuple[int, slice]]]:
    """The columns of each linear's adapters, with the place of each adapter among all."""
    places = itertools.count()
    return [[(next(places), part) for part in own] for own in columns]


def _accumulated(
    x: torch.Tensor, target: Target, updates: Sequence[tuple[torch.Tensor, torch.Tensor]], widest: int
) -> torch.Tensor:
    """The linear of [n, in] with its updates, pairs of A's products [n, r] and B, in float32 or float64."""
    out = F.linear(x, nf4.whole(target.weight), target.bias)
    for inner, b in updates:
        out.addmm_(inner, b.t())
    return out


def _rounded_once(
    x: torch.Tensor, target: Target, updates: Sequence[tuple[torch.Tensor, torch.Tensor]], widest: int
) -> torch.Tensor:
    """The same in low precision: the update is what the product is added to. widest: in and out sizes at most."""
    weight, bias = nf4.whole(target.weight), target.bias
    if not updates:
        return F.linear(x, weight, bias)
    out = x.new_empty(len(x), len(weight))
    for rows in _rows(widest, len(x)):
        (inner, b), *more = updates
        update = inner[rows] @ b.t()
        for inner, b in more:
            update.addmm_(inner[rows], b.t())
        out[rows] = update if bias is None else _sum(x[rows], weight, bias, update)
    return out.addmm_(x, weight.t()) if bias is None else out


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


def _rows(widest: int, n: int) -> Iterator[slice]:
    """Slices of n rows, of CAST_BYTES each in float32 where a row has `widest` elements."""
    step = max(1, CAST_BYTES // (4 * widest))
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

    group: Group | None = None
    """The linears of the same input."""

    def forward(self, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        """[..., in] -> [..., out]."""
        if args or kwargs or self.lora_variant or not (target := self.target(x)):
            return super().forward(x, *args, **kwargs)
        if any(self._drops(name) for name in self._names()):
            return self._with_dropout(x)
        together = self.group.output(self, x) if self.group else None
        return linears(x, [target])[0] if together is None else together

    def target(self, x: torch.Tensor) -> Target | None:
        """What is computed of an input; None where it is left to PEFT, as without adapters."""
        names = self._names()
        if (
            self.disable_adapters
            or self.merged
            or not names
            or type(self.base_layer) not in (torch.nn.Linear, nf4.Linear)
        ):
            return None
        # One with a factor of 0 takes part, too: without it the sum would be rounded in another order, and the policy
        # would differ from its reference by more than an update of RL.
        adapters = tuple(
            Adapter(self.lora_A[name].weight, self.lora_B[name].weight, self.scaling[name]) for name in names
        )
        weight = nf4.weight_of(self.base_layer)
        return Target(weight, self.base_layer.bias, adapters) if _fits(x, weight, adapters) else None

    def joins(self) -> bool:
        """Whether it may be computed together with others now."""
        return not self.lora_variant and not any(self._drops(name) for name in self._names())

    def _names(self) -> list[str]:
        return [name for name in self.active_adapters if name in self.lora_A]

    def _drops(self, name: str) -> bool:
        """Whether an adapter has dropout now: its input differs from that of the weights, and is kept in float32."""
        return self.training and isinstance(self.lora_dropout[name], torch.nn.Dropout)

    def _with_dropout(self, x: torch.Tensor) -> torch.Tensor:
        update = torch.zeros((), device=x.device)
        for name in self._names():
            own = self._cast_input_dtype(x, self.lora_A[name].weight.dtype)
            update = update + self.lora_B[name](self.lora_A[name](self.lora_dropout[name](own))) * self.scaling[name]
        return adapted(x, nf4.whole(nf4.weight_of(self.base_layer)), self.base_layer.bias, update)


class Group:
    """Linears that their module calls one after the other with the same tensor; the first call computes all of them.

    Args:
        members: the linears
    """

    def __init__(self, members: Sequence[Linear]) -> None:
        self.members = tuple(members)
        self._input: torch.Tensor | None = None
        self._waiting: dict[int, torch.Tensor] = {}

    def output(self, member: Linear, x: torch.Tensor) -> torch.Tensor | None:
        """[..., out] of a member for its input; None where they cannot be computed together."""
        place = next(place for place, each in enumerate(self.members) if each is member)
        if self._input is not x or place not in self._waiting:
            self._forget()
            targets = [each.target(x) if each.joins() else None for each in self.members]
            whole = [target for target in targets if target is not None]
            if len(whole) < len(targets):
                return None
            self._input, self._waiting = x, dict(enumerate(linears(x, whole)))
        found = self._waiting.pop(place)
        if not self._waiting:
            self._forget()
        return found

    def _forget(self) -> None:
        self._input, self._waiting = None, {}


def install(model: torch.nn.Module) -> None:
    """Makes every LoRA linear of a model one that computes as above; again is harmless."""
    for module in model.modules():
        if type(module) is lora.Linear:
            module.__class__ = Linear
    for module in model.modules():
        for names in SAME_INPUT:
            members = [getattr(module, name, None) for name in names]
            if all(type(each) is Linear for each in members):
                group = Group([each for each in members if isinstance(each, Linear)])
                for each in group.members:
                    each.group = group

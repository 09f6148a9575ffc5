"""Attention of conversations that share their prompt: its keys are read once for all of them and never copied.

A token of a conversation sees the whole prefix and, causally, its own conversation. Both parts are computed by torch's
attention kernels by themselves and merged by their log-sum-exp, which is exact:

    out = Σ out_i · exp(lse_i - lse),   lse = log Σ exp(lse_i)

The backward pass of such a kernel takes probabilities to be exp(score - lse) and needs the row sums of gradient times
output only. Given the merged output and the merged lse it returns that part's share of the true gradients, so it is
exact as well. All conversations of a tree are neighbours, so their queries are one slice and meet the prefix in one call;
the gradients of the prefix's keys and values are summed over conversations inside the kernel.

Where torch has no such kernel that can be called by itself (CUDA in float32 or before Ampere) each conversation attends to a
copy of the prefix before its own keys, under a mask.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch.autograd.function import once_differentiable
from torch.nn.attention import varlen
from transformers.integrations.sdpa_attention import repeat_kv

from gog_recipes.models import packing

CAUSAL, FULL = [-1, 0], [-1, -1]
"""Windows of the kernel for sequences of varying length."""
assert varlen.varlen_attn  # its import registers torch.ops.torch_attn


def attend(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    layout: Sequence[packing.Tree],
    scaling: float | None,
) -> torch.Tensor:
    """Attention of one packed row of n tokens.

    Args:
        query: [1, heads, n, d]
        key: [1, key-value heads, n, d]
        value: as key
        layout: the conversations in the row, whose tokens sum to n
        scaling: of the products; None for 1 / sqrt(d)

    Returns:
        [1, n, heads, d].
    """
    if query.is_cuda and not has_kernel(query):
        return _masked(query, key, value, layout, scaling)
    if not query.is_cuda:  # the CPU kernel would repeat them anyway, once per call
        groups = query.shape[1] // key.shape[1]
        key, value = repeat_kv(key, groups), repeat_kv(value, groups)
    found: torch.Tensor = _Merged.apply(query, key, value, _parts(layout), scaling)
    return found


def has_kernel(query: torch.Tensor) -> bool:
    """Whether torch has a CUDA kernel for sequences of varying length."""
    half = query.dtype in (torch.float16, torch.bfloat16)
    return query.is_cuda and half and torch.cuda.get_device_capability(query.device) >= (8, 0)


@dataclass(frozen=True)
class Part:
    """Some pairs of queries and keys that one call computes."""

    queries: slice
    """Tokens of the row."""
    keys: slice
    """Tokens of the row."""
    lengths: tuple[tuple[int, ...], tuple[int, ...]]
    """Queries and keys of each sequence; the n-th queries meet the n-th keys only."""
    causal: bool
    """Whether a query sees keys up to its own place only."""


def _parts(layout: Sequence[packing.Tree]) -> list[Part]:
    """Every piece by itself, which comes first and covers all queries; then the conversations of a tree with its prefix."""
    pieces = tuple(piece for tree in layout for piece in tree.pieces)
    parts = [Part(slice(0, sum(pieces)), slice(0, sum(pieces)), (pieces, pieces), causal=True)]
    start = 0
    for tree in layout:
        middle, end = start + tree.prefix, start + tree.tokens
        if tree.prefix:
            lengths = (end - middle,), (tree.prefix,)
            parts.append(Part(slice(middle, end), slice(start, middle), lengths, causal=False))
        start = end
    return parts


class _Merged(torch.autograd.Function):
    """q, k, v [1, heads, n, d] -> [1, n, heads, d]."""

    @staticmethod
    def forward(
        ctx: Any, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, parts: list[Part], scaling: float | None
    ) -> torch.Tensor:
        kernel = _cuda if q.is_cuda else _cpu
        out, lse = kernel(q, k, v, parts[0], scaling)
        for part in parts[1:]:
            own, sums = out[:, :, part.queries], lse[:, :, part.queries]
            other, more = kernel(q[:, :, part.queries], k[:, :, part.keys], v[:, :, part.keys], part, scaling)
            total = torch.logaddexp(sums, more)
            merged = own * (sums - total).exp_()[..., None] + other * (more - total).exp_()[..., None]
            own.copy_(merged)
            sums.copy_(total)
        ctx.save_for_backward(q, k, v, out, lse)
        ctx.parts, ctx.scaling = parts, scaling
        return out.transpose(1, 2).contiguous()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        q, k, v, out, lse = ctx.saved_tensors
        kernel = _cuda_backward if q.is_cuda else _cpu_backward
        gradient = gradient.transpose(1, 2)
        of_q, of_k, of_v = kernel(gradient, q, k, v, out, lse, ctx.parts[0], ctx.scaling)
        for part in ctx.parts[1:]:
            above, own, found, sums = (each[:, :, part.queries] for each in (gradient, q, out, lse))
            keys, values = k[:, :, part.keys], v[:, :, part.keys]
            more = kernel(above, own, keys, values, found, sums, part, ctx.scaling)
            of_q[:, :, part.queries] += more[0]
            of_k[:, :, part.keys] += more[1]
            of_v[:, :, part.keys] += more[2]
        return of_q, of_k, of_v, None, None


def _cpu(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, part: Part, scaling: float | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Output [1, heads, queries, d] and log-sum-exp [1, heads, queries] of one part."""
    kernel = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    found = [kernel(*each, 0.0, part.causal, scale=scaling) for each in _sequences(part, (q,), (k, v))]
    outs, sums = zip(*found, strict=True)
    if len(found) == 1:
        return outs[0], sums[0]
    # As the kernel lays them out: [1, queries, heads, d] and [1, queries, heads] in memory.
    return torch.cat([each.transpose(1, 2) for each in outs], 1).transpose(1, 2), torch.cat(
        [each.transpose(1, 2) for each in sums], 1
    ).transpose(1, 2)


def _cpu_backward(
    gradient: torch.Tensor,
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    out: torch.Tensor,
    lse: torch.Tensor,
    part: Part,
    scaling: float | None,
) -> list[torch.Tensor]:
    """Gradients of q, k and v by one part, from the merged output and log-sum-exp."""
    kernel = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward
    found = [
        kernel(g, queries, keys, values, o, sums, 0.0, part.causal, scale=scaling)
        for g, queries, o, sums, keys, values in _sequences(part, (gradient, q, out, lse), (k, v))
    ]
    return list(found[0]) if len(found) == 1 else [torch.cat(each, 2) for each in zip(*found, strict=True)]


def _sequences(
    part: Part, queries: Sequence[torch.Tensor], keys: Sequence[torch.Tensor]
) -> Iterator[tuple[torch.Tensor, ...]]:
    """The tensors of each sequence of a part, in order: those with a row per query, then those with a row per key."""
    split = [each.split(part.lengths[0], 2) for each in queries] + [each.split(part.lengths[1], 2) for each in keys]
    return zip(*split, strict=True)


def _cuda(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, part: Part, scaling: float | None
) -> tuple[torch.Tensor, torch.Tensor]:
    out, lse, _ = torch.ops.torch_attn._varlen_attn(
        *_rows(q, k, v), *_bounds(part, q.device), part.causal, scaling, CAUSAL if part.causal else FULL,
        q.shape[1] != k.shape[1],
    )  # fmt: skip
    return out.transpose(0, 1)[None], lse[None]


def _cuda_backward(
    gradient: torch.Tensor,
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    out: torch.Tensor,
    lse: torch.Tensor,
    part: Part,
    scaling: float | None,
) -> list[torch.Tensor]:
    unused = torch.zeros(2, dtype=torch.uint64, device=q.device)  # state of dropout, of which there is none
    found = torch.ops.torch_attn._varlen_attn_backward(
        *_rows(gradient, q, k, v, out), lse[0].contiguous(), *_bounds(part, q.device), part.causal, unused, scaling,
        CAUSAL if part.causal else FULL,
    )  # fmt: skip
    return [each.transpose(0, 1)[None] for each in found]


def _rows(*tensors: torch.Tensor) -> list[torch.Tensor]:
    """[1, heads, n, d] -> [n, heads, d]."""
    return [each[0].transpose(0, 1).contiguous() for each in tensors]


def _bounds(part: Part, device: torch.device) -> tuple[torch.Tensor, torch.Tensor, int, int]:
    return *(_ends(each, device) for each in part.lengths), *(max(each) for each in part.lengths)


@functools.lru_cache(maxsize=256)
def _ends(lengths: tuple[int, ...], device: torch.device) -> torch.Tensor:
    """Where sequences begin and end [sequences + 1] int32; every layer of a pass asks for the same."""
    return torch.tensor([0, *lengths], device=device).cumsum(0, dtype=torch.int32)


def _masked(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    layout: Sequence[packing.Tree],
    scaling: float | None,
) -> torch.Tensor:
    """`attend` by torch's public function: each conversation with a copy of its prefix."""
    groups = query.shape[1] // key.shape[1]
    pieces = [piece for tree in layout for piece in tree.pieces]
    queries, keys, values = (
        each.split(pieces, 2) for each in (query, repeat_kv(key, groups), repeat_kv(value, groups))
    )
    found: list[torch.Tensor] = []
    for tree in layout:
        first = len(found)
        for place in range(first, first + len(tree.pieces)):
            seen = [first, place] if tree.prefix and place > first else [place]
            k, v = (torch.cat([each[index] for index in seen], 2) for each in (keys, values))
            n, m = queries[place].shape[2], k.shape[2]
            mask = torch.ones(n, m, dtype=torch.bool, device=query.device).tril(m - n)
            found.append(F.scaled_dot_product_attention(queries[place], k, v, attn_mask=mask, scale=scaling))
    return torch.cat(found, 2).transpose(1, 2).contiguous()

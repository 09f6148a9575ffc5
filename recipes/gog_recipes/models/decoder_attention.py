"""Attention of the sampling decoder over the blocks of its cache, planned once per step for all layers.

A step with one new token per conversation reads the blocks where they are: it gives each block its owner's queries,
which are small, instead of bringing keys and values together, which are not. Blocks between them that belong to others
are computed too, and ignored; only where these are more than two thirds, the wanted ones are copied. A step that reads
several tokens per conversation copies what was cached of each into one row, a cost per observation and not per token.

Products of queries and keys are kept in float32, in which the trainer's kernels accumulate them too: rounded to bfloat16,
a product of 50 would be off by a tenth.

Shapes: b conversations of a step, n new tokens each, K key-value heads, G queries per key-value head, d head size,
T tokens of a block, m blocks of the longest conversation, P blocks that are read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F

from gog_recipes.models.kv_cache import Blocks, KVCache

DENSE = 3
"""Blocks of others are read along as long as no more than so many are read for each wanted one."""


class Attention(Protocol):
    """Attention of one step, for any layer."""

    def __call__(
        self, keys: torch.Tensor, values: torch.Tensor, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor
    ) -> torch.Tensor:
        """Caches the new keys and values, and attends to all that are cached.

        Args:
            keys: [blocks, K, T, d] of the layer's cache, written to
            values: as keys
            q: [b, n, K · G, d], rotated
            k: [b, n, K, d], rotated
            v: [b, n, K, d]

        Returns:
            [b, n, K · G · d].
        """
        ...


def plan(cache: KVCache, rows: Sequence[Blocks], starts: Sequence[int], counts: Sequence[int]) -> Attention:
    """The attention of a step.

    Args:
        cache: that holds the conversations
        rows: blocks of each of the b conversations, reserved for the tokens of the step too
        starts: tokens of each that were cached before
        counts: new tokens of each, at least 1
    """
    return _plan_reading(cache, rows, starts, counts) if max(counts) > 1 else _plan_decoding(cache, rows, starts)


@dataclass(frozen=True)
class Decoding:
    """One new token per conversation."""

    blocks: torch.Tensor
    """[b] block in which each new token is cached."""
    offsets: torch.Tensor
    """[b] its place in the block."""
    pool: slice | torch.Tensor
    """The P blocks that are read: a range, or their numbers [P]."""
    owners: torch.Tensor
    """[P] conversation that each of them belongs to; 0 for blocks of others."""
    table: torch.Tensor
    """[b, m] places of each conversation's blocks among the P; 0 where it has fewer than m."""
    places: torch.Tensor
    """[P] place of each among the b · m entries of `table`; 0 for blocks of others."""
    hidden: torch.Tensor
    """Tokens that are not a conversation's own: [P, 1, 1, tokens of the longest] where m is 1, else [b, 1, 1, m · T]."""
    absent: torch.Tensor
    """[b, m, 1, 1, 1] entries of `table` beyond a conversation's blocks."""

    def __call__(
        self, keys: torch.Tensor, values: torch.Tensor, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor
    ) -> torch.Tensor:
        """See Attention."""
        keys[self.blocks, :, self.offsets] = k[:, 0]
        values[self.blocks, :, self.offsets] = v[:, 0]
        b, (heads, d), kv_heads = len(q), q.shape[2:], k.shape[2]
        length = self.hidden.shape[-1] if self.table.shape[1] == 1 else keys.shape[2]
        queries = q.view(b, kv_heads, heads // kv_heads, d)[self.owners]
        scores = _products(queries, keys[self.pool][:, :, :length]) * d**-0.5
        read = values[self.pool][:, :, :length]
        if self.table.shape[1] == 1:
            weights = scores.masked_fill_(self.hidden, float("-inf")).softmax(-1).to(read.dtype)
            return torch.matmul(weights, read)[self.table[:, 0]].view(b, 1, heads * d)
        rows = scores[self.table].permute(0, 2, 3, 1, 4)  # [b, K, G, m, T]
        weights = rows.flatten(3).masked_fill_(self.hidden, float("-inf")).softmax(-1).view(rows.shape)
        spread = weights.permute(0, 3, 1, 2, 4).flatten(0, 1)[self.places].to(read.dtype)  # [P, K, G, T]
        found = torch.matmul(spread, read)[self.table].masked_fill_(self.absent, 0.0)
        return found.sum(1).view(b, 1, heads * d)


def _plan_decoding(cache: KVCache, rows: Sequence[Blocks], starts: Sequence[int]) -> Decoding:
    used = [own[: start // cache.block + 1] for own, start in zip(rows, starts, strict=True)]
    wanted, m = [block for own in used for block in own], max(map(len, used))
    low, high = min(wanted), max(wanted) + 1
    # A single conversation is always copied, so that its result does not depend on where its blocks lie.
    dense = len(rows) > 1 and high - low <= DENSE * len(wanted)
    numbers = range(low, high) if dense else wanted
    place = {block: index for index, block in enumerate(numbers)}
    owners, places, table, absent = [0] * len(numbers), [0] * len(numbers), [], []
    for row, own in enumerate(used):
        for column, block in enumerate(own):
            owners[place[block]], places[place[block]] = row, row * m + column
        table.append([place[block] for block in own] + [0] * (m - len(own)))
        absent.append([False] * len(own) + [True] * (m - len(own)))
    device = cache.layout.device
    facts = torch.tensor([[own[-1], start % cache.block, start] for own, start in zip(used, starts, strict=True)])
    blocks, offsets, last = facts.to(device).T
    both = torch.tensor([owners, places]).to(device)
    lengths = last[both[0]] if m == 1 else last
    hidden = torch.arange(max(starts) + 1 if m == 1 else m * cache.block, device=device) > lengths[:, None]
    pool = slice(low, high) if dense else torch.tensor(wanted, device=device)
    return Decoding(
        blocks, offsets, pool, both[0], torch.tensor(table, device=device), both[1], hidden[:, None, None],
        torch.tensor(absent, device=device)[:, :, None, None, None],
    )  # fmt: skip


@dataclass(frozen=True)
class Reading:
    """Several new tokens per conversation, padded on the right."""

    blocks: torch.Tensor
    """[real tokens] block in which each is cached."""
    offsets: torch.Tensor
    """[real tokens] its place in the block."""
    real: torch.Tensor
    """[b, n] bool: which tokens are not padding."""
    table: torch.Tensor | None
    """[b, m] blocks of each conversation, 0 where it has fewer than m; None where nothing was cached before."""
    visible: torch.Tensor | None
    """[b, 1, n, tokens of the longest] bool: what each new token sees of its conversation; None where `table` is."""

    def __call__(
        self, keys: torch.Tensor, values: torch.Tensor, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor
    ) -> torch.Tensor:
        """See Attention."""
        keys[self.blocks, :, self.offsets] = k[self.real]
        values[self.blocks, :, self.offsets] = v[self.real]
        if self.table is None or self.visible is None:
            return _sdpa(q, k.transpose(1, 2), v.transpose(1, 2), None)
        length = self.visible.shape[-1]
        own, own_values = (_rows(pool, self.table)[:, :, :length] for pool in (keys, values))
        return _sdpa(q, own, own_values, self.visible)


def _plan_reading(cache: KVCache, rows: Sequence[Blocks], starts: Sequence[int], counts: Sequence[int]) -> Reading:
    device, n, m = cache.layout.device, max(counts), max(map(len, rows))
    own = torch.tensor([blocks + [0] * (m - len(blocks)) for blocks in rows], device=device)
    start, count = torch.tensor([starts, counts], device=device)[:, :, None]
    steps = torch.arange(n, device=device)
    at, real = start + steps, steps < count
    # Beyond its blocks a row has padding only, which is not written.
    blocks = own.gather(1, (at // cache.block).clamp(max=m - 1))[real]
    if not any(starts):
        return Reading(blocks, (at % cache.block)[real], real, None, None)
    total = max(s + c for s, c in zip(starts, counts, strict=True))
    visible = torch.arange(total, device=device) <= at[..., None]
    table = own[:, : cache.blocks_for(total)]
    return Reading(blocks, (at % cache.block)[real], real, table, visible[:, None])


def _rows(pool: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
    """Blocks [b, m] of a pool [blocks, K, T, d] as rows [b, K, m · T, d]."""
    return pool[table].transpose(1, 2).flatten(2, 3)


def _products(q: torch.Tensor, k: torch.Tensor) -> torch.Tensor:
    """[…, G, d] times […, T, d] transposed: float32 […, G, T]."""
    if q.dtype == torch.float32:
        return torch.matmul(q, k.transpose(-1, -2))
    if q.is_cuda:
        flat = torch.bmm(q.flatten(0, 1), k.flatten(0, 1).transpose(-1, -2), out_dtype=torch.float32)
        return flat.unflatten(0, q.shape[:2])
    return torch.matmul(q.float(), k.float().transpose(-1, -2))


def _sdpa(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
    """torch's attention of q [b, n, K · G, d] over k, v [b, K, t, d], causal without a mask [b, 1, n, t]: [b, n, K · G · d]."""
    groups = q.shape[2] // k.shape[1]
    if mask is not None and q.is_cuda:
        # With a mask, CUDA has no kernel for grouped queries but the one that writes out all products.
        k, v, groups = k.repeat_interleave(groups, 1), v.repeat_interleave(groups, 1), 1
    found = F.scaled_dot_product_attention(
        q.transpose(1, 2), k, v, attn_mask=mask, is_causal=mask is None, enable_gqa=groups > 1
    )
    return found.transpose(1, 2).flatten(2)

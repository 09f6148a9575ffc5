"""Attention of a step that reads several tokens per conversation, planned once for all layers.

What was cached of each conversation is copied into one row, a cost per observation and not per token. A prompt that
conversations share is not: on a CPU its blocks meet the queries of all of them where they are (`decoder_parts`), and both
results are merged as in a decode step. Elsewhere that would write out all products, so there it is copied, too.

Shapes as in `decoder_attention`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from gog_recipes.models import decoder_parts as parts
from gog_recipes.models.decoder_parts import Part
from gog_recipes.models.kv_cache import KVCache, Row


def plan(
    cache: KVCache, rows: Sequence[Row], starts: Sequence[int], counts: Sequence[int]
) -> Reading | ReadingBehindPrompts:
    """The attention of a step in which some conversation has several new tokens. Arguments as of `decoder_attention.plan`."""
    own = any(start > row.shared_tokens for row, start in zip(rows, starts, strict=True))
    if own and cache.layout.device.type == "cpu" and all(row.shared is not None for row in rows):
        return _plan_behind_prompts(cache, rows, starts, counts)
    return _plan_reading(cache, rows, starts, counts)


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
    """[b, blocks] of each conversation's prompt and its own, the last one again where it has fewer than others; None where
    nothing was cached before."""
    visible: torch.Tensor
    """[b, 1, n, keys] what each new token sees of these blocks; where there is no `table`, [b, 1, 1, n] what the last one sees
    of the new ones. bool; on a CPU 0 or -inf instead, which its kernel would make of it in every layer."""
    ends: torch.Tensor
    """[b] place of each conversation's last new token."""

    def __call__(
        self, keys: torch.Tensor, values: torch.Tensor, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor
    ) -> torch.Tensor:
        """See Attention."""
        own, own_values = self.cached(keys, values, k, v)
        if self.table is None and q.shape[1] == k.shape[1]:
            return _sdpa(q, own, own_values, None)  # causal
        return _sdpa(q, own, own_values, self.seen_by(q))

    def cached(
        self, keys: torch.Tensor, values: torch.Tensor, k: torch.Tensor, v: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Caches new keys and values, and returns those that are attended to, [b, K, keys, d]. Arguments as of Attention."""
        keys[self.blocks, :, self.offsets] = k[self.real]
        values[self.blocks, :, self.offsets] = v[self.real]
        if self.table is None:
            return k.transpose(1, 2), v.transpose(1, 2)
        length = self.visible.shape[-1]
        own, own_values = (_rows(pool, self.table)[:, :, :length] for pool in (keys, values))
        return own, own_values

    def seen_by(self, q: torch.Tensor) -> torch.Tensor:
        """What queries [b, n, …] see; or [b, 1, …] of the last new token of each."""
        if q.shape[1] == self.visible.shape[2]:
            return self.visible
        return self.visible[torch.arange(len(q), device=q.device), :, self.ends][:, :, None]


@dataclass(frozen=True)
class ReadingBehindPrompts:
    """Several new tokens per conversation, each behind a shared prompt whose keys are read once for all of them."""

    own: Reading
    """Of the conversations' own blocks."""
    prompts: Part
    """The prompts."""
    pieces: torch.Tensor
    """[b, m] places of what each conversation found in its prompt; its first one again where it has fewer than m."""
    absent: torch.Tensor
    """[b, m] which of them are such repetitions."""

    def __call__(
        self, keys: torch.Tensor, values: torch.Tensor, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor
    ) -> torch.Tensor:
        """See Attention."""
        (b, n, heads, d), kv_heads = q.shape, k.shape[2]
        groups = heads // kv_heads
        queries = q.view(b, n, kv_heads, groups, d).transpose(1, 2).reshape(b, kv_heads, n * groups, d)
        found, sums = parts.attend_blocks(
            queries, *self.own.cached(keys, values, k, v), self.own.seen_by(q).repeat_interleave(groups, 2)
        )
        more, more_sums = self.prompts(queries, keys, values)
        several = more_sums[self.pieces].masked_fill_(self.absent[..., None, None], float("-inf"))
        weights = torch.cat((sums[:, None], several), 1).softmax(1)[..., None].to(q.dtype)
        merged = found * weights[:, 0] + (more[self.pieces] * weights[:, 1:]).sum(1)
        return merged.view(b, kv_heads, n, groups, d).transpose(1, 2).reshape(b, n, heads * d)


def _plan_behind_prompts(
    cache: KVCache, rows: Sequence[Row], starts: Sequence[int], counts: Sequence[int]
) -> ReadingBehindPrompts:
    """The attention of a step whose conversations all have a shared prompt."""
    after = [start - row.shared_tokens for row, start in zip(rows, starts, strict=True)]
    own = _plan_reading(cache, [Row(row.blocks) for row in rows], after, counts)
    part, found, _ = parts.part_of(cache, parts.prompts_of(rows), dense=len(rows) > 1)
    pieces = [[place for reader, place in found if reader == number] for number in range(len(rows))]
    return ReadingBehindPrompts(own, part, *(each.to(cache.layout.device) for each in parts.filled(pieces)))


def _plan_reading(cache: KVCache, rows: Sequence[Row], starts: Sequence[int], counts: Sequence[int]) -> Reading:
    device, n, m = cache.layout.device, max(counts), max(len(row.blocks) for row in rows)
    own = torch.tensor([row.blocks + [0] * (m - len(row.blocks)) for row in rows], device=device)
    facts = [
        (start - row.shared_tokens, count, row.shared_tokens, len(row.shared_blocks) * cache.block)
        for row, start, count in zip(rows, starts, counts, strict=True)
    ]
    start, count, shared, first = torch.tensor(facts, device=device).T[:, :, None]
    steps = torch.arange(n, device=device)
    at, real = start + steps, steps < count
    # Beyond its blocks a row has padding only, which is not written.
    blocks = own.gather(1, (at // cache.block).clamp(max=m - 1))[real]
    offsets, ends = (at % cache.block)[real], count[:, 0] - 1
    if not any(starts):
        return Reading(blocks, offsets, real, None, _mask(real[:, None, None], cache), ends)
    total = max(begin + start + count for start, count, _, begin in facts)
    listed = [[*row.shared_blocks, *row.blocks][: cache.blocks_for(total)] for row in rows]
    widest = max(map(len, listed))
    # Repeated are blocks of its own, because what is hidden is multiplied by 0, and a NaN of another would remain one.
    table = torch.tensor([each + each[-1:] * (widest - len(each)) for each in listed], device=device)
    key = torch.arange(total, device=device)
    visible = (key < shared)[:, None] | (key >= first)[:, None] & (key <= (first + at)[..., None])
    return Reading(blocks, offsets, real, table, _mask(visible[:, None], cache), ends)


def _mask(visible: torch.Tensor, cache: KVCache) -> torch.Tensor:
    if visible.device.type != "cpu":
        return visible
    hidden = torch.zeros(visible.shape, dtype=cache.layout.dtype)
    return hidden.masked_fill_(~visible, float("-inf"))


def _rows(pool: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
    """Blocks [b, m] of a pool [blocks, K, T, d] as rows [b, K, m · T, d]."""
    return pool[table].transpose(1, 2).flatten(2, 3)


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

"""Attention of the sampling decoder over the blocks of its cache, planned once per step for all layers.

A step with one new token per conversation reads the blocks where they are: it gives each block the queries of its
conversations, which are small, instead of bringing keys and values together, which are not. The block of a prompt gets
those of all conversations of its group in one call, so its keys are read once for all of them. What a query finds in
different blocks is merged by their log-sum-exp, which is exact:

    out = Σ out_i · exp(lse_i - lse),   lse = log Σ exp(lse_i)

Blocks between the wanted ones that belong to others are computed too, and ignored; only where these are more than two
thirds, the wanted ones are copied. A step that reads several tokens per conversation copies what was cached of each into
one row, a cost per observation and not per token.

Products of queries and keys are kept in float32, in which the trainer's kernels accumulate them too: rounded to bfloat16,
a product of 50 would be off by a tenth.

Shapes: b conversations of a step, n new tokens each, K key-value heads, G queries per key-value head, d head size,
T tokens of a block, P blocks that one call reads, R conversations that read each of them, m pieces in which a
conversation is read at most.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F

from gog_recipes.models.kv_cache import KVCache, Row

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


def plan(cache: KVCache, rows: Sequence[Row], starts: Sequence[int], counts: Sequence[int]) -> Attention:
    """The attention of a step.

    Args:
        cache: that holds the conversations
        rows: where the b conversations are cached; blocks are reserved for the tokens of the step too
        starts: tokens of each that were cached before, those of a shared prompt included
        counts: new tokens of each, at least 1
    """
    return _plan_reading(cache, rows, starts, counts) if max(counts) > 1 else _plan_decoding(cache, rows, starts)


@dataclass(frozen=True)
class Part:
    """Blocks that one call reads, and the queries that meet each of them."""

    pool: slice | torch.Tensor
    """The P blocks: a range, or their numbers [P]."""
    readers: torch.Tensor | None
    """[P, R] conversations that read each block, any where it has fewer than R; None where the n-th is read by the n-th."""
    hidden: torch.Tensor
    """[P, 1, 1, tokens of the fullest] 0 for tokens that are seen, -inf for others; float32."""

    def __call__(self, q: torch.Tensor, keys: torch.Tensor, values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """What queries [b, K, G, d] find in each block: [P · R, K, G, d] and log-sum-exp [P · R, K, G]."""
        length = self.hidden.shape[-1]
        k, v = keys[:, :, :length][self.pool], values[:, :, :length][self.pool]
        if self.readers is None:
            return _attend(q, k, v, self.hidden)
        width = self.readers.shape[1]
        out, lse = _attend(q[self.readers].transpose(1, 2).flatten(2, 3), k, v, self.hidden)
        return _by_reader(out, width), _by_reader(lse, width)


def _by_reader(found: torch.Tensor, width: int) -> torch.Tensor:
    """[P, K, R · G, …] -> [P · R, K, G, …]."""
    return found.unflatten(2, (width, -1)).transpose(1, 2).flatten(0, 1)


@dataclass(frozen=True)
class Decoding:
    """One new token per conversation."""

    places: torch.Tensor
    """[b · K] where each new key is cached, among all places of the layer's blocks."""
    parts: tuple[Part, ...]
    """Their own blocks, and those of the prompts that they share."""
    pieces: torch.Tensor
    """[b, m] what is merged for each conversation, counted over the results of all parts; its first one again where it
    has fewer than m."""
    absent: torch.Tensor | None
    """[b, m, 1, 1] which of them are such repetitions; None for none."""
    behind: torch.Tensor | None
    """[b] place of what each found in its prompt among the results of the second part, where every conversation has one
    block of its own, in order, and one of a prompt; None otherwise. That is merged faster."""

    def __call__(
        self, keys: torch.Tensor, values: torch.Tensor, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor
    ) -> torch.Tensor:
        """See Attention."""
        b, (heads, d), kv_heads = len(q), q.shape[2:], k.shape[2]
        for pool, new in ((keys, k), (values, v)):
            pool.view(-1, d).index_copy_(0, self.places, new.reshape(-1, d))
        queries = q.view(b, kv_heads, heads // kv_heads, d)
        found = [part(queries, keys, values) for part in self.parts]
        if self.behind is not None:
            (own, own_sums), (shared, shared_sums) = found
            share = (own_sums - shared_sums[self.behind]).sigmoid_()[..., None]
            merged = torch.lerp(shared[self.behind].float(), own.float(), share)
            return merged.to(q.dtype).view(b, 1, heads * d)
        outs, sums = (torch.cat(each) if len(each) > 1 else each[0] for each in zip(*found, strict=True))
        if self.pieces.shape[1] == 1:
            return outs[self.pieces[:, 0]].view(b, 1, heads * d)
        sums = sums[self.pieces]
        if self.absent is not None:
            sums = sums.masked_fill_(self.absent, float("-inf"))
        return (outs[self.pieces] * sums.softmax(1)[..., None]).sum(1).to(q.dtype).view(b, 1, heads * d)


@dataclass(frozen=True)
class _Run:
    """Blocks that follow each other in a conversation or a prompt."""

    blocks: Sequence[int]
    """Their numbers."""
    tokens: int
    """Cached in them, the new one included."""
    readers: Sequence[int]
    """Conversations of the step that see them."""


def _plan_decoding(cache: KVCache, rows: Sequence[Row], starts: Sequence[int]) -> Decoding:
    counts = [start - row.shared_tokens for row, start in zip(rows, starts, strict=True)]
    own = [
        _Run(row.blocks[: count // cache.block + 1], count + 1, (number,))
        for number, (row, count) in enumerate(zip(rows, counts, strict=True))
    ]
    members: dict[int, list[int]] = {}
    for number, row in enumerate(rows):
        members.setdefault(id(row.shared), []).append(number)
    prompts = [
        _Run(shared.blocks, shared.tokens, group)
        for group in members.values()
        if (shared := rows[group[0]].shared) is not None
    ]
    parts, pieces, offset = [], [list[int]() for _ in rows], 0
    for runs in filter(None, (own, prompts)):
        # A single conversation is always copied, so that its result does not depend on where its blocks lie.
        part, found, size = _part(cache, runs, dense=len(rows) > 1)
        for number, place in found:
            pieces[number].append(offset + place)
        parts.append(part)
        offset += size
    m, device, heads = max(map(len, pieces)), cache.layout.device, cache.layout.kv_heads
    simple = len(parts) == 2 and parts[0].readers is None and all(len(each) == 2 for each in pieces)
    filled = torch.tensor([each + each[:1] * (m - len(each)) for each in pieces])
    absent = torch.arange(m) >= torch.tensor(list(map(len, pieces)))[:, None]
    last = torch.tensor([[run.blocks[-1], count % cache.block] for run, count in zip(own, counts, strict=True)])
    places = (last[:, :1] * heads + torch.arange(heads)) * cache.block + last[:, 1:]
    return Decoding(
        places.flatten().to(device),
        tuple(parts),
        filled.to(device),
        absent[:, :, None, None].to(device) if bool(absent.any()) else None,
        (filled[:, 1] - len(rows)).to(device) if simple else None,
    )


def _part(cache: KVCache, runs: Sequence[_Run], *, dense: bool) -> tuple[Part, list[tuple[int, int]], int]:
    """One call for all blocks of some runs.

    Args:
        cache: that holds them
        runs: at least one; no block is in two of them
        dense: whether blocks of others between them may be read along

    Returns:
        The part; for each conversation and block the conversation and the place of its result; the number of results.
    """
    wanted = [block for run in runs for block in run.blocks]
    low, high = min(wanted), max(wanted) + 1
    dense = dense and high - low <= DENSE * len(wanted)
    place = {block: block - low for block in wanted} if dense else {block: n for n, block in enumerate(wanted)}
    size, width = high - low if dense else len(wanted), max(len(run.readers) for run in runs)
    readers, seen, found = [[0] * width for _ in range(size)], [cache.block] * size, []
    for run in runs:
        for column, block in enumerate(run.blocks):
            at = place[block]
            readers[at][: len(run.readers)] = run.readers
            seen[at] = min(cache.block, run.tokens - column * cache.block)
            found += [(reader, at * width + index) for index, reader in enumerate(run.readers)]
    device = cache.layout.device
    length = max(seen[at] for at in place.values())
    hidden = torch.zeros(size, length).masked_fill_(torch.arange(length) >= torch.tensor(seen)[:, None], float("-inf"))
    in_order = readers == [[number] for number in range(len(runs))]
    return (
        Part(
            slice(low, high) if dense else torch.tensor(wanted, device=device),
            None if in_order else torch.tensor(readers, device=device),
            hidden[:, None, None].to(device),
        ),
        found,
        size * width,
    )


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
    """[b, blocks] of each conversation's prompt and its own, 0 where it has fewer than others; None where nothing was
    cached before."""
    visible: torch.Tensor | None
    """[b, 1, n, tokens of the longest] bool: what each new token sees of these blocks; None where `table` is."""

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
    if not any(starts):
        return Reading(blocks, (at % cache.block)[real], real, None, None)
    total = max(begin + start + count for start, count, _, begin in facts)
    listed = [[*row.shared_blocks, *row.blocks][: cache.blocks_for(total)] for row in rows]
    widest = max(map(len, listed))
    table = torch.tensor([each + [0] * (widest - len(each)) for each in listed], device=device)
    key = torch.arange(total, device=device)
    visible = (key < shared)[:, None] | (key >= first)[:, None] & (key <= (first + at)[..., None])
    return Reading(blocks, (at % cache.block)[real], real, table, visible[:, None])


def _rows(pool: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
    """Blocks [b, m] of a pool [blocks, K, T, d] as rows [b, K, m · T, d]."""
    return pool[table].transpose(1, 2).flatten(2, 3)


def _attend(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, hidden: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """What queries [P, K, Q, d] find in k, v [P, K, t, d]: [P, K, Q, d] and the log-sum-exp [P, K, Q] of the products.

    `hidden` [P, 1, 1, t] is added to the products.
    """
    if q.device.type == "cpu":
        kernel = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
        out, lse = kernel(q, k, v, 0.0, False, attn_mask=hidden)
        return out, lse
    scores = _products(q, k).mul_(q.shape[-1] ** -0.5).add_(hidden)
    sums = scores.logsumexp(-1)
    weights = scores.sub_(sums[..., None]).exp_().to(v.dtype)
    return torch.matmul(weights, v), sums


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

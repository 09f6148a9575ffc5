"""Attention of the sampling decoder over the blocks of its cache, planned once per step for all layers.

A step with one new token per conversation reads the blocks where they are: it gives each block the queries of its
conversations, which are small, instead of bringing keys and values together, which are not. The block of a prompt gets
those of all conversations of its group in one call, so its keys are read once for all of them. What a query finds in
different blocks is merged by their log-sum-exp, which is exact:

    out = Σ out_i · exp(lse_i - lse),   lse = log Σ exp(lse_i)

Blocks between the wanted ones that belong to others are computed too, and ignored; only where these are more than two
thirds, the wanted ones are copied. Steps that read several tokens per conversation: `decoder_reading`.

Shapes: b conversations of a step, n new tokens each, K key-value heads, G queries per key-value head, d head size,
T tokens of a block, P blocks that one call reads, R conversations that read each of them, m pieces in which a
conversation is read at most.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch

from gog_recipes.models import decoder_parts, decoder_reading
from gog_recipes.models.decoder_parts import Part
from gog_recipes.models.kv_cache import KVCache, Row, Shared


class Attention(Protocol):
    """Attention of one step, for any layer."""

    def __call__(
        self, keys: torch.Tensor, values: torch.Tensor, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor
    ) -> torch.Tensor:
        """Caches the new keys and values, and attends to all that are cached.

        Args:
            keys: [blocks, K, T, d] of the layer's cache, written to
            values: as keys
            q: [b, n, K · G, d], rotated; or [b, 1, K · G, d] of the last new token of each, where no other's is wanted
            k: [b, n, K, d], rotated
            v: [b, n, K, d]

        Returns:
            [b, n, K · G · d], or [b, 1, K · G · d].
        """
        ...


class Planner:
    """Plans the steps of one decoder.

    In most steps the conversations of the step before read their next token, so their plan is that one, one place further.
    """

    def __init__(self) -> None:
        self._rows: list[tuple[tuple[int, ...], Shared | None]] = []
        self._starts: list[int] = []
        self._plan: Attention | None = None

    def plan(self, cache: KVCache, rows: Sequence[Row], starts: Sequence[int], counts: Sequence[int]) -> Attention:
        """See the function `plan`."""
        seen = [(tuple(row.blocks), row.shared) for row in rows]
        before, self._rows = self._rows, seen
        goes_on = max(counts) == 1 and [start - 1 for start in starts] == self._starts and seen == before
        self._starts = list(starts)
        if goes_on and isinstance(self._plan, Decoding) and self._plan.fullest + 1 < cache.block:
            self._plan = self._plan.next()
        else:
            self._plan = plan(cache, rows, starts, counts)
        return self._plan


def plan(cache: KVCache, rows: Sequence[Row], starts: Sequence[int], counts: Sequence[int]) -> Attention:
    """The attention of a step.

    Args:
        cache: that holds the conversations
        rows: where the b conversations are cached; blocks are reserved for the tokens of the step too
        starts: tokens of each that were cached before, those of a shared prompt included
        counts: new tokens of each, at least 1
    """
    return decoder_reading.plan(cache, rows, starts, counts) if max(counts) > 1 else _plan_decoding(cache, rows, starts)


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
    newest: tuple[torch.Tensor, torch.Tensor]
    """[b] among the blocks of the first part the one of each new token, and [b] its place in it."""
    fullest: int
    """The highest of these places."""

    def next(self) -> Decoding:
        """The plan of the next step, in which the same conversations have the next token in the same blocks.

        This plan is of no use afterwards.
        """
        (own, *others), (blocks, columns) = self.parts, self.newest
        columns = columns + 1
        own.hidden[blocks, :, :, columns] = 0
        own = dataclasses.replace(own, length=max(own.length, self.fullest + 2))
        return dataclasses.replace(
            self, places=self.places + 1, parts=(own, *others), newest=(blocks, columns), fullest=self.fullest + 1
        )

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


def _plan_decoding(cache: KVCache, rows: Sequence[Row], starts: Sequence[int]) -> Decoding:
    counts = [start - row.shared_tokens for row, start in zip(rows, starts, strict=True)]
    own = [
        decoder_parts.Run(row.blocks[: count // cache.block + 1], count + 1, (number,))
        for number, (row, count) in enumerate(zip(rows, counts, strict=True))
    ]
    prompts = decoder_parts.prompts_of(rows)
    parts, pieces, offset = [], [list[int]() for _ in rows], 0
    for runs in filter(None, (own, prompts)):
        # A single conversation is always copied, so that its result does not depend on where its blocks lie.
        part, found, size = decoder_parts.part_of(cache, runs, dense=len(rows) > 1)
        for number, place in found:
            pieces[number].append(offset + place)
        parts.append(part)
        offset += size
    device, heads = cache.layout.device, cache.layout.kv_heads
    simple = len(parts) == 2 and parts[0].readers is None and all(len(each) == 2 for each in pieces)
    filled, absent = decoder_parts.filled(pieces)
    last = torch.tensor([[run.blocks[-1], count % cache.block] for run, count in zip(own, counts, strict=True)])
    newest = [each[count // cache.block] for each, count in zip(pieces, counts, strict=True)]
    places = (last[:, :1] * heads + torch.arange(heads)) * cache.block + last[:, 1:]
    return Decoding(
        places.flatten().to(device),
        tuple(parts),
        filled.to(device),
        absent[:, :, None, None].to(device) if bool(absent.any()) else None,
        (filled[:, 1] - len(rows)).to(device) if simple else None,
        (torch.tensor(newest).to(device), last[:, 1].to(device)),
        max(count % cache.block for count in counts),
    )

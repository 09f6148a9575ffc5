"""What queries find in blocks of the decoder's cache, by one call for many blocks, and how such results are listed.

Products of queries and keys are kept in float32, in which the trainer's kernels accumulate them too: rounded to bfloat16,
a product of 50 would be off by a tenth.

Shapes as in `decoder_attention`: Q queries that meet a block together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from gog_recipes.models.kv_cache import KVCache, Row

DENSE = 3
"""Blocks of others are read along as long as no more than so many are read for each wanted one."""


@dataclass(frozen=True)
class Part:
    """Blocks that one call reads, and the queries that meet each of them."""

    pool: slice | torch.Tensor
    """The P blocks: a range, or their numbers [P]."""
    readers: torch.Tensor | None
    """[P, R] conversations that read each block, any where it has fewer than R; None where the n-th is read by the n-th."""
    hidden: torch.Tensor
    """[P, 1, 1, T] 0 for tokens that are seen, -inf for others; float32."""
    length: int
    """Tokens that are seen in the fullest block."""

    def __call__(self, q: torch.Tensor, keys: torch.Tensor, values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """What queries [b, K, G, d] find in each block: [P · R, K, G, d] and log-sum-exp [P · R, K, G]."""
        k, v = keys[:, :, : self.length][self.pool], values[:, :, : self.length][self.pool]
        hidden = self.hidden[..., : self.length]
        if self.readers is None:
            return attend_blocks(q, k, v, hidden)
        width = self.readers.shape[1]
        out, lse = attend_blocks(q[self.readers].transpose(1, 2).flatten(2, 3), k, v, hidden)
        return _by_reader(out, width), _by_reader(lse, width)


def _by_reader(found: torch.Tensor, width: int) -> torch.Tensor:
    """[P, K, R · G, …] -> [P · R, K, G, …]."""
    return found.unflatten(2, (width, -1)).transpose(1, 2).flatten(0, 1)


@dataclass(frozen=True)
class Run:
    """Blocks that follow each other in a conversation or a prompt."""

    blocks: Sequence[int]
    """Their numbers."""
    tokens: int
    """Cached in them, the new one included."""
    readers: Sequence[int]
    """Conversations of the step that see them."""


def prompts_of(rows: Sequence[Row]) -> list[Run]:
    """The prompts that conversations share, each with its conversations."""
    members: dict[int, list[int]] = {}
    for number, row in enumerate(rows):
        members.setdefault(id(row.shared), []).append(number)
    shared = [(rows[group[0]].shared, group) for group in members.values()]
    return [Run(prompt.blocks, prompt.tokens, group) for prompt, group in shared if prompt is not None]


def filled(pieces: Sequence[list[int]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Lists of numbers as a table, with their first one again where they are shorter, and where that is."""
    m = max(map(len, pieces))
    absent = torch.arange(m) >= torch.tensor(list(map(len, pieces)))[:, None]
    return torch.tensor([each + each[:1] * (m - len(each)) for each in pieces]), absent


def part_of(cache: KVCache, runs: Sequence[Run], *, dense: bool) -> tuple[Part, list[tuple[int, int]], int]:
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
    places = torch.arange(cache.block)
    hidden = torch.zeros(size, cache.block).masked_fill_(places >= torch.tensor(seen)[:, None], float("-inf"))
    in_order = readers == [[number] for number in range(len(runs))]
    return (
        Part(
            slice(low, high) if dense else torch.tensor(wanted, device=device),
            None if in_order else torch.tensor(readers, device=device),
            hidden[:, None, None].to(device),
            max(seen[at] for at in place.values()),
        ),
        found,
        size * width,
    )


def attend_blocks(
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

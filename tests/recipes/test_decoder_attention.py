"""A conversation with a NaN in the decoder's cache: those beside it and after it are computed without it."""

from __future__ import annotations

import pytest
import torch

from gog_recipes.models import decoder_attention
from gog_recipes.models.kv_cache import Blocks, KVCache, Layout, Row

BLOCK = 4
LAYOUT = Layout(layers=1, kv_heads=2, head_size=8, dtype=torch.float32, device=torch.device("cpu"))
QUERIES = 4
"""Heads of the queries."""


def make_cache() -> KVCache:
    """Blocks of as few tokens as its longest conversation has are small enough for tests."""
    return KVCache(LAYOUT, longest=BLOCK, limit_bytes=64 * BLOCK * LAYOUT.token_bytes)


def tokens(seed: int, count: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Queries, keys and values [1, count, heads, d] of new tokens."""
    generator = torch.Generator().manual_seed(seed)
    q = torch.randn(1, count, QUERIES, LAYOUT.head_size, generator=generator)
    k, v = (torch.randn(1, count, LAYOUT.kv_heads, LAYOUT.head_size, generator=generator) for _ in range(2))
    return q, k, v


def step(cache: KVCache, conversations: list[Blocks], starts: list[int], new: list[tuple]) -> torch.Tensor:
    """One step of the only layer: [b, n, heads · d]. Each conversation gets as many tokens as the others."""
    counts = [each[0].shape[1] for each in new]
    for blocks, start, count in zip(conversations, starts, counts, strict=True):
        assert cache.reserve(blocks, start + count)
    attend = decoder_attention.plan(cache, [Row(blocks) for blocks in conversations], starts, counts)
    return attend(cache.keys[0], cache.values[0], *(torch.cat(each) for each in zip(*new, strict=True)))


def spoil(cache: KVCache, blocks: Blocks) -> None:
    for pool in (*cache.keys, *cache.values):
        pool[blocks] = float("nan")


@pytest.mark.parametrize("count", [1, 3], ids=["decoding", "reading"])
def test_a_conversation_is_the_same_in_blocks_of_one_that_had_a_nan(count: int) -> None:
    found = []
    for spoiled in (False, True):
        cache, before, after = make_cache(), [], []
        cache.reserve(before, 3 * BLOCK)
        if spoiled:
            spoil(cache, before)
        cache.release(before)
        step(cache, [after], [0], [tokens(1, 6)])
        found.append(step(cache, [after], [6], [tokens(2, count)]))
        assert set(after) <= {0, 1, 2}
    assert torch.equal(*found)


@pytest.mark.parametrize("count", [1, 3], ids=["decoding", "reading"])
def test_a_conversation_is_the_same_beside_one_that_has_a_nan(count: int) -> None:
    found = []
    for spoiled in (False, True):
        cache, faulty, long, short = make_cache(), [], [], []
        step(cache, [faulty], [0], [tokens(0, 2)])
        step(cache, [long], [0], [tokens(1, 11)])
        step(cache, [short], [0], [tokens(2, 2)])
        if spoiled:
            spoil(cache, faulty)
        found.append(step(cache, [long, short], [11, 2], [tokens(3, count), tokens(4, count)]))
        assert faulty == [0] and len(long) > len(short), "the shorter one has fewer blocks to read"
    assert torch.equal(*found)

"""The plan of a decode step that continues the one before is the plan that would be made anew."""

from __future__ import annotations

import pytest
import torch

from gog_recipes.models import decoder_attention
from gog_recipes.models.kv_cache import KVCache, Layout, Row, Shared

HEADS, KV_HEADS, SIZE, PROMPT = 4, 2, 8, 300
LAYOUT = Layout(1, KV_HEADS, SIZE, torch.float32, torch.device("cpu"))


def conversations(own: list[int], shared: bool) -> tuple[KVCache, list[Row], list[int]]:
    """A cache of random keys, with conversations of so many own tokens behind a prompt, and the tokens that each has."""
    cache = KVCache(LAYOUT, longest=1024, limit_bytes=64 << 20)
    prompt = Shared([], PROMPT) if shared else None
    if prompt is not None:
        assert cache.reserve(prompt.blocks, PROMPT)
    rows = [Row([], prompt) for _ in own]
    for row, tokens in zip(rows, own, strict=True):
        assert cache.reserve(row.blocks, tokens)
    torch.manual_seed(0)
    cache.keys[0].normal_()
    cache.values[0].normal_()
    return cache, rows, [tokens + (PROMPT if shared else 0) for tokens in own]


def attend(attention: decoder_attention.Attention, cache: KVCache, b: int, step: int) -> torch.Tensor:
    """What random queries of a step find."""
    torch.manual_seed(step)
    q, k, v = (torch.randn(b, 1, heads, SIZE) for heads in (HEADS, KV_HEADS, KV_HEADS))
    return attention(cache.keys[0], cache.values[0], q, k, v)


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("own", [[3, 40, 90], [250, 10, 511], [7]])
def test_a_continued_plan_finds_what_a_new_one_finds(own: list[int], shared: bool) -> None:
    found, continued = [], 0
    for planner in (decoder_attention.Planner(), None):
        cache, rows, starts = conversations(own, shared)
        outs, kept = [], None
        for step in range(10):
            here = [start + step for start in starts]
            for row, start in zip(rows, here, strict=True):
                assert cache.reserve(row.blocks, start + 1 - row.shared_tokens)
            made = (planner.plan if planner else decoder_attention.plan)(cache, rows, here, [1] * len(rows))
            continued += planner is not None and kept is not None and kept.parts[0].hidden is made.parts[0].hidden
            kept = made
            outs.append(attend(made, cache, len(rows), step))
        found.append((torch.stack(outs), cache.keys[0].clone()))
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))
    assert continued >= 7  # of nine steps after the first; a conversation that gets another block is planned anew


def test_a_conversation_that_joins_or_leaves_is_planned_anew() -> None:
    cache, rows, starts = conversations([3, 40, 90], shared=True)
    planner = decoder_attention.Planner()
    planner.plan(cache, rows, starts, [1, 1, 1])
    after = [start + 1 for start in starts]
    fewer = planner.plan(cache, rows[:2], after[:2], [1, 1])
    new = decoder_attention.plan(cache, rows[:2], after[:2], [1, 1])
    assert torch.equal(attend(fewer, cache, 2, 0), attend(new, cache, 2, 0))


@pytest.mark.parametrize("only_last", [False, True])
@pytest.mark.parametrize("own", [[0, 0], [3, 240], [7]])
def test_observations_behind_a_shared_prompt_are_read_as_behind_copies_of_it(own: list[int], only_last: bool) -> None:
    cache, rows, starts = conversations(own, shared=True)
    apart = [Row([]) for _ in rows]
    counts = [20 - 3 * number for number in range(len(rows))]
    for row, copy, start, count in zip(rows, apart, starts, counts, strict=True):
        assert cache.reserve(row.blocks, start + count - PROMPT) and cache.reserve(copy.blocks, start + count)
    for pool in (cache.keys[0], cache.values[0]):
        pool.normal_()
        for row, copy in zip(rows, apart, strict=True):
            held = [pool[blocks].transpose(0, 1).flatten(1, 2) for blocks in (row.shared_blocks, row.blocks)]
            joined = torch.cat((held[0][:, :PROMPT], held[1]), 1)[:, : len(copy.blocks) * cache.block]
            for number, part in enumerate(joined.split(cache.block, 1)):
                pool[copy.blocks[number], :, : part.shape[1]] = part
    b, n = len(rows), max(counts)
    q, k, v = (torch.randn(b, n, heads, SIZE) for heads in (HEADS, KV_HEADS, KV_HEADS))
    q = torch.stack([each[count - 1 : count] for each, count in zip(q, counts, strict=True)]) if only_last else q
    found = [
        decoder_attention.plan(cache, each, starts, counts)(cache.keys[0], cache.values[0], q, k, v)
        for each in (rows, apart)
    ]
    for number, count in enumerate(counts):
        one, other = (each[number, : 1 if only_last else count] for each in found)
        assert torch.allclose(one, other, atol=1e-5)

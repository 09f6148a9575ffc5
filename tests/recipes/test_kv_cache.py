"""The blocks of the key-value cache, and which conversations get them."""

from __future__ import annotations

import numpy as np
import torch

from gog.trajectory import Segment
from gog_recipes.models.kv_cache import BLOCK_TOKENS, FIRST_BLOCKS, KVCache, Layout, Shared
from gog_recipes.rollout import scheduling
from gog_recipes.rollout.slots import Group, Prompt, Slot

LAYOUT = Layout(layers=2, kv_heads=1, head_size=4, dtype=torch.float32, device=torch.device("cpu"))


def cache(blocks: int = 1000) -> KVCache:
    return KVCache(LAYOUT, longest=10_000, limit_bytes=blocks * BLOCK_TOKENS * LAYOUT.token_bytes)


def test_a_cache_takes_no_bytes_before_it_holds_a_token() -> None:
    assert cache().bytes == 0


def test_blocks_are_handed_out_as_a_conversation_grows_and_used_again() -> None:
    made, first, second = cache(), [], []
    assert made.reserve(first, 1) and made.reserve(second, BLOCK_TOKENS + 1) and made.reserve(first, BLOCK_TOKENS)
    assert (first, second) == ([0], [1, 2])
    made.release(first)
    assert first == [] and made.reserve(second, 3 * BLOCK_TOKENS) and second == [1, 2, 0]
    assert made.bytes == FIRST_BLOCKS * BLOCK_TOKENS * LAYOUT.token_bytes


def test_a_cache_never_exceeds_its_bound_and_gives_nothing_rather_than_too_little() -> None:
    made, first, second = cache(blocks=20), [], []
    assert made.reserve(first, 18 * BLOCK_TOKENS)
    assert not made.reserve(second, 3 * BLOCK_TOKENS) and second == []
    assert made.reserve(second, 2 * BLOCK_TOKENS) and made.allocated == 20


def test_growing_keeps_what_is_cached() -> None:
    made, first, second = cache(), [], []
    made.reserve(first, 1)
    for pool in (*made.keys, *made.values):
        pool[first[0]] = 7.0
    made.reserve(second, 2 * FIRST_BLOCKS * BLOCK_TOKENS)
    assert all(bool((pool[first[0]] == 7.0).all()) for pool in (*made.keys, *made.values))


def test_a_block_that_is_used_again_holds_nothing_of_the_conversation_before() -> None:
    made, first, second = cache(), [], []
    made.reserve(first, 2 * BLOCK_TOKENS)
    made.reserve(second, 1)
    for pool in (*made.keys, *made.values):
        pool[[*first, *second]] = float("nan")
    made.release(first)
    assert made.reserve(first, 2 * BLOCK_TOKENS) and first == [0, 1]
    assert all(bool((pool[first] == 0).all()) for pool in (*made.keys, *made.values))
    assert all(bool(pool[second].isnan().all()) for pool in (*made.keys, *made.values)), "one that is in use is kept"


def slot(number: int, tokens: int, *, held: int = 0, made: KVCache | None = None, group: Group | None = None) -> Slot:
    """A conversation with so many pending tokens, `held` of them cached before."""
    made_slot = Slot(number, np.random.default_rng(0), group or Group())
    made_slot.segments = [Segment(source="prompt", tokens=(1,) * (held + tokens))]
    made_slot.pending, made_slot.cached = [1] * tokens, held
    if made is not None and held:
        assert made.reserve(made_slot.blocks, held)
    made_slot.group.slots.append(made_slot)
    return made_slot


def share(made: KVCache, members: list[Slot], tokens: int) -> None:
    """Gives slots of a group their prompt of so many tokens, already in the cache, in blocks of its own."""
    blocks: list[int] = []
    assert made.reserve(blocks, tokens)
    members[0].group.prompt = Prompt(Shared(blocks, tokens), tokens, torch.zeros(3))
    for member in members:
        member.cached = 0
        member.segments = [Segment(source="prompt", tokens=(1,) * tokens)]
        member.pending = [1] * (tokens + len(member.pending))
        member.see_prompt()


def first(ready: list[Slot], prefill_tokens: int) -> list[int]:
    return [each.number for each in next(scheduling.choices(ready, prefill_tokens, alone=False))]


def test_a_reading_step_is_bounded_in_tokens_and_takes_conversations_with_about_as_much_to_read() -> None:
    ready = [slot(number, 3000) for number in range(64)]
    assert first(ready, 8192) == [0, 1]
    assert first([slot(0, 100), slot(1, 3000), slot(2, 90), slot(3, 5)], 250) == [0, 2]
    assert first([slot(0, 100), slot(1, 30), slot(2, 90)], 8192) == [0, 1, 2]


def test_a_prompt_longer_than_a_step_is_read_in_parts() -> None:
    long = slot(0, 1000)
    assert long.next_count(400) == 400
    long.mark_read(400)
    assert (long.cached, long.next_count(400)) == (400, 400)
    long.mark_read(400)
    assert long.next_count(400) == 200


def test_reading_does_not_hold_up_many_conversations_in_mid_turn() -> None:
    decoding = [slot(number, 1, held=9) for number in range(4)]
    assert first([*decoding, slot(9, 50)], 8192) == [0, 1, 2, 3]
    assert first([*decoding[:1], slot(9, 50)], 8192) == [9]


def test_one_of_a_group_reads_the_prompt_and_goes_on_once_it_has_begun() -> None:
    group = Group()
    ready = [slot(number, 50, group=group) for number in range(3)]
    assert first(ready, 8192) == [0]
    ready[1].cached = 20
    assert first(ready, 8192) == [1]


def test_the_oldest_conversation_gets_memory_from_the_youngest() -> None:
    made, evicted = cache(blocks=3), []
    old, middle, young = (slot(number, 1, held=BLOCK_TOKENS, made=made) for number in range(3))

    def evict(victim: Slot) -> None:
        evicted.append(victim.number)
        made.release(victim.blocks)
        victim.rewind()

    found = scheduling.with_memory([old, middle, young], [old, middle, young], made, evict)
    assert [each.number for each in found] == [0] and evicted == [2]
    assert young.cached == 0 and len(young.pending) == BLOCK_TOKENS + 1


def test_a_new_conversation_waits_until_there_is_room_for_those_under_way_too() -> None:
    made = cache(blocks=4)
    under_way, new = slot(0, 1, held=2 * BLOCK_TOKENS - 9, made=made), slot(1, 2 * BLOCK_TOKENS)
    assert scheduling.with_memory([new], [under_way, new], made, lambda _: None) == []
    made.release(under_way.blocks)
    assert scheduling.with_memory([new], [new], made, lambda _: None) == [new]


def test_conversations_without_room_do_not_hold_up_those_that_have_it() -> None:
    made = cache(blocks=2)
    under_way, new = slot(1, 1, held=BLOCK_TOKENS - 9, made=made), slot(0, 2 * BLOCK_TOKENS)
    found = (
        scheduling.with_memory(chosen, [new, under_way], made, lambda _: None)
        for chosen in scheduling.choices([new, under_way], 8192, alone=False)
    )
    assert next(each for each in found if each) == [under_way]


def evicting(made: KVCache, evicted: list[int]):
    """What the engine does with a conversation whose part of the cache is taken away."""

    def evict(victim: Slot) -> None:
        evicted.append(victim.number)
        made.release(victim.blocks)
        victim.rewind()
        made.release(victim.group.unused_blocks())

    return evict


def test_a_prompt_is_cached_once_for_its_group_as_long_as_one_of_them_sees_it() -> None:
    made, group = cache(), Group()
    members = [slot(number, 0, group=group) for number in range(3)]
    share(made, members, BLOCK_TOKENS + 1)
    assert made.allocated - len(made._unused) == 2  # blocks of the prompt; no conversation has own ones yet
    for member in members:
        assert (member.cached, member.own_tokens, member.blocks, member.pending) == (BLOCK_TOKENS + 1, 0, [], [])
        assert group.unused_blocks() == []
        member.rewind()
    assert len(group.unused_blocks()) == 2 and group.prompt is None


def test_a_prompt_that_is_still_cached_is_not_read_again_by_a_conversation_that_lost_its_own_part() -> None:
    made, group = cache(), Group()
    members = [slot(number, 9, group=group) for number in range(2)]
    share(made, members, 50)
    members[1].rewind()
    members[1].pending = [1] * 59
    assert members[1].next_count(8192) == 50
    members[1].see_prompt()
    assert (members[1].cached, members[1].next_count(8192), members[1].own_tokens) == (50, 9, 9)


def test_a_reading_step_ends_at_the_end_of_the_prompt() -> None:
    resumed = slot(0, 50)
    resumed.pending += [2] * 30
    assert resumed.next_count(8192) == 50 and resumed.own_tokens == 50


def test_the_oldest_conversation_gets_memory_from_prompts_that_only_younger_ones_see() -> None:
    made, evicted, groups = cache(blocks=3), [], [Group(), Group()]
    old, young = ([slot(2 * group + number, 1, group=groups[group]) for number in range(2)] for group in range(2))
    share(made, old, BLOCK_TOKENS)
    share(made, young, 2 * BLOCK_TOKENS)
    assert made.available == 0
    assert scheduling.with_memory([young[0]], [*old, *young], made, evicting(made, evicted)) == [] and not evicted[2:]
    for each in young:
        each.see_prompt()
    found = scheduling.with_memory([old[0]], [*old, *young], made, evicting(made, evicted))
    assert [each.number for each in found] == [0]
    assert groups[1].prompt is None and groups[0].prompt is not None

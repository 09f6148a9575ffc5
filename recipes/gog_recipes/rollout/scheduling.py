"""Which conversations a step advances, and what becomes of the others when the cache is full. Pure.

Reading and decoding are different steps: a mixed one would pad every single token to the longest prompt. A reading step
is bounded by its tokens, padding included, and takes conversations with about as much to read.

Memory goes to conversations in the order in which they were opened. One that grows may take it from one that was opened
later, which is then read again when there is room; one that holds no blocks yet waits until there is room for its pending
tokens and for a block of each that is under way, so that those are seldom interrupted. A prompt is in the cache as long
as one of its conversations sees it. So the oldest always advances.
"""

from __future__ import annotations

import bisect
from collections.abc import Callable, Iterable, Iterator, Sequence

from gog_recipes.models.kv_cache import KVCache
from gog_recipes.rollout.slots import Slot, one_reader_per_group


def choices(ready: Sequence[Slot], prefill_tokens: int, *, alone: bool) -> Iterator[list[Slot]]:
    """The slots of the next step, then others for the case that the cache has no room for any of these.

    Args:
        ready: those with pending tokens, whose sessions wait, in the order of their opening
        prefill_tokens: rows times tokens of a reading step, at most
        alone: whether every step advances a single slot
    """
    if not alone and all(slot.decodes for slot in ready):
        yield list(ready)
    ready = one_reader_per_group(ready)
    if not alone:
        yield _together(ready, prefill_tokens)
    for slot in ready:
        yield [slot]


def _together(ready: Sequence[Slot], prefill_tokens: int) -> list[Slot]:
    """Those that read, once they have waited for as many steps, all together, as the reading would delay others; else
    those that decode. So few prompts delay many turns seldom, and no cohort decodes by itself for long."""
    wide = [slot for slot in ready if slot.next_count(prefill_tokens) > 1]
    narrow = [slot for slot in ready if slot.next_count(prefill_tokens) == 1]
    for slot in wide:
        slot.passed += 1
    if wide and sum(slot.passed for slot in wide) >= len(narrow):
        return _alike(wide, prefill_tokens)
    return narrow or wide


def _alike(wide: Sequence[Slot], prefill_tokens: int) -> list[Slot]:
    """All of these if they fit into one step, else the oldest and those that have about as much to read."""
    counts = {slot.number: slot.next_count(prefill_tokens) for slot in wide}
    if len(wide) * max(counts.values()) <= prefill_tokens:
        return list(wide)
    longest = counts[wide[0].number]
    fitting = (slot for slot in wide[1:] if counts[slot.number] <= longest)
    others = sorted(fitting, key=lambda slot: -counts[slot.number])
    return [wide[0], *others][: max(1, prefill_tokens // longest)]


def with_memory(
    chosen: Sequence[Slot], others: Iterable[Slot], cache: KVCache, evict: Callable[[Slot], None]
) -> list[Slot]:
    """Those of the chosen slots for which the cache has room; it is reserved.

    Args:
        chosen: slots of the next step
        others: all open slots
        cache: gives the blocks
        evict: takes a slot's part of the cache away; it must read everything again
    """
    if all(slot.blocks and len(slot.blocks) >= cache.blocks_for(slot.own_tokens) for slot in chosen):
        return sorted(chosen, key=lambda slot: slot.number)
    holders = sorted((slot for slot in others if slot.blocks or slot.shared), key=lambda slot: slot.number)
    under_way = sum(bool(slot.blocks) for slot in holders)
    found: list[Slot] = []
    for slot in sorted(chosen, key=lambda slot: slot.number):
        begins = not slot.blocks
        if begins and under_way and cache.available < cache.blocks_for(slot.own_tokens) + under_way:
            continue
        while not cache.reserve(slot.blocks, slot.own_tokens):
            if (begins and under_way) or not holders or holders[-1].number <= slot.number:
                break
            under_way -= bool(holders[-1].blocks)
            evict(holders.pop())
        else:
            found.append(slot)
            under_way += begins
            if all(slot is not holder for holder in holders):
                bisect.insort(holders, slot, key=lambda slot: slot.number)
    return found

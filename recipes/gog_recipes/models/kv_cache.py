"""Keys and values of conversations, in blocks that are handed out as conversations grow.

Rows for as many tokens as a conversation may have would take tens of gigabytes before the first is sampled. Here a
conversation holds the blocks that it needs, each block has one owner, and all blocks together stay within a bound of
bytes. A prompt that several conversations open with has blocks of its own, which all of them read. A pool that is full
grows by half, layer by layer, so growing needs the space of one layer besides.

Not here: who waits when nothing is left (rollout/scheduling.py).
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass

import torch

BLOCK_TOKENS = 256
"""Tokens of a block, unless conversations are shorter."""
FIRST_BLOCKS = 16
"""Blocks that are allocated first."""

Blocks = list[int]
"""A conversation's blocks, in the order of its tokens."""


@dataclass(frozen=True)
class Layout:
    """What a cache holds of a token."""

    layers: int
    """Decoder layers."""
    kv_heads: int
    """Key-value heads."""
    head_size: int
    """Elements of a head."""
    dtype: torch.dtype
    """Of keys and values."""
    device: torch.device
    """Where they are."""

    @property
    def token_bytes(self) -> int:
        """Bytes of a token's keys and values in all layers."""
        return 2 * self.layers * self.kv_heads * self.head_size * self.dtype.itemsize

    def conversation_bytes(self, longest: int) -> int:
        """Bytes of the blocks of a conversation of so many tokens, whose prompt fills a block in part."""
        block = min(BLOCK_TOKENS, longest)
        return (-(-longest // block) + 1) * block * self.token_bytes


@dataclass(frozen=True)
class Shared:
    """A prompt that is cached once for several conversations."""

    blocks: Blocks
    """Its own; conversations continue in blocks of theirs."""
    tokens: int
    """Of the prompt."""


@dataclass(frozen=True)
class Row:
    """Where a conversation is cached."""

    blocks: Blocks
    """Its own, in the order of its tokens."""
    shared: Shared | None = None
    """What precedes them."""

    @property
    def shared_tokens(self) -> int:
        """Tokens that are cached before its own."""
        return self.shared.tokens if self.shared is not None else 0

    @property
    def shared_blocks(self) -> Blocks:
        """Blocks of these."""
        return self.shared.blocks if self.shared is not None else []


class KVCache:
    """The blocks of all conversations. A block that is handed out holds zeros.

    Args:
        layout: of a token
        longest: tokens that a conversation may have
        limit_bytes: of all blocks together

    Attributes:
        block: tokens of a block
        limit: blocks, at most
        keys: [blocks, key-value heads, tokens of a block, head size] of each layer
        values: as keys
    """

    def __init__(self, layout: Layout, *, longest: int, limit_bytes: int) -> None:
        self.layout, self.block = layout, min(BLOCK_TOKENS, longest)
        self.limit = limit_bytes // (self.block * layout.token_bytes)
        self.free()

    def free(self) -> None:
        """Gives all memory back; no conversation may hold blocks."""
        empty = [self._zeros(0)] * self.layout.layers
        self.keys, self.values = list(empty), list(empty)
        self.allocated, self._unused = 0, list[int]()

    @property
    def bytes(self) -> int:
        """Bytes that are allocated."""
        return self.allocated * self.block * self.layout.token_bytes

    @property
    def available(self) -> int:
        """Blocks that can still be handed out."""
        return self.limit - self.allocated + len(self._unused)

    def blocks_for(self, tokens: int) -> int:
        """How many blocks hold this many tokens."""
        return -(-tokens // self.block)

    def reserve(self, blocks: Blocks, tokens: int) -> bool:
        """Gives a conversation the blocks that it lacks for this many tokens.

        Returns:
            Whether there were enough; if not, it gets none.
        """
        lacking = self.blocks_for(tokens) - len(blocks)
        if lacking > self.available:
            return False
        if lacking > len(self._unused):
            self._grow(self.allocated + lacking - len(self._unused))
        for _ in range(lacking):  # low numbers first, so that the blocks in use lie close together
            blocks.append(heapq.heappop(self._unused))
        return True

    def release(self, blocks: Blocks) -> None:
        """Takes a conversation's blocks back, and sets them to zero: see _zeros."""
        if not blocks:
            return
        places = torch.tensor(blocks, device=self.layout.device)
        for pool in (*self.keys, *self.values):
            pool.index_fill_(0, places, 0.0)
        for block in blocks:
            heapq.heappush(self._unused, block)
        blocks.clear()

    def _grow(self, needed: int) -> None:
        """Allocates at least this many blocks."""
        size = min(self.limit, max(needed, self.allocated * 3 // 2, FIRST_BLOCKS))
        for pools in (self.keys, self.values):
            for layer, pool in enumerate(pools):
                pools[layer] = grown = self._zeros(size)
                grown[: self.allocated] = pool
        for block in range(self.allocated, size):
            heapq.heappush(self._unused, block)
        self.allocated = size

    def _zeros(self, blocks: int) -> torch.Tensor:
        """Zeros, because attention gives tokens that it must not see a weight of 0, and 0 times NaN is NaN. So a
        conversation with a NaN would spoil those that get its blocks after it."""
        layout = self.layout
        shape = (blocks, layout.kv_heads, self.block, layout.head_size)
        return torch.zeros(shape, dtype=layout.dtype, device=layout.device)

"""The state of conversations in the in-process engine, and the tensors that a step reads of them.

A slot holds what belongs to a conversation: which tokens are cached and in which blocks, which wait to be read, and the
turn that is being sampled. Groups share their prompt: one slot reads it for all, and all of them see it where it is
cached.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from gog.agent import Generation
from gog.errors import NotFinite
from gog.trajectory import Segment
from gog_recipes.models.decoder import StepInputs
from gog_recipes.models.family import Processor
from gog_recipes.models.kv_cache import Blocks, Row, Shared
from gog_recipes.models.vision import Vision


@dataclass
class Slot:
    """One conversation."""

    number: int
    """Counts conversations in the order in which they were opened."""
    noise: np.random.Generator
    """The conversation's own sampling noise: one draw in [0, 1) per token."""
    group: Group
    """The conversations that share its prompt."""
    suppressed: tuple[int, ...] = ()
    """Token ids that this conversation must not sample."""
    exact: bool = False
    """Whether tokens that are read again must be read in the steps in which they were read first."""
    blocks: Blocks = field(default_factory=list)
    """Its own part of the cache."""
    shared: Shared | None = None
    """The prompt in the cache, which it sees; None as long as it has not been read, or is not seen any more."""
    cached: int = 0
    """Tokens in the cache, those of the prompt included."""
    position: int = 0
    """Rotary position of the next token, behind those in `places`."""
    pending: list[int] = field(default_factory=list)
    """Token ids to read before the next one can be sampled."""
    images: list[str] = field(default_factory=list)
    """Content hashes of the images among them, in order."""
    image_tokens_read: int = 0
    """Tokens of the first of them that were read."""
    places: np.ndarray | None = None
    """[3, pending] their rotary positions, once they are known."""
    passed: int = 0
    """Steps since the last of its own for which it had several tokens to read, the one that is being chosen included."""
    sampled_last: bool = False
    """Whether the first pending token was sampled and not read before."""
    cuts: deque[int] = field(default_factory=deque)
    """Numbers of cached tokens at which a step must end, in order; of `exact` conversations that are read again."""
    logits: torch.Tensor | None = None
    """[vocabulary] after the last cached token, where they came before the session asked for them."""
    turn: list[int] = field(default_factory=list)
    """Token ids of the turn that is being sampled."""
    logprobs: list[float] = field(default_factory=list)
    """Their log-probs under the distribution that they were drawn from."""
    segments: list[Segment] = field(default_factory=list)
    """The conversation so far, without the turn that is being sampled."""
    waiting: asyncio.Future[Generation] | None = None
    """Set while the session waits for its next turn."""

    @property
    def tokens(self) -> int:
        """Tokens of the conversation, read or not."""
        return self.cached + len(self.pending)

    @property
    def own_tokens(self) -> int:
        """Tokens that its own blocks must hold when the next step has read all that it can."""
        if self.shared is not None:
            return self.tokens - self.shared.tokens
        return min(self.tokens, self.prompt_tokens)

    @property
    def prompt_tokens(self) -> int:
        """Tokens of the prompt."""
        return len(self.segments[0].tokens)

    @property
    def decodes(self) -> bool:
        """Whether a single token is left to read, behind a prompt that was read."""
        return self.shared is not None and len(self.pending) == 1

    @property
    def row(self) -> Row:
        """Where it is cached."""
        return Row(self.blocks, self.shared)

    def append(self, segment: Segment) -> None:
        """Takes a prompt or an observation to be read."""
        self.segments.append(segment)
        self.pending += segment.tokens
        self.images += segment.images

    def resume(self, segments: Sequence[Segment]) -> None:
        """Takes the segments of a conversation, and skips the noise that its turns have used."""
        for segment in segments:
            self.append(segment)
            if segment.source == "model":
                self.noise.random(len(segment.tokens))
        self.rewind()

    def rewind(self) -> None:
        """Reads the whole conversation again: its part of the cache is gone, and belongs to others."""
        own = [*self.segments, Segment(source="model", tokens=tuple(self.turn))]
        self.shared = None
        self.cached, self.position, self.places, self.logits, self.sampled_last = 0, 0, None, None, False
        self.pending = [token for segment in own for token in segment.tokens]
        self.images, self.image_tokens_read = [image for segment in own for image in segment.images], 0
        self.cuts = deque(_cuts(own) if self.exact else ())

    def see_prompt(self) -> None:
        """Sees the group's prompt from now on, where it was read, instead of reading it."""
        prompt = self.group.prompt
        if prompt is None or self.shared is not None or self.cached:
            return
        opening = self.segments[0]
        self.shared, self.position, self.places = prompt.shared, prompt.position, None
        self.images = self.images[len(opening.images) :]
        self.mark_read(len(opening.tokens))
        self.logits = None if self.pending else prompt.logits

    def next_count(self, most: int) -> int:
        """How many of the pending tokens the next step reads. The last token of a prompt is the last of its step."""
        end = self.cuts[0] - self.cached if self.cuts else len(self.pending)
        if self.shared is None:
            end = min(end, self.prompt_tokens - self.cached)
        return min(end, most)

    def mark_read(self, count: int) -> None:
        """The first pending tokens are cached."""
        self.cached += count
        self.passed = 0
        self.pending = self.pending[count:]
        self.sampled_last = False
        while self.cuts and self.cuts[0] <= self.cached:
            self.cuts.popleft()

    def add_token(self, token: int, logprob: float) -> None:
        """Takes a sampled token, which is read with the next step."""
        self.turn.append(token)
        self.logprobs.append(logprob)
        self.pending.append(token)
        self.sampled_last, self.logits = True, None

    def deliver(self, generation: Generation, version: int, *, overrun: bool = False) -> None:
        """Ends the turn: it becomes a segment, and the session that waits for it gets it."""
        segment = Segment(
            source="model",
            tokens=tuple(self.turn),
            logprobs=tuple(self.logprobs),
            version=version,
            overrun=overrun,
        )
        self.segments.append(segment)
        self.turn, self.logprobs = [], []
        future, self.waiting = self.waiting, None
        if future is not None and not future.done():
            future.set_result(generation)

    def fail(self, error: Exception) -> None:
        """Ends the conversation: the session that waits for its turn gets the error."""
        future, self.waiting = self.waiting, None
        if future is not None and not future.done():
            future.set_exception(error)


def not_finite(version: int) -> NotFinite:
    """The error of a conversation whose newest token has a log-prob that is not finite."""
    return NotFinite(
        f"the policy of version {version} samples tokens with a log-prob that is not finite",
        where="model",
        remedy="if most trajectories have this, continue from an earlier checkpoint with a lower learning rate; else check "
        "the images of that question",
    )


def _cuts(segments: Sequence[Segment]) -> list[int]:
    """Numbers of tokens at which the steps ended that sampled these segments.

    What precedes a turn was read before it, its own tokens one by one, and the last of them with what follows it.
    """
    found: list[int] = []
    total = 0
    for segment in segments:
        if segment.source == "model":
            found += range(total, total + len(segment.tokens))
        total += len(segment.tokens)
    return found


@dataclass(frozen=True)
class Prompt:
    """A prompt that was read, and is in the cache."""

    shared: Shared
    """Its part of the cache."""
    position: int
    """Rotary position of the token that follows it."""
    logits: torch.Tensor
    """[vocabulary] after its last token."""


@dataclass
class Group:
    """Conversations that open with the same prompt."""

    slots: list[Slot] = field(default_factory=list)
    """Those that are still open."""
    prompt: Prompt | None = None
    """Their prompt, as long as one of them sees it."""

    def take_prompt(self, reader: Slot, logits: torch.Tensor) -> None:
        """Keeps the prompt that one of the slots has just read, for all of them. logits: [vocabulary] after it."""
        self.prompt = Prompt(Shared(reader.blocks, reader.cached), reader.position, logits)
        reader.blocks, reader.shared = [], self.prompt.shared
        for slot in self.slots:
            slot.see_prompt()

    def unused_blocks(self) -> Blocks:
        """Blocks of the prompt, once none of the slots sees it any more; it must be read again then."""
        if self.prompt is None or any(slot.shared is not None for slot in self.slots):
            return []
        prompt, self.prompt = self.prompt, None
        return prompt.shared.blocks


def one_reader_per_group(slots: Sequence[Slot]) -> list[Slot]:
    """The slots without those whose prompt another one of them reads, or has begun to read."""
    chosen, seen = [], set()
    for slot in sorted(slots, key=lambda slot: slot.cached == 0):
        if slot.shared is not None:
            chosen.append(slot)
        elif id(slot.group) not in seen:
            seen.add(id(slot.group))
            chosen.append(slot)
    return sorted(chosen, key=lambda slot: slot.number)


def step_inputs(slots: Sequence[Slot], counts: Sequence[int], processor: Processor, vision: Vision) -> StepInputs:
    """The next pending tokens of slots; advances the positions and images of the slots.

    Args:
        slots: b conversations, whose blocks are reserved.
        counts: how many tokens of each, at least 1.
        processor: gives the rotary positions.
        vision: gives the features of pending images, which were added to it.
    """
    if all(slot.places is None and len(slot.pending) == 1 for slot in slots):
        return _decode_inputs(slots, counts)
    width, b = max(counts), len(slots)
    ids = np.full((b, width), processor.pad, dtype=np.int64)
    positions = np.zeros((3, b, width), dtype=np.int64)
    features: list[torch.Tensor] = []
    for row, (slot, count) in enumerate(zip(slots, counts, strict=True)):
        ids[row, :count] = slot.pending[:count]
        if len(slot.pending) == 1 and slot.places is None:
            positions[:, row, 0] = slot.position
            slot.position += 1
        else:
            positions[:, row, :count] = _take_places(slot, count, processor, vision)
            if slot.images:
                features += _take_features(slot, int((ids[row, :count] == processor.image_pad).sum()), vision)
    images = torch.from_numpy(ids == processor.image_pad) if features else None
    return StepInputs(
        rows=[slot.row for slot in slots],
        starts=[slot.cached for slot in slots],
        counts=counts,
        ids=torch.from_numpy(ids),
        positions=torch.from_numpy(positions),
        images=images,
        features=torch.cat(features) if features else None,
    )


def _decode_inputs(slots: Sequence[Slot], counts: Sequence[int]) -> StepInputs:
    """The inputs of slots of which each has one token left, of text."""
    positions = torch.tensor([slot.position for slot in slots]).expand(3, -1)[..., None]
    for slot in slots:
        slot.position += 1
    return StepInputs(
        rows=[slot.row for slot in slots],
        starts=[slot.cached for slot in slots],
        counts=counts,
        ids=torch.tensor([slot.pending for slot in slots]),
        positions=positions,
        images=None,
        features=None,
    )


def _take_places(slot: Slot, count: int, processor: Processor, vision: Vision) -> np.ndarray:
    """Rotary positions [3, count] of the next tokens of a slot."""
    if slot.places is None:  # of the whole text at once, because an image's tokens may be read in several steps
        tokens, images = slot.pending, slot.images
        if slot.shared is None:  # others continue where the prompt ends
            tokens, images = tokens[: slot.prompt_tokens - slot.cached], images[: len(slot.segments[0].images)]
        grids = [vision.grid(image) for image in images]
        slot.places, slot.position = processor.positions(tokens, grids, slot.position)
    taken, left = slot.places[:, :count], slot.places[:, count:]
    slot.places = left if left.shape[1] else None
    return taken


def _take_features(slot: Slot, count: int, vision: Vision) -> list[torch.Tensor]:
    """Features of the next `count` image tokens of a slot."""
    found = []
    while count:
        left = vision[slot.images[0]][slot.image_tokens_read :]
        found.append(left[:count])
        if len(left) > count:
            slot.image_tokens_read += count
            break
        count -= len(left)
        slot.images, slot.image_tokens_read = slot.images[1:], 0
    return found

"""The state of conversations in the in-process engine, and the tensors that a step reads of them.

A slot is a row of the decoder's cache with what belongs to it: which tokens are cached, which wait to be read, and the
turn that is being sampled. Groups share their prompt: the first slot that is asked reads it for all.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from gog.agent import Generation
from gog.trajectory import Segment
from gog_recipes.models.family import Processor
from gog_recipes.models.vision import Vision


@dataclass
class Slot:
    """One conversation."""

    index: int
    """Row of the decoder's cache."""
    noise: np.random.Generator
    """The conversation's own sampling noise: one draw in [0, 1) per token."""
    suppressed: tuple[int, ...] = ()
    """Token ids that this conversation must not sample."""
    group: Group | None = None
    """The conversations that share its prompt."""
    cached: int = 0
    """Tokens in the cache."""
    position: int = 0
    """Rotary position of the next token."""
    pending: list[int] = field(default_factory=list)
    """Token ids to read before the next one can be sampled."""
    pending_images: list[str] = field(default_factory=list)
    """Content hashes of the images among them, in order."""
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

    def append(self, segment: Segment) -> None:
        """Takes a prompt or an observation to be read."""
        self.segments.append(segment)
        self.pending += segment.tokens
        self.pending_images += segment.images

    def resume(self, segments: Sequence[Segment]) -> None:
        """Takes the segments of a conversation, and skips the noise that its turns have used."""
        for segment in segments:
            self.append(segment)
            if segment.source == "model":
                self.noise.random(len(segment.tokens))

    def mark_read(self) -> None:
        """What was pending is cached."""
        self.cached += len(self.pending)
        self.pending, self.pending_images = [], []

    def add_token(self, token: int, logprob: float) -> None:
        """Takes a sampled token, which is read with the next step."""
        self.turn.append(token)
        self.logprobs.append(logprob)
        self.pending.append(token)

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
        future, self.waiting = self.waiting, None
        if future is not None and not future.done():
            future.set_result(generation)


@dataclass
class Group:
    """Conversations that open with the same prompt."""

    slots: list[Slot] = field(default_factory=list)
    """Those that are still open."""
    read: bool = False
    """Whether the prompt is in the cache of all of them."""


def one_reader_per_group(slots: Sequence[Slot]) -> list[Slot]:
    """The slots without those whose prompt another one of them is about to read."""
    chosen, seen = [], set()
    for slot in slots:
        if slot.group is None or slot.group.read:
            chosen.append(slot)
        elif id(slot.group) not in seen:
            seen.add(id(slot.group))
            chosen.append(slot)
    return chosen


def take_prompt(reader: Slot, other: Slot) -> None:
    """Gives a slot the state of the one that read their common prompt, whose cache was copied.

    One that waits for a turn shares the reader's logits. One that was not asked yet reads the last prompt token again
    when it is, because the logits are gone by then.
    """
    other.cached, other.position, other.pending, other.pending_images = reader.cached, reader.position, [], []
    if other.waiting is None:
        other.cached, other.position = reader.cached - 1, reader.position - 1
        other.pending = [reader.segments[0].tokens[-1]]


@dataclass(frozen=True)
class StepInputs:
    """What a step reads: b slots with up to n pending tokens each, h hidden size. Arguments of `Decoder.step`."""

    rows: torch.Tensor
    """[b] cache row of each slot."""
    embedded: torch.Tensor
    """[b, n, h] embedded tokens, image features in place; padded on the right."""
    positions: torch.Tensor
    """[3, b, n] rotary positions."""
    starts: torch.Tensor
    """[b] tokens cached before the step."""
    counts: torch.Tensor
    """[b] pending tokens, at least 1."""


def step_inputs(slots: Sequence[Slot], embedding: torch.Tensor, processor: Processor, vision: Vision) -> StepInputs:
    """The pending tokens of slots as tensors; advances the positions of the slots.

    Args:
        slots: b conversations, each with at least one pending token.
        embedding: [vocabulary, h] token embeddings; inputs are on its device.
        processor: gives the rotary positions.
        vision: gives the features of pending images, which were added to it.
    """
    width, device = max(len(slot.pending) for slot in slots), embedding.device
    ids = np.full((len(slots), width), processor.pad, dtype=np.int64)
    positions = np.zeros((3, len(slots), width), dtype=np.int64)
    for number, slot in enumerate(slots):
        count = len(slot.pending)
        ids[number, :count] = slot.pending
        if count == 1:
            positions[:, number, 0] = slot.position
            slot.position += 1
        else:
            grids = [vision.grid(image) for image in slot.pending_images]
            positions[:, number, :count], slot.position = processor.positions(slot.pending, grids, slot.position)
    tensor_ids = torch.from_numpy(ids).to(device)
    embedded = embedding[tensor_ids]
    features = [vision[image] for slot in slots for image in slot.pending_images]
    if features:
        mask = (tensor_ids == processor.image_pad)[..., None]
        embedded = embedded.masked_scatter(mask, torch.cat(features).to(embedded.dtype))
    numbers = [[slot.index, slot.cached, len(slot.pending)] for slot in slots]
    rows, starts, counts = torch.tensor(numbers, device=device).T
    return StepInputs(rows, embedded, torch.from_numpy(positions).to(device), starts, counts)

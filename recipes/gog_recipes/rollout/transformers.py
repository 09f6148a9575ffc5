"""The in-process engine: all conversations of a rollout in one event loop, batched as they become ready.

Each episode is a coroutine that asks for its next turn now and then. A driver task looks which conversations have
something to do and advances them together: those with a prompt or an observation to read in one wide step, those in
mid-turn one token at a time. Between two steps the loop runs the episodes, so a slow tool delays its own episode only.
A step blocks this loop. Sockets and deadlines are not on it (`gog.io_loop`).

Sampling noise belongs to the conversation (its seed, its place), not to the batch, so a repeated rollout draws the same
tokens whatever the timing of tools was. What was sampled is what is recorded, with the log-prob under the distribution
that it was drawn from; nothing is tokenized twice.

Not here: several processes behind one engine, paging of the cache, eviction of conversations. Each conversation holds
a row of the cache for as long as it is open.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from gog import metrics, prompts
from gog.agent import Generation
from gog.engine import Counters, Seed
from gog.errors import QuestionSkipped
from gog.images import Image
from gog.trajectory import Segment
from gog_recipes.models import policy_model
from gog_recipes.rollout.draw import draw
from gog_recipes.rollout.engine import Parts
from gog_recipes.rollout.slots import Group, Slot, one_reader_per_group, step_inputs, take_prompt

PATIENCE = 0.002
"""Seconds that a step waits for more conversations, when fewer than half of the open ones have something to do."""


class TransformersEngine:
    """Samples from a model in this process. Implements gog.engine.Engine.

    Attributes:
        vision: features of every image that a conversation showed, shared with the trainer.
        version: of the weights that it samples from.
        counters: work since `take_counters` was last called.
    """

    def __init__(self, parts: Parts) -> None:
        self.processor, self.vision, self.limits = parts.processor, parts.vision, parts.limits
        self.style, self.capacity, self.version = parts.processor.style, parts.capacity, parts.version
        self.decoder = policy_model.family_of(parts.model).decoder(parts.model, parts.capacity, parts.limits.tokens)
        self.counters = Counters()
        self._free = list(range(parts.capacity - 1, -1, -1))
        self._open: dict[int, Slot] = {}
        self._driver: asyncio.Task[None] | None = None
        self._wake = asyncio.Event()
        self._suppressed = torch.zeros(self.decoder.head.shape[0], dtype=torch.bool, device=self.decoder.head.device)
        self._suppressed[self.processor.suppress_tokens] = True

    # ---------------------------------------------------------------- gog.engine.Engine

    def prefetch(self, images: Sequence[Image]) -> None:
        """Prepares images, which the vision tower then encodes together when the first of them is read."""
        self.vision.add(images)

    async def open(
        self,
        prompt: str,
        images: Sequence[Image],
        seeds: Sequence[Seed],
        *,
        suppress: Sequence[str] = (),
        resume: Sequence[Sequence[Segment]] | None = None,
    ) -> list[TransformersSession]:
        """See gog.engine.Engine.open."""
        placeholders = prompt.count(prompts.IMAGE)
        opening = self._segment("prompt", prompt, images[:placeholders])
        self.vision.add(images[placeholders:])
        if len(opening.tokens) + 2 > self.limits.tokens:
            raise QuestionSkipped(
                f"the prompt alone has {len(opening.tokens)} tokens, the limit is {self.limits.tokens}",
                where="max_tokens",
                remedy=f"allow several times {len(opening.tokens)}: an episode holds turns and observations too",
            )
        earlier = resume or [()] * len(seeds)
        for segments in earlier:
            self._check_resumable(segments, opening)
        group, suppressed, slots = Group(), tuple(self.processor.forbidden(suppress)), []
        for seed, segments in zip(seeds, earlier, strict=True):
            noise = np.random.Generator(np.random.Philox(np.random.SeedSequence(list(seed))))
            slot = Slot(self._free.pop(), noise, suppressed, None if segments else group)
            slot.resume(segments or [opening])
            if not segments:
                group.slots.append(slot)
            self._open[slot.index] = slot
            slots.append(slot)
        again = sum(len(segment.tokens) for segments in earlier for segment in segments)
        self._count(unique=again + (len(opening.tokens) if group.slots else 0))
        return [TransformersSession(self, slot) for slot in slots]

    async def rest(self) -> None:
        """See gog.engine.Engine.rest: frees the cache."""
        assert not self._open, "at rest under a conversation"
        self.decoder.free_cache()

    async def switch(self, weights: Any, version: int) -> None:
        """See gog.engine.Engine.switch; weights: the model, from which the decoder takes its own form."""
        assert not self._open, "weights changed under a conversation"
        self.decoder.refresh(weights)
        self.version = version

    def take_counters(self) -> Counters:
        """See gog.engine.Engine.take_counters."""
        counters, self.counters = self.counters, Counters()
        return counters

    async def close(self) -> None:
        """Frees the cache."""
        assert not self._open, "closed under a conversation"
        del self.decoder

    # ---------------------------------------------------------------- what sessions ask for

    async def generate(self, slot: Slot) -> Generation:
        """The next turn of a conversation."""
        slot.turn, slot.logprobs = [], []
        if self.room(slot) < 1:
            return Generation("", finished=False, room=False)
        slot.waiting = asyncio.get_running_loop().create_future()
        self._wake.set()
        if self._driver is None or self._driver.done():
            self._driver = asyncio.create_task(self._drive())
        return await slot.waiting

    def room(self, slot: Slot) -> int:
        """Tokens that a conversation can still take."""
        return self.limits.tokens - slot.tokens

    def encode(self, body: str, images: Sequence[Image], note: str) -> Segment:
        """The tokens of an observation with its frame."""
        return self._segment("observation", prompts.observation(body, note), images)

    def observe(self, slot: Slot, observation: Segment) -> None:
        """Appends an observation, which is read with the next turn."""
        if len(observation.tokens) > self.room(slot):
            raise ValueError(f"an observation of {len(observation.tokens)} tokens for a room of {self.room(slot)}")
        slot.append(observation)
        self._count(unique=len(observation.tokens))

    def release(self, slot: Slot) -> None:
        """Frees the row of a conversation that is over; again is harmless."""
        if self._open.get(slot.index) is not slot:
            return
        del self._open[slot.index]
        self._free.append(slot.index)
        self._free.sort(reverse=True)  # low rows first: rows that are neighbours are read without a copy
        if slot.group is not None:
            slot.group.slots.remove(slot)
        self._wake.set()

    def _check_resumable(self, segments: Sequence[Segment], opening: Segment) -> None:
        """Raises ValueError for segments that cannot be continued; nothing is a conversation that starts."""
        if not segments:
            return
        if segments[0].tokens != opening.tokens or segments[0].images != opening.images:
            raise ValueError("the conversation to resume has another prompt")
        tokens = sum(len(segment.tokens) for segment in segments)
        if tokens > self.limits.tokens:
            raise ValueError(f"the conversation to resume has {tokens} tokens, the limit is {self.limits.tokens}")
        absent = [image for segment in segments for image in segment.images if image not in self.vision]
        if absent:
            raise ValueError(f"the conversation to resume shows image {absent[0]}, which is not given")

    def _segment(self, source: Any, text: str, images: Sequence[Image]) -> Segment:
        self.vision.add(images)
        ids = self.processor.encode(text, [self.vision.tokens(image.hash) for image in images])
        return Segment(source=source, tokens=tuple(ids), images=tuple(image.hash for image in images))

    # ---------------------------------------------------------------- the driver

    async def _drive(self) -> None:
        """Steps until no session waits. A fault here raises in every session that does."""
        try:
            while ready := await self._ready():
                wide = [slot for slot in ready if len(slot.pending) > 1]
                narrow = [slot for slot in ready if len(slot.pending) == 1]
                # Wide steps are kept for many slots at once: a mixed batch would pad every single token to the longest.
                self._step(wide if wide and len(wide) >= len(narrow) else narrow or wide)
                await asyncio.sleep(0)
        except Exception as error:  # noqa: BLE001 (not swallowed: raised in each episode, which is where it is awaited)
            for slot in self._open.values():
                if slot.waiting is not None and not slot.waiting.done():
                    slot.waiting.set_exception(RuntimeError(f"the rollout engine failed: {error!r}"))

    async def _ready(self) -> list[Slot]:
        """Slots whose session waits, in order of their rows; waits a moment for more when they are few."""
        deadline = time.monotonic() + PATIENCE
        while True:
            ready = [slot for slot in self._open.values() if slot.waiting is not None]
            left = deadline - time.monotonic()
            if 2 * len(ready) >= len(self._open) or left <= 0:
                return sorted(ready, key=lambda slot: slot.index)
            self._wake.clear()
            try:
                await asyncio.wait_for(self._wake.wait(), left)
            except TimeoutError:
                continue

    def _step(self, slots: list[Slot]) -> None:
        """Reads what these slots have pending and samples one token for each of them, and for those they share with."""
        slots = one_reader_per_group(slots)
        inputs = step_inputs(slots, self.decoder.embedding, self.processor, self.vision)
        logits = self.decoder.step(inputs.rows, inputs.embedded, inputs.positions, inputs.starts, inputs.counts)
        read = 0
        for slot in slots:
            if not slot.turn:  # a prompt, or an observation behind the last sampled token, which was counted as such
                read += len(slot.pending) - (1 if slot.cached else 0)
            slot.mark_read()
        slots, logits = self._share_prompts(slots, logits)
        self._sample(slots, logits)
        metrics.record_tokens("prefilled", read)
        metrics.record_tokens("generated", len(slots))
        self._count(prefilled=read, generated=len(slots), steps=1)

    def _share_prompts(self, slots: list[Slot], logits: torch.Tensor) -> tuple[list[Slot], torch.Tensor]:
        """Copies prompts that were just read to the others of their groups.

        Args:
            slots: b slots that were read.
            logits: [b, vocabulary] after the last token of each.

        Returns:
            These slots and those that wait and share a prompt with one of them; their logits.
        """
        sampled, sources = [], []
        for number, slot in enumerate(slots):
            sampled.append(slot)
            sources.append(number)
            group = slot.group
            if group is None or group.read:
                continue
            group.read = True
            others = [other for other in group.slots if other is not slot]
            if others:
                self.decoder.copy_row(slot.index, [other.index for other in others], slot.cached)
            for other in others:
                take_prompt(slot, other)
                if other.waiting is not None:
                    sampled.append(other)
                    sources.append(number)
        return sampled, logits[sources] if len(sampled) > len(slots) else logits

    def _sample(self, slots: list[Slot], logits: torch.Tensor) -> None:
        """Draws one token per slot from logits [b, vocabulary], and delivers the turns that it completes."""
        logits = logits.float().masked_fill(self._suppressed, float("-inf"))
        greedy = self.limits.temperature == 0
        noise = None if greedy else [slot.noise.random() for slot in slots]
        suppressed = [slot.suppressed for slot in slots]
        tokens, logprobs = draw(logits, suppressed, noise, self.limits.temperature or 1.0)
        for slot, token, logprob in zip(slots, tokens, logprobs, strict=True):
            slot.add_token(token, logprob)
            finished = self.processor.ends_turn(slot.turn)
            room = self.room(slot) > 0
            if finished or not room or len(slot.turn) >= self.limits.turn_tokens:
                text, overrun = self.processor.turn_text(slot.turn)
                slot.deliver(Generation(text, finished, room), self.version, overrun=overrun)

    def _count(self, **more: int) -> None:
        self.counters = Counters.total((self.counters, Counters(**more)))


@dataclass
class TransformersSession:
    """One conversation with the engine. Implements gog.agent.Session."""

    engine: TransformersEngine
    """Where it is held."""
    slot: Slot
    """Its state."""

    async def generate(self) -> Generation:
        """Samples the next turn."""
        return await self.engine.generate(self.slot)

    def room(self) -> int:
        """Tokens that the conversation can still take."""
        return self.engine.room(self.slot)

    async def encode(self, body: str, images: Sequence[Image], note: str = "") -> Segment:
        """The tokens of an observation with its frame. Appends nothing."""
        return self.engine.encode(body, images, note)

    def observe(self, observation: Segment) -> None:
        """Appends an observation."""
        self.engine.observe(self.slot, observation)

    def segments(self) -> tuple[Segment, ...]:
        """The conversation so far."""
        return tuple(self.slot.segments)

    def close(self) -> None:
        """Frees its place."""
        self.engine.release(self.slot)

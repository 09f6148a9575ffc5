"""The in-process engine: all conversations of a rollout in one event loop, batched as they become ready.

Each episode is a coroutine that asks for its next turn now and then. A driver task looks which conversations have
something to do and advances them together: those with a prompt or an observation to read in wide steps of bounded size,
those in mid-turn one token at a time. Between two steps the loop runs the episodes, so a slow tool delays its own episode
only. A step blocks this loop. Sockets and deadlines are not on it (`gog.io_loop`).

Sampling noise belongs to the conversation (its seed, its place), not to the batch, so a repeated rollout draws the same
tokens whatever the timing of tools was. What was sampled is what is recorded, with the log-prob under the distribution
that it was drawn from; nothing is tokenized twice.

The cache grows with the conversations, up to a bound of bytes. Beyond it, conversations wait or are read again later
(`scheduling`). With `deterministic`, every conversation is advanced by itself, in steps that depend on nothing else, so
that no sum is made in another order because of other conversations or of an interruption.

Not here: several processes behind one engine.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections.abc import Sequence
from concurrent import futures
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from gog import metrics, prompts
from gog.agent import Generation
from gog.engine import Counters, Seed
from gog.errors import UserError
from gog.images import Image
from gog.spec import EngineSettings
from gog.trajectory import Segment
from gog_recipes.models.decoder import Decoder
from gog_recipes.models.kv_cache import Layout
from gog_recipes.rollout import patience, scheduling
from gog_recipes.rollout.draw import draw
from gog_recipes.rollout.engine import Parts, check_observation, check_prompt, check_resumable
from gog_recipes.rollout.slots import Group, Slot, not_finite, step_inputs

CPU_CACHE_BYTES = 8 * 2**30
"""Bound of the cache on a CPU, where none is set."""


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
        self.settings = parts.settings
        self.decoder = Decoder(parts.model)
        self.vision.gather()
        longest = parts.limits.tokens
        self.decoder.make_cache(longest, cache_bytes(parts.settings, self.decoder.layout, longest))
        self.counters = Counters()
        self._opened = 0
        self._open: dict[int, Slot] = {}
        self._driver: asyncio.Task[None] | None = None
        self._wake = asyncio.Event()
        self._held = False
        self._preparing, self._step_seconds = 0, 0.0
        self._worker = futures.ThreadPoolExecutor(1, "gog-images")  # one, so that images are added in a fixed order
        self.vision.alone = self.settings.deterministic
        self._suppressed = torch.zeros(self.decoder.vocabulary, device=self.decoder.layout.device)
        self._suppressed[self.processor.suppress_tokens] = float("-inf")

    # ---------------------------------------------------------------- gog.engine.Engine

    def prefetch(self, images: Sequence[Image]) -> None:
        """Prepares images in a worker thread; the vision tower encodes them together when the first of them is read.

        An image that the model cannot take is reported when a conversation opens with it.
        """
        self._worker.submit(self.vision.add, images)

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
        await self._prepare(images)
        opening = self._segment("prompt", prompt, images[:placeholders])
        check_prompt(opening, self.limits)
        earlier = resume or [()] * len(seeds)
        for segments in earlier:
            check_resumable(segments, opening, self.limits, self.vision.__contains__)
        if len(self._open) + len(seeds) > self.capacity:
            raise RuntimeError(f"{len(self._open) + len(seeds)} conversations in an engine for {self.capacity}")
        group, suppressed, slots = Group(), tuple(self.processor.forbidden(suppress)), []
        for seed, segments in zip(seeds, earlier, strict=True):
            noise = np.random.Generator(np.random.Philox(np.random.SeedSequence(list(seed))))
            self._opened += 1
            slot = Slot(self._opened, noise, group, suppressed, exact=self.settings.deterministic)
            slot.resume(segments or [opening])
            group.slots.append(slot)
            self._open[slot.number] = slot
            slots.append(slot)
        again = sum(len(segment.tokens) for segments in earlier for segment in segments[1:])
        self._count(unique=again + len(opening.tokens))
        return [TransformersSession(self, slot) for slot in slots]

    async def rest(self) -> None:
        """See gog.engine.Engine.rest: frees the cache, and what was gathered of a sharded model's weights."""
        assert not self._open, "at rest under a conversation"
        self.decoder.rest()
        self.vision.release()

    @property
    def busy(self) -> bool:
        """See gog.engine.Engine.busy."""
        return any(map(self._is_ready, self._open.values()))

    async def hold(self) -> None:
        """See gog.engine.Engine.hold. The cache of conversations between two turns is freed, as it is of no more use."""
        self._held = True
        while True:
            for slot in self._open.values():
                if (slot.blocks or slot.shared) and not self._is_ready(slot):
                    self._evict(slot)  # also of turns that just ended, because those under way may need the memory
            if not self.busy:
                return
            self._wake.set()
            await asyncio.sleep(0)  # the driver advances the turns that are under way

    async def switch(self, weights: Any, version: int) -> None:
        """See gog.engine.Engine.switch; weights: the model, whose tensors the decoder reads."""
        await self.hold()
        self.decoder.refresh(weights)
        self.vision.gather()
        self.version, self._held = version, False
        if self.busy:
            self._start()

    def take_counters(self) -> Counters:
        """See gog.engine.Engine.take_counters."""
        counters, self.counters = self.counters, Counters()
        return counters

    async def close(self) -> None:
        """Frees the cache."""
        assert not self._open, "closed under a conversation"
        self._worker.shutdown()
        del self.decoder

    # ---------------------------------------------------------------- what sessions ask for

    async def generate(self, slot: Slot) -> Generation:
        """The next turn of a conversation."""
        if self.room(slot) < 1:
            return Generation("", finished=False, room=False)
        slot.waiting = asyncio.get_running_loop().create_future()
        self._wake.set()
        self._start()
        return await slot.waiting

    def room(self, slot: Slot) -> int:
        """Tokens that a conversation can still take."""
        return self.limits.tokens - slot.tokens

    async def encode(self, body: str, images: Sequence[Image], note: str) -> Segment:
        """The tokens of an observation with its frame."""
        await self._prepare(images)
        return self._segment("observation", prompts.observation(body, note), images)

    def observe(self, slot: Slot, observation: Segment) -> None:
        """Appends an observation, which is read with the next turn."""
        check_observation(observation, self.room(slot))
        slot.append(observation)
        self._count(unique=len(observation.tokens))

    def release(self, slot: Slot) -> None:
        """Frees what a conversation holds that is over; again is harmless."""
        if self._open.pop(slot.number, None) is None:
            return
        slot.group.slots.remove(slot)
        self.decoder.cache.release(slot.blocks)
        self.decoder.cache.release(slot.group.unused_blocks())
        self._wake.set()

    async def _prepare(self, images: Sequence[Image]) -> None:
        """Hashes and resizes images in the worker thread: one of 12 megapixels takes a tenth of a second."""
        if not images:
            return
        self._preparing += 1
        try:
            await asyncio.get_running_loop().run_in_executor(self._worker, self.vision.add, images)
        finally:
            self._preparing -= 1

    def _segment(self, source: Any, text: str, images: Sequence[Image]) -> Segment:
        ids = self.processor.encode(text, [self.vision.tokens(image.hash) for image in images])
        return Segment(source=source, tokens=tuple(ids), images=tuple(image.hash for image in images))

    # ---------------------------------------------------------------- the driver

    def _start(self) -> None:
        if self._driver is None or self._driver.done():
            self._driver = asyncio.create_task(self._drive())

    def _is_ready(self, slot: Slot) -> bool:
        """Whether a slot's session waits for a turn that may be sampled now."""
        return slot.waiting is not None and not slot.waiting.done() and (not self._held or bool(slot.turn))

    async def _drive(self) -> None:
        """Steps until no session waits. A fault here raises in every session that does."""
        self._wake = asyncio.Event()  # of this event loop, which need not be the one of earlier conversations
        try:
            while ready := await self._ready():
                self._wake.clear()
                if not self._advance(ready):
                    await self._wake.wait()  # the cache is full, and those that hold it wait for their tools
                await asyncio.sleep(0)
        except Exception as error:  # noqa: BLE001 (not swallowed: raised in each episode, which is where it is awaited)
            fault = error if isinstance(error, UserError) else RuntimeError(f"the rollout engine failed: {error!r}")
            for slot in self._open.values():
                if slot.waiting is not None and not slot.waiting.done():
                    slot.waiting.set_exception(fault)

    async def _ready(self) -> list[Slot]:
        """Slots whose session waits, in the order of their opening; may wait a moment for more."""
        waiting = patience.Patience(self._step_seconds)
        while True:
            ready = [slot for slot in self._open.values() if self._is_ready(slot)]
            if self.settings.deterministic or self._held or any(slot.turn for slot in ready):
                return ready
            away = len(self._open) - len(ready) - self._preparing
            left = waiting.left(time.monotonic(), ready=len(ready), coming=self._preparing, away=away)
            if not left:
                return ready
            self._wake.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), left)

    def _advance(self, ready: Sequence[Slot]) -> bool:
        """Makes one step with some of these slots; False if the cache has no room for any of them."""
        for slot in ready:
            slot.see_prompt()
        if known := [slot for slot in ready if slot.logits is not None]:
            self._sample(known, torch.stack([slot.logits for slot in known if slot.logits is not None]))
            return True
        most, alone = self.settings.prefill_tokens, self.settings.deterministic
        for chosen in scheduling.choices(ready, most, alone=alone):
            if slots := scheduling.with_memory(chosen, self._open.values(), self.decoder.cache, self._evict):
                self._step(slots)
                return True
        return False

    def _evict(self, slot: Slot) -> None:
        """Takes a conversation's part of the cache away; it is read again when there is room."""
        self.decoder.cache.release(slot.blocks)
        slot.rewind()
        self.decoder.cache.release(slot.group.unused_blocks())

    def _step(self, slots: list[Slot]) -> None:
        """Reads what these slots have pending, and samples one token for each that has read all of it."""
        counts = [slot.next_count(self.settings.prefill_tokens) for slot in slots]
        begun = time.monotonic()
        logits = self.decoder.step(step_inputs(slots, counts, self.processor, self.vision))
        if max(counts) == 1:
            self._step_seconds = time.monotonic() - begun
        read = sum(counts) - sum(slot.sampled_last for slot in slots)
        for slot, count in zip(slots, counts, strict=True):
            slot.mark_read(count)
        metrics.record_tokens("prefilled", read)
        self._count(prefilled=read, steps=1)
        for number, slot in enumerate(slots):
            if slot.shared is None and slot.cached == slot.prompt_tokens:
                slot.group.take_prompt(slot, logits[number].clone())
        done = [number for number, slot in enumerate(slots) if not slot.pending]
        if done:
            self._sample([slots[number] for number in done], logits if len(done) == len(logits) else logits[done])

    def _sample(self, slots: list[Slot], logits: torch.Tensor) -> None:
        """Draws one token per slot from logits [b, vocabulary], and delivers the turns that it completes."""
        if self.settings.deterministic and len(slots) > 1:
            for number, slot in enumerate(slots):
                self._sample([slot], logits[number : number + 1])
            return
        logits = logits.float() + self._suppressed
        greedy = self.limits.temperature == 0
        noise = None if greedy else [slot.noise.random() for slot in slots]
        suppressed = [slot.suppressed for slot in slots]
        tokens, logprobs = draw(logits, suppressed, noise, self.limits.temperature or 1.0)
        metrics.record_tokens("generated", len(slots))
        self._count(generated=len(slots))
        for slot, token, logprob in zip(slots, tokens, logprobs, strict=True):
            if not math.isfinite(logprob):
                slot.fail(not_finite(self.version))
                continue
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
        return await self.engine.encode(body, images, note)

    def observe(self, observation: Segment) -> None:
        """Appends an observation."""
        self.engine.observe(self.slot, observation)

    def segments(self) -> tuple[Segment, ...]:
        """The conversation so far."""
        return tuple(self.slot.segments)

    def close(self) -> None:
        """Frees its place."""
        self.engine.release(self.slot)


def cache_bytes(settings: EngineSettings, layout: Layout, longest: int) -> int:
    """Bytes that the cache may take.

    Args:
        settings: of the stage
        layout: what the cache holds of a token
        longest: tokens of a conversation, at most

    Raises:
        UserError: they do not hold one conversation.
    """
    if settings.kv_cache_bytes is not None:
        limit = settings.kv_cache_bytes
    elif layout.device.type == "cuda":
        limit = torch.cuda.mem_get_info(layout.device)[0] // 2
    else:
        limit = CPU_CACHE_BYTES
    needed = layout.conversation_bytes(longest)
    if limit < needed:
        raise UserError(
            f"{limit} bytes do not hold one conversation of max_tokens {longest}",
            where="kv_cache_bytes",
            remedy=f"allow {needed} bytes or more, or lower max_tokens",
        )
    return limit

"""The in-process engine: all conversations of a rollout in one asyncio loop, batched as they become ready.

Each episode is a coroutine that now and then asks for its next turn. A driver task looks which rows have something to
do and advances them together: rows that bring a prompt or an observation in one wide step, rows in mid-turn one token
at a time. Between two steps the loop serves sockets, so a tool that takes its time delays its own episode only.

Sampling noise belongs to the conversation (its seed, its place), not to the batch, so a repeated rollout draws the same
tokens whatever the tools' timing was. Token-in, token-out: what was sampled is what is recorded, with the log-prob
under the distribution it was drawn from.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch

from gog import metrics, prompts
from gog.agent import Generation
from gog.errors import QuestionSkipped
from gog.images import Image
from gog.tool_actions import SEARCH_TOOLS
from gog.trajectory import Segment
from gog_recipes.models import policy_model
from gog_recipes.models.family import Processor
from gog_recipes.models.vision import Vision


@dataclass(frozen=True)
class Limits:
    """Of one conversation: tokens in all, tokens per turn, temperature (0: the most probable token)."""

    tokens: int
    turn_tokens: int
    temperature: float


@dataclass
class Counters:
    """What a rollout cost. unique: prompt and observation tokens that had to be read once; prefilled: that were read."""

    generated: int = 0
    prefilled: int = 0
    unique: int = 0
    steps: int = 0

    @classmethod
    def together(cls, several: Iterable[Counters]) -> Counters:
        columns = zip(*((one.generated, one.prefilled, one.unique, one.steps) for one in several), strict=True)
        return cls(*(sum(column) for column in columns))


@dataclass
class Slot:
    """A conversation's state: what is cached, what waits to be read, what is being written."""

    index: int
    noise: np.random.Generator
    suppressed: tuple[int, ...] = ()
    cached: int = 0
    position: int = 0
    pending: list[int] = field(default_factory=list)
    pending_images: list[str] = field(default_factory=list)
    turn: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    segments: list[Segment] = field(default_factory=list)
    waiting: asyncio.Future[Generation] | None = None
    group: Group | None = None


@dataclass
class Group:
    """Conversations that open with the same prompt: it is read once, by the first that asks."""

    rows: list[Slot]
    read: bool = False


class TransformersEngine:
    """Samples from a model in this process. See gog.agent.Session for what its sessions do.

    rows: conversations at once. version: of the weights, recorded with every sampled segment.
    """

    patience = 0.002
    """Seconds that a step waits for more rows to become ready, when fewer than half of them are."""

    def __init__(
        self,
        model: torch.nn.Module,
        processor: Processor,
        vision: Vision,
        limits: Limits,
        *,
        rows: int,
        version: int = 0,
    ) -> None:
        self.processor, self.vision, self.limits, self.version = processor, vision, limits, version
        self.decoder = policy_model.family_of(model).decoder(model, rows, limits.tokens)
        self.counters = Counters()
        self._free = list(range(rows - 1, -1, -1))
        self._live: dict[int, Slot] = {}
        self._driver: asyncio.Task[None] | None = None
        self._wake = asyncio.Event()
        self._suppressed = torch.zeros(self.decoder.head.shape[0], dtype=torch.bool, device=self.decoder.head.device)
        self._suppressed[processor.suppress_tokens] = True

    def refresh(self, model: torch.nn.Module, version: int) -> None:
        """New weights for new conversations; there must be none under way."""
        assert not self._live, "weights changed under a conversation"
        self.decoder.refresh(model)
        self.version = version

    def open(
        self,
        question: str,
        image: Image,
        seeds: Sequence[Sequence[int]],
        *,
        forbidden_tags: Sequence[str] = (),
        tools: Collection[str] = SEARCH_TOOLS,
        gaze: Literal["select", "direct", "off"] = "select",
    ) -> list[TransformersSession]:
        """One session per seed, all with the same opening. Raises QuestionSkipped when the prompt leaves no room."""
        self.vision.add([image])
        text = prompts.prompt(question, style=self.processor.style, tools=tools, gaze=gaze)
        ids = self.processor.encode(text, [self.vision.tokens(image.hash)])
        if len(ids) + 2 > self.limits.tokens:
            raise QuestionSkipped(
                f"the prompt alone has {len(ids)} tokens, the limit is {self.limits.tokens}",
                where="max_tokens",
                remedy=f"allow several times {len(ids)}: an episode holds turns and observations too",
            )
        group = Group([])
        suppressed = tuple(self.processor.forbidden(forbidden_tags))
        for seed in seeds:
            row = Slot(
                self._free.pop(),
                np.random.Generator(np.random.Philox(np.random.SeedSequence(list(seed)))),
                suppressed,
                group=group,
            )
            row.pending, row.pending_images = list(ids), [image.hash]
            row.segments.append(Segment(source="prompt", tokens=tuple(ids), images=(image.hash,)))
            group.rows.append(row)
            self._live[row.index] = row
        self.counters.unique += len(ids)
        return [TransformersSession(self, row) for row in group.rows]

    async def generate(self, row: Slot) -> Generation:
        row.turn, row.logprobs = [], []
        if self.limits.tokens - row.cached - len(row.pending) < 1:
            return Generation("", finished=False, room=False)
        row.waiting = asyncio.get_running_loop().create_future()
        self._wake.set()
        if self._driver is None or self._driver.done():
            self._driver = asyncio.create_task(self._drive())
        return await row.waiting

    def room(self, row: Slot) -> int:
        return self.limits.tokens - row.cached - len(row.pending)

    async def encode(self, body: str, images: Sequence[Image], note: str) -> Segment:
        self.vision.add(images)
        counts = [self.vision.tokens(image.hash) for image in images]
        ids = self.processor.encode(prompts.observation(body, note), counts)
        return Segment(source="observation", tokens=tuple(ids), images=tuple(image.hash for image in images))

    def observe(self, row: Slot, observation: Segment) -> None:
        if len(observation.tokens) > self.room(row):
            raise ValueError(f"an observation of {len(observation.tokens)} tokens for a room of {self.room(row)}")
        row.segments.append(observation)
        row.pending += observation.tokens
        row.pending_images += observation.images
        self.counters.unique += len(observation.tokens)

    def close(self, row: Slot) -> None:
        if self._live.pop(row.index, None) is not None:
            self._free.append(row.index)
            self._free.sort(reverse=True)
            if row.group is not None:
                row.group.rows.remove(row)
            self._wake.set()

    async def _drive(self) -> None:
        """Steps until nobody waits. A fault here reaches every waiting episode instead of hanging them."""
        try:
            while waiting := await self._gather():
                wide = [row for row in waiting if len(row.pending) > 1]
                narrow = [row for row in waiting if len(row.pending) == 1]
                # Wide steps are kept for many rows at once: a mixed batch would pad every single token to the longest.
                self._step(wide if wide and len(wide) >= len(narrow) else narrow or wide)
                await asyncio.sleep(0)
        except Exception as error:  # noqa: BLE001 (not swallowed: raised in each episode, which is where it is awaited)
            for row in self._live.values():
                if row.waiting is not None and not row.waiting.done():
                    row.waiting.set_exception(RuntimeError(f"the rollout engine failed: {error!r}"))

    async def _gather(self) -> list[Slot]:
        """Rows with something to do; waits a moment for more when few of the live ones have."""
        deadline = time.monotonic() + self.patience
        while True:
            waiting = [row for row in self._live.values() if row.waiting is not None]
            left = deadline - time.monotonic()
            if 2 * len(waiting) >= len(self._live) or left <= 0:
                return sorted(waiting, key=lambda row: row.index)
            self._wake.clear()
            try:
                await asyncio.wait_for(self._wake.wait(), left)
            except TimeoutError:
                continue

    def _step(self, rows: list[Slot]) -> None:
        rows = self._one_reader_per_group(rows)
        logits = self.decoder.step(*self._inputs(rows))
        self.counters.steps += 1
        for row in rows:
            if not row.turn:  # a prompt, or an observation behind the last sampled token
                read = len(row.pending) - (1 if row.cached else 0)
                self.counters.prefilled += read
                metrics.record_tokens("prefilled", read)
            row.cached += len(row.pending)
            row.pending, row.pending_images = [], []
        rows, logits = self._share_with_group(rows, logits)
        self._sample(rows, logits)

    def _one_reader_per_group(self, rows: list[Slot]) -> list[Slot]:
        """Of conversations with an unread common prompt only the first reads it."""
        chosen, seen = [], set()
        for row in rows:
            if row.group is None or row.group.read:
                chosen.append(row)
            elif id(row.group) not in seen:
                seen.add(id(row.group))
                chosen.append(row)
        return chosen

    def _share_with_group(self, rows: list[Slot], logits: torch.Tensor) -> tuple[list[Slot], torch.Tensor]:
        """After a common prompt was read, its cache and its logits go to the others of the group."""
        out, sources = [], []
        for number, row in enumerate(rows):
            out.append(row)
            sources.append(number)
            group = row.group
            if group is None or group.read:
                continue
            group.read = True
            others = [other for other in group.rows if other is not row]
            if others:
                self.decoder.copy_row(row.index, [other.index for other in others], row.cached)
            for other in others:
                other.cached, other.position, other.pending, other.pending_images = row.cached, row.position, [], []
                if other.waiting is not None:
                    out.append(other)
                    sources.append(number)
                else:  # opened but not asked yet: it reads its last prompt token again when it asks
                    other.cached, other.position = row.cached - 1, row.position - 1
                    other.pending = [row.segments[0].tokens[-1]]
        return out, logits[sources] if len(out) > len(rows) else logits

    def _inputs(self, rows: list[Slot]) -> tuple[torch.Tensor, ...]:
        """Arguments of Decoder.step for the pending tokens of these rows; advances their positions."""
        width, device = max(len(row.pending) for row in rows), self.decoder.head.device
        ids = np.full((len(rows), width), self.processor.pad, dtype=np.int64)
        positions = np.zeros((3, len(rows), width), dtype=np.int64)
        for number, row in enumerate(rows):
            count = len(row.pending)
            ids[number, :count] = row.pending
            if count == 1:
                positions[:, number, 0] = row.position
                row.position += 1
            else:
                grids = [self.vision.grid(image) for image in row.pending_images]
                positions[:, number, :count], row.position = self.processor.positions(row.pending, grids, row.position)
        tensor_ids = torch.from_numpy(ids).to(device)
        embedded = self.decoder.embedding[tensor_ids]
        features = [self.vision[image] for row in rows for image in row.pending_images]
        if features:
            embedded = embedded.masked_scatter(
                (tensor_ids == self.processor.image_pad)[..., None], torch.cat(features).to(embedded.dtype)
            )
        numbers = [[row.index, row.cached, len(row.pending)] for row in rows]
        indices, starts, counts = torch.tensor(numbers, device=device).T
        return indices, embedded, torch.from_numpy(positions).to(device), starts, counts

    def _sample(self, rows: list[Slot], logits: torch.Tensor) -> None:
        """Draws one token per row and hands over the turns that it completes."""
        tokens, values = self._draw(rows, logits)
        metrics.record_tokens("generated", len(rows))
        for row, token, value in zip(rows, tokens, values, strict=True):
            row.turn.append(token)
            row.logprobs.append(value)
            row.pending.append(token)
            self.counters.generated += 1
            finished = self.processor.ends_turn(row.turn)
            room = row.cached + len(row.pending) < self.limits.tokens
            if finished or not room or len(row.turn) >= self.limits.turn_tokens:
                self._hand_over(row, Generation(self.processor.decode(row.turn), finished, room))

    def _draw(self, rows: list[Slot], logits: torch.Tensor) -> tuple[list[int], list[float]]:
        logits = logits.float().masked_fill(self._suppressed, float("-inf"))
        for number, row in enumerate(rows):
            if row.suppressed:
                logits[number, list(row.suppressed)] = float("-inf")
        temperature = self.limits.temperature or 1.0
        logprobs = (logits / temperature).log_softmax(-1)
        if self.limits.temperature == 0:
            tokens = logits.argmax(-1)
        else:
            noise = torch.tensor([row.noise.random() for row in rows], dtype=torch.float32, device=logits.device)
            tokens = _inverse_cdf(logprobs, noise)
        return tokens.tolist(), logprobs.gather(1, tokens[:, None])[:, 0].tolist()

    def _hand_over(self, row: Slot, generation: Generation) -> None:
        row.segments.append(
            Segment(source="model", tokens=tuple(row.turn), logprobs=tuple(row.logprobs), version=self.version)
        )
        future, row.waiting = row.waiting, None
        if future is not None and not future.done():
            future.set_result(generation)


def _inverse_cdf(logprobs: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
    """The token at which the cumulative probability passes the noise; never one of probability 0."""
    cumulative = logprobs.double().exp().cumsum(-1)
    target = noise.double()[:, None] * cumulative[:, -1:]
    tokens = (cumulative <= target).sum(-1).clamp(max=logprobs.shape[-1] - 1)
    possible = logprobs.gather(1, tokens[:, None])[:, 0] > float("-inf")
    return torch.where(possible, tokens, logprobs.argmax(-1))


@dataclass
class TransformersSession:
    """One conversation with the engine; gog.agent.Session."""

    engine: TransformersEngine
    row: Slot

    async def generate(self) -> Generation:
        return await self.engine.generate(self.row)

    def room(self) -> int:
        return self.engine.room(self.row)

    async def encode(self, body: str, images: Sequence[Image], note: str = "") -> Segment:
        return await self.engine.encode(body, images, note)

    def observe(self, observation: Segment) -> None:
        self.engine.observe(self.row, observation)

    def segments(self) -> tuple[Segment, ...]:
        return tuple(self.row.segments)

    def close(self) -> None:
        self.engine.close(self.row)

"""An engine without a model: its conversations write turns from a script. Chosen as `support.scripted_engine:build`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from gog import prompts
from gog.agent import Generation
from gog.engine import Counters, Seed
from gog.errors import QuestionSkipped
from gog.images import Image
from gog.trajectory import Segment
from support.builders import GLANCE, FakeSession, answer

Script = Callable[[str, Seed], Sequence[str | Generation]]


def glance_then_answer(prompt: str, seed: Seed) -> Sequence[str]:
    """Searches for the whole image, then answers `Ada`."""
    return [GLANCE, answer("Ada")]


class ScriptedSession(FakeSession):
    """A conversation that frees its engine's place when it is closed."""

    engine: ScriptedEngine
    prompt: str
    seed: Seed

    async def generate(self) -> Generation:
        self.engine.counters["steps"] += 1
        generation = await super().generate()
        self.engine.counters["generated"] += len(generation.text)
        return generation

    def close(self) -> None:
        self.engine.places += not self.closed
        super().close()


@dataclass
class ScriptedEngine:
    """gog.engine.Engine. A character is a token."""

    script: Script = glance_then_answer
    """script(prompt, seed): the turns of a conversation."""
    capacity: int = 8
    """Conversations that may be open at once."""
    limit: int = 1_000_000
    """Tokens of a conversation."""
    style: prompts.Style = "full"
    """Style of prompts and observations."""
    version: int = 0
    """Version of the weights."""
    seconds: Callable[[str], float] = lambda prompt: 0.0
    """How long a turn takes, by prompt."""
    sessions: list[ScriptedSession] = field(default_factory=list)
    """Every conversation that was opened."""
    suppressed: list[Sequence[str]] = field(default_factory=list)
    """What each group must not sample."""
    rests: int = 0
    """How often it was asked to free what it can."""
    prefetched: list[Sequence[Image]] = field(default_factory=list)
    """Images of each prefetch."""
    counters: dict[str, int] = field(default_factory=lambda: {"generated": 0, "steps": 0})

    def __post_init__(self) -> None:
        self.places = self.capacity

    def prefetch(self, images: Sequence[Image]) -> None:
        self.prefetched.append(images)

    async def open(
        self,
        prompt: str,
        images: Sequence[Image],
        seeds: Sequence[Seed],
        *,
        suppress: Sequence[str] = (),
        resume: Sequence[Sequence[Segment]] | None = None,
    ) -> Sequence[ScriptedSession]:
        if len(prompt) > self.limit:
            raise QuestionSkipped(f"the prompt alone has {len(prompt)} tokens, the limit is {self.limit}")
        self.places -= len(seeds)
        assert self.places >= 0, "more conversations than places"
        self.suppressed.append(suppress)
        opened = []
        shown = tuple(each.hash for each in images[: prompt.count(prompts.IMAGE)])
        for seed, earlier in zip(seeds, resume or [()] * len(seeds), strict=True):
            session = ScriptedSession(self.script(prompt, seed), self.limit, seconds=self.seconds(prompt))
            session.engine, session.prompt, session.seed = self, prompt, seed
            session._segments = [*earlier] or [Segment(source="prompt", tokens=(1,), images=shown)]
            session._next = sum(segment.source == "model" for segment in earlier)
            opened.append(session)
        self.sessions += opened
        return opened

    @property
    def busy(self) -> bool:
        return False

    async def hold(self) -> None:
        """No turn is sampled from tensors."""

    async def switch(self, weights: Any, version: int) -> None:
        self.version = version

    async def rest(self) -> None:
        assert self.places == self.capacity
        self.rests += 1

    def take_counters(self) -> Counters:
        taken, self.counters = self.counters, {"generated": 0, "steps": 0}
        return Counters(**taken)

    async def close(self) -> None:
        assert self.places == self.capacity


def build(parts: Any) -> ScriptedEngine:
    """The factory that a manifest names."""
    return ScriptedEngine(capacity=parts.capacity, style=parts.processor.style, limit=parts.limits.tokens * 100)

"""gog with forced work: its own engine, episodes and rollouts, with turns whose length and action are fixed.

The engine samples every token and turns it into text as ever. Only what the episode reads of a turn is replaced, and a
turn ends after its number of tokens.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import workload
from workload import Workload

from gog.agent import Generation
from gog.engine import Seed
from gog.images import Image
from gog.tool_types import Grounding, Reply
from gog.trajectory import Candidate, Segment


class ForcedEngine:
    """An engine whose sessions call the tool a fixed number of times and answer then."""

    def __init__(self, engine: Any, work: Workload) -> None:
        self._engine, self.work = engine, work

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    async def open(self, prompt: str, images: Sequence[Image], seeds: Sequence[Seed], **more: Any) -> list[Any]:
        """Sessions of the engine with forced turns."""
        opened = await self._engine.open(prompt, images, seeds, **more)
        return [ForcedSession(session, self.work, seed) for session, seed in zip(opened, seeds, strict=True)]


class ForcedSession:
    """A session whose turns have fixed actions."""

    def __init__(self, session: Any, work: Workload, seed: Seed) -> None:
        self._session, self._work, self._seed, self._turn = session, work, seed, 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)

    async def generate(self) -> Generation:
        """Samples a turn; it calls the tool, or answers if it is the last one."""
        await self._session.generate()
        self._turn += 1
        if self._turn > self._work.calls:
            return Generation("<think>known</think><answer>one</answer>", finished=True)
        _, step, number, sample = self._seed
        wanted = workload.expression(step * 10_000 + number % 10_000, sample, self._turn)
        return Generation(f"<think>look</think><img_search>{wanted}</img_search>", finished=True)


@dataclass
class LocalTools:
    """Tools and judge in this process, as functions: what the other side has, too."""

    seconds: float = 0.0
    """Latency of a grounding call."""

    async def ground(self, image: Image, expression: str, region: Any = None) -> Reply[Grounding]:
        """One candidate."""
        if self.seconds:
            await asyncio.sleep(self.seconds)
        crop = Image(workload.crop_of(image.pixels, expression))
        box = workload.box_of(expression)
        return Reply(Grounding((Candidate(number=1, box=box, score=0.9, crop=crop.hash),), (crop,)))

    async def judge(self, question: str, answers: Sequence[str], answer: str) -> Reply[bool]:
        """A verdict."""
        return Reply(True)

    async def search_image(self, image: Image) -> Any:
        """Not called."""
        raise NotImplementedError

    search_text = read_text = search_image


def count(segments: Sequence[Segment], image_pad: int) -> dict[str, int]:
    """Tokens of a trajectory by source, and those of images."""
    found = {"prompt": 0, "model": 0, "observation": 0}
    for segment in segments:
        found[segment.source] += len(segment.tokens)
    return {**found, "image": sum(segment.tokens.count(image_pad) for segment in segments)}

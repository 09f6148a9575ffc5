"""The conversation of an episode that has ended: its tokens without an engine, so that a resumed attempt can score it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gog.agent import Generation
from gog.images import Image
from gog.trajectory import Segment


@dataclass(frozen=True)
class EndedSession:
    """The conversation of an episode that ended in an earlier attempt. Implements gog.agent.Session."""

    kept: tuple[Segment, ...]
    """Its tokens."""

    async def generate(self) -> Generation:
        raise RuntimeError("the episode has ended")

    def room(self) -> int:
        return 0

    async def encode(self, body: str, images: Sequence[Image], note: str = "") -> Segment:
        raise RuntimeError("the episode has ended")

    def observe(self, observation: Segment) -> None:
        raise RuntimeError("the episode has ended")

    def segments(self) -> tuple[Segment, ...]:
        return self.kept

    def close(self) -> None:
        return None

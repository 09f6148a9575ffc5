"""A conversation with the vLLM engine: what is kept of it here, and the session that plays it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from gog.agent import Generation
from gog.engine import Seed
from gog.images import Image
from gog.trajectory import Segment
from gog_recipes.rollout import vllm_request as requests
from gog_recipes.rollout.vllm_images import SentImage
from gog_recipes.rollout.vllm_replica import Replica

if TYPE_CHECKING:
    from gog_recipes.rollout.vllm import VLLMEngine


@dataclass
class Conversation:
    """One conversation."""

    seed: Seed
    """Its sampling noise."""
    suppressed: tuple[int, ...]
    """Token ids that it must not sample, besides those that no conversation samples."""
    home: Replica
    """The server that holds its prefix."""
    segments: list[Segment] = field(default_factory=list)
    """The conversation so far."""
    prompt: requests.Prompt = field(default_factory=requests.Prompt)
    """The same as it is sent."""
    images: list[SentImage] = field(default_factory=list)
    """Its images, in order."""
    turns: int = 0
    """Turns sampled so far."""

    @property
    def tokens(self) -> int:
        """Tokens so far."""
        return len(self.prompt.expanded)


@dataclass
class VLLMSession:
    """One conversation with the engine. Implements gog.agent.Session."""

    engine: VLLMEngine
    """Where turns are sampled."""
    conversation: Conversation
    """Its state."""
    encoded: dict[tuple[str, ...], list[SentImage]] = field(default_factory=dict)
    """Images of the newest observation that was encoded, by their hashes."""

    async def generate(self) -> Generation:
        """Samples the next turn."""
        return await self.engine.generate(self.conversation)

    def room(self) -> int:
        """Tokens that the conversation can still take."""
        return self.engine.room(self.conversation)

    async def encode(self, body: str, images: Sequence[Image], note: str = "") -> Segment:
        """The tokens of an observation with its frame. Appends nothing."""
        segment, sent = await self.engine.encode(body, images, note)
        self.encoded[segment.images] = sent
        return segment

    def observe(self, observation: Segment) -> None:
        """Appends an observation."""
        self.engine.observe(self.conversation, observation, self.encoded[observation.images])
        self.encoded.clear()

    def segments(self) -> tuple[Segment, ...]:
        """The conversation so far."""
        return tuple(self.conversation.segments)

    def close(self) -> None:
        """Frees its place."""
        self.engine.release(self.conversation)

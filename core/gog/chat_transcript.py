"""A conversation with a server that speaks OpenAI's chat protocol: the transcript that it is sent whole with every turn.

Training and serving keep conversations of two kinds. Where gog samples tokens, a session owns token ids. Where a server
returns text, this module owns the text, as segments that count four bytes a token (`chat_messages`). An evaluation, a
curation and the agent read observations, cut turns and count room alike, because they share it. What samples a turn, and
what its failure means, is its user's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

from gog import chat_messages, prompts
from gog.agent import Generation
from gog.chat_messages import Completion
from gog.images import Image
from gog.trajectory import Segment


@dataclass
class Transcript:
    """The conversation so far. Implements the part of gog.agent.Session that samples nothing."""

    limit: int
    """Tokens of the conversation at most, as its server counts them."""
    parts: list[Segment]
    """Prompt, turns and observations, in order."""
    urls: dict[str, str]
    """Data URL of each image that it shows, by content hash."""
    encoded: dict[str, str] = field(default_factory=dict)
    """Data URLs of the images of observations that were encoded and not yet appended."""
    ratio: float = 1.0
    """Tokens of the server for each that chat_messages counts; 1 until `calibrate`."""

    @property
    def tokens(self) -> int:
        """Tokens so far, as chat_messages counts them."""
        return sum(len(part.tokens) for part in self.parts)

    @property
    def turns(self) -> int:
        """Turns sampled so far."""
        return sum(part.source == "model" for part in self.parts)

    def room(self) -> int:
        """Tokens that the conversation can still take, of those that `encode` counts."""
        return int(self.limit / self.ratio) - self.tokens

    def calibrate(self, read: int) -> None:
        """Counts tokens as the server does from now on. read: tokens of the conversation so far by its count; 0: unknown."""
        if read:
            self.ratio = read / self.tokens

    def append(self, turn: Completion) -> Generation:
        """Appends a turn, cut to the room that is left."""
        written, finished = chat_messages.segment("model", turn.text), turn.finished
        if len(written.tokens) > (room := self.room()):
            written, finished = written.model_copy(update={"tokens": written.tokens[: max(0, room)]}), False
        self.parts.append(written)
        return Generation(chat_messages.text_of(written), finished, self.room() > 0)

    async def encode(self, body: str, images: Sequence[Image], note: str = "") -> Segment:
        """An observation with its frame, as a segment. Appends nothing."""
        self.encoded |= await asyncio.to_thread(chat_messages.data_urls, images)
        return chat_messages.segment("observation", prompts.observation(body, note), images)

    def observe(self, observation: Segment) -> None:
        """Appends an observation that `encode` returned."""
        self.urls |= {image: self.encoded[image] for image in observation.images}
        self.parts.append(observation)
        self.encoded.clear()

    def segments(self) -> tuple[Segment, ...]:
        """The conversation so far."""
        return tuple(self.parts)


FULL = Generation("", finished=False, room=False)
"""The turn of a conversation that has no room for one."""

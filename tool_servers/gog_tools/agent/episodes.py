"""Plays chats: the episode loop of training (`gog.agent`) over the policy's server and the tools.

The caps of an episode, the call path of each tool, its budgets and its deadlines are those of an evaluation, so a chat is
answered as a question of a benchmark is. A tool that fails is an observation, as it is in training. What an episode does
is published turn by turn while it runs.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Iterable
from dataclasses import dataclass, field
from typing import Literal

from gog import prompts, tool_api
from gog.agent import Episode
from gog.dataset import Question
from gog.images import Image
from gog.journal.records import Kept
from gog.spec import AgentSettings
from gog.tool_actions import Tools
from gog.trajectory import Trajectory, Turn
from gog_tools.agent.chats import Asked
from gog_tools.agent.policy import Conversation, PolicyClient
from gog_tools.serving import chat

MAX_PIXELS = 40_000_000
"""Pixels of a question's image; a larger one is refused undecoded."""


@dataclass(frozen=True)
class Step:
    """A turn of a running episode."""

    number: int
    """From 1."""
    turn: Turn
    """As far as it is known."""
    stage: Literal["acting", "observed"]
    """Whether the model has written it, or its tool has answered as well."""


@dataclass
class Steps:
    """gog.agent.Keeper that publishes turns instead of keeping them."""

    queue: asyncio.Queue[Step | None] = field(default_factory=asyncio.Queue)
    """Steps in order; None at the end."""

    def keep(self, kept: Kept, images: Iterable[Image]) -> None:
        """Takes a turn: once when the model has written it, once when its tool has answered."""
        observed = kept.turn.observation is not None or kept.stop is not None
        self.queue.put_nowait(Step(kept.number + 1, kept.turn, "observed" if observed else "acting"))

    async def settled(self) -> None:
        """Nothing is written anywhere."""


@dataclass(frozen=True)
class Player:
    """Plays chats with one policy and one set of tools."""

    client: PolicyClient
    """Samples turns."""
    toolbox: Tools
    """Calls the tools."""
    settings: AgentSettings
    """Caps of an episode."""
    style: prompts.Style
    """Style of what the policy reads."""
    tools: frozenset[str]
    """Tools that it may call."""
    seconds: float
    """Time that a chat may take."""

    async def play(self, asked: Asked) -> Trajectory:
        """The whole episode of a chat. Raises UserError for its image, PolicyFailed, TimeoutError."""
        return await self._run(asked, Steps())

    async def steps(self, asked: Asked) -> AsyncGenerator[Step | Trajectory, None]:
        """The steps of a chat while it is played, then the whole of it. Raises as `play`. Closing it ends the episode."""
        steps = Steps()
        task = asyncio.ensure_future(self._run(asked, steps))
        task.add_done_callback(lambda _: steps.queue.put_nowait(None))
        try:
            while (step := await steps.queue.get()) is not None:
                yield step
            yield await task
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError, Exception):
                await task

    async def _run(self, asked: Asked, steps: Steps) -> Trajectory:
        async with asyncio.timeout(self.seconds):
            image = await asyncio.to_thread(_image, asked.image_url)
            question = Question(id="chat", image="", question=asked.question, answers=("-",))
            text = prompts.prompt(question.question, style=self.style, tools=self.tools, gaze=self.settings.gaze)
            session = await Conversation.open(self.client, text, image)
            episode = Episode(
                question, image, session, self.toolbox, self.settings, self.style, tools=self.tools, keeper=steps
            )
            return await episode.run()


def _image(url: str) -> Image:
    image = tool_api.decode_image(chat.data_of(url), where="image_url", max_pixels=MAX_PIXELS)
    image.hash  # noqa: B018 (kept by the image; takes tens of milliseconds, which the event loop must not)
    return image

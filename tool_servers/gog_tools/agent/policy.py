"""Samples the turns of a conversation from the policy's server, over OpenAI's chat protocol.

Ours, vLLM and vendors speak it. A conversation is sent whole with every turn, as messages; a server with a prefix cache
reads only what is new. Training is token in, token out (`gog.engine`) instead, because there a token that changes is a
wrong gradient; here it is a token.

A text has fewer bytes to a token in one vocabulary than in another, so the limit of a conversation is compared with the
tokens that the server reports of each turn; between two turns they are estimated by its ratio so far.

A failure of the policy's server ends the chat with an error: unlike a tool's, it leaves nothing to answer with.
"""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from gog import actions, chat_dialect, chat_messages, chat_transcript, tool_api, tool_transport
from gog.agent import Generation
from gog.call_path import CallPath
from gog.chat_messages import Completion
from gog.chat_transcript import Transcript
from gog.images import Image
from gog.spec import AgentSettings, CacheSpec, CallPolicy
from gog.tool_cache import Cache
from gog.tool_types import ToolFailure
from gog.trajectory import Segment

SERVICE = "policy"
"""Name of the policy's server in metrics and failures."""


class PolicyFailed(Exception):
    """The policy's server has not answered, after all attempts."""

    def __init__(self, failure: ToolFailure) -> None:
        super().__init__(failure.words)
        self.failure = failure


@dataclass(frozen=True)
class Where:
    """The policy's server, and how it is asked."""

    url: str
    """Base URL."""
    model: str
    """Version to ask for; empty for the server's default."""
    key: str
    """API key; empty if it requires none."""
    temperature: float
    """0 takes the most probable token."""
    deadline_seconds: float
    """Seconds that one attempt at a turn may take."""


class PolicyClient:
    """Asks the policy's server. Made on the loop that uses it; `close` ends its connections."""

    def __init__(self, where: Where, settings: AgentSettings) -> None:
        self.where, self.settings = where, settings
        self._numbers = itertools.count()
        self._session = tool_transport.open_session()
        url = where.url.rstrip("/").removesuffix("/v1") + tool_api.CHAT_PATH
        transport = tool_transport.Transport(self._session, SERVICE, url, where.key)
        policy = CallPolicy(
            attempts=3, deadline_seconds=where.deadline_seconds, budget_seconds=3 * where.deadline_seconds
        )
        self._path: CallPath[Completion] = CallPath(
            SERVICE,
            tool_transport.BACKEND,
            chat_dialect.DialectTransport(transport.send).send,
            policy,
            Cache(CacheSpec(mode="off")),
            answered_by=where.url,
            build=asyncio.to_thread,
        )

    async def turn(self, segments: Sequence[Segment], urls: dict[str, str]) -> Completion:
        """The next turn of a conversation. Raises PolicyFailed.

        Args:
            segments: prompt, turns and observations so far
            urls: data URL of each image, by content hash
        """
        reply = await self._path.call(
            {"turn": next(self._numbers)}, lambda: self._body(segments, urls), chat_messages.read
        )
        if reply.failure is not None:
            raise PolicyFailed(reply.failure)
        return reply.unwrap()

    def _body(self, segments: Sequence[Segment], urls: dict[str, str]) -> bytes:
        request: dict[str, Any] = {
            "model": self.where.model or SERVICE,
            "messages": chat_messages.messages(segments, urls),
            "temperature": self.where.temperature,
            "max_tokens": self.settings.max_turn_tokens,
            "stop": list(actions.CLOSING_TAGS),
            "include_stop_str_in_output": True,
        }
        return json.dumps(request).encode()

    async def close(self) -> None:
        """Ends the connections."""
        await self._path.abandon()
        await self._session.close()


class Conversation(Transcript):
    """gog.agent.Session over the policy's server."""

    client: PolicyClient
    """Where turns are sampled."""

    @classmethod
    async def open(cls, client: PolicyClient, prompt: str, image: Image) -> Conversation:
        """A conversation that begins with a prompt, which shows an image."""
        urls = await asyncio.to_thread(chat_messages.data_urls, [image])
        made = cls(client.settings.max_tokens, [chat_messages.segment("prompt", prompt, [image])], urls)
        made.client = client
        return made

    async def generate(self) -> Generation:
        """Samples the next turn. Raises PolicyFailed."""
        if self.room() < 1:
            return chat_transcript.FULL
        turn = await self.client.turn(self.parts, self.urls)
        self.calibrate(turn.read)
        return self.append(turn)

    def close(self) -> None:
        """Holds nothing elsewhere."""

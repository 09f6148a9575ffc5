"""The chat engine: turns of any model behind OpenAI's chat protocol, for evaluation and curation only.

It plays a model that gog does not train, for example a vendor's: beside trained policies in an evaluation (policies
`endpoint` and `endpoint-direct`), or as the teacher of a curation. Such an endpoint returns text, neither tokens nor
log-probs, so no stage reinforces what it samples; its demonstrations are tokenized by SFT. Images travel as data URLs.

A request that the endpoint refuses skips its question, by name and reason; an outage is waited out as one of the tools.
What it costs, by its price and the tokens that it reports, counts against the budget of the run (`tools.budget`). Fields
that a model refuses are left out (`gog.chat_dialect`).

Not here: stop sequences, which reasoning models refuse. A turn is cut at its first closing tag instead.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gog import (
    api_keys,
    chat_dialect,
    chat_messages,
    chat_transcript,
    metrics,
    outage,
    prompts,
    tool_api,
    tool_transport,
)
from gog.agent import Generation
from gog.call_path import CallPath
from gog.calls.spend import Account
from gog.calls.spend_log import SpendLog
from gog.chat_messages import Completion
from gog.chat_transcript import Transcript
from gog.engine import Counters, Limits, Seed
from gog.errors import QuestionSkipped, UserError
from gog.images import Image
from gog.io_loop import IOLoop
from gog.served_models import ServedModels
from gog.spec import CacheSpec, CallPolicy, ModelEndpoint, PolicyServerSpec, key_variable
from gog.tool_cache import Cache
from gog.tool_types import FailureKind, Reply
from gog.trajectory import Segment
from gog_recipes.rollout.engine import check_observation, check_prompt, check_resumable
from gog_recipes.rollout.turn_failures import TurnFailures
from gog_recipes.rollout.vllm_request import noise
from gog_recipes.runtime.stage import Stage

SERVICE = "endpoint"
"""Name of the model in metrics and failures."""
ATTEMPTS = 3
"""Attempts of a request before its failure counts towards an outage."""
REFUSED = (FailureKind.REFUSED, FailureKind.MALFORMED)
"""Failures that another attempt at the same turn would meet again."""


@dataclass
class Conversation:
    """One conversation."""

    number: int
    """Counts the engine's conversations."""
    seed: Seed
    """Its sampling noise."""
    transcript: Transcript
    """What was said so far."""


class ChatEngine:
    """Samples from a chat endpoint. Implements gog.engine.Engine."""

    style: prompts.Style = "full"
    version = 0

    def __init__(self, endpoint: ModelEndpoint, limits: Limits, capacity: int, stage: Stage) -> None:
        """
        Args:
            endpoint: where the model is.
            limits: how far a conversation may go.
            capacity: conversations that may be open at once.
            stage: whose outages are waited out, and whose `tools.policyServer` bounds requests.
        """
        self.endpoint, self.limits, self.capacity, self._stage = endpoint, limits, capacity, stage
        self._where = f"stages.{stage.config.kind}.endpoint"
        self._settings: PolicyServerSpec = stage.config.tools.policy_server
        self._counters = Counters()
        self._open: list[Conversation] = []
        self._opened = 0
        self._starting = asyncio.Lock()
        self.served_by = ServedModels()
        self._io: IOLoop | None = None
        self.account = Account({"": stage.config.tools.budget})

    # ---------------------------------------------------------------- gog.engine.Engine

    def prefetch(self, images: Sequence[Image]) -> None:
        """Does nothing: images are encoded when a prompt shows them."""

    async def open(
        self,
        prompt: str,
        images: Sequence[Image],
        seeds: Sequence[Seed],
        *,
        suppress: Sequence[str] = (),
        resume: Sequence[Sequence[Segment]] | None = None,
    ) -> list[ChatSession]:
        """See gog.engine.Engine.open. `suppress` has no effect: the episode refuses actions that are not allowed."""
        await self._start()
        urls = await asyncio.to_thread(chat_messages.data_urls, images)
        opening = chat_messages.segment("prompt", prompt, images[: prompt.count(prompts.IMAGE)])
        check_prompt(opening, self.limits)
        sessions = []
        for seed, segments in zip(seeds, resume or [()] * len(seeds), strict=True):
            check_resumable(segments, opening, self.limits, urls.__contains__)
            self._opened += 1
            transcript = Transcript(self.limits.tokens, list(segments) or [opening], dict(urls))
            conversation = Conversation(self._opened, seed, transcript)
            self._open.append(conversation)
            sessions.append(ChatSession(self, conversation))
        return sessions

    @property
    def busy(self) -> bool:
        """See gog.engine.Engine.busy: turns are sampled elsewhere."""
        return False

    async def hold(self) -> None:
        """See gog.engine.Engine.hold: no turn is sampled from a trainer's tensors."""

    async def switch(self, weights: Any, version: int) -> None:
        """Raises UserError: the endpoint has weights of its own."""
        raise UserError("an endpoint cannot be trained", where=self._where)

    async def rest(self) -> None:
        """See gog.engine.Engine.rest: nothing is held in this process."""

    def take_counters(self) -> Counters:
        """See gog.engine.Engine.take_counters."""
        counters, self._counters = self._counters, Counters()
        return counters

    async def close(self) -> None:
        """Ends the connections."""
        assert not self._open, "closed under a conversation"
        if self._io is not None:
            await self._io.run(self._path.abandon())
            await self._io.run(self._session.close())
            await self._io.run(self._spend_log.report())
            self._io.close()
            self._io = None

    # ---------------------------------------------------------------- the endpoint

    async def _start(self) -> None:
        async with self._starting:
            if self._io is None:
                io = IOLoop("gog-endpoint")
                try:
                    await io.run(self._connect())
                except BaseException:
                    io.close()
                    raise
                self._io = io

    async def _connect(self) -> None:
        """Makes what belongs to the I/O loop."""
        self._spend_log = SpendLog.of_stage(self._stage.config, self.account)
        await self._spend_log.sync()  # what earlier stages spent
        self._reporting = asyncio.create_task(self._spend_log.run())  # ends with the loop
        self._session = tool_transport.open_session()
        key = api_keys.from_environment(key_variable(SERVICE))
        url = self.endpoint.url.rstrip("/").removesuffix("/v1") + tool_api.CHAT_PATH
        transport = tool_transport.Transport(self._session, SERVICE, url, key)
        policy = CallPolicy(
            concurrency=min(self._settings.concurrency, 1024),
            attempts=ATTEMPTS,
            deadline_seconds=self._settings.deadline_seconds,
            budget_seconds=ATTEMPTS * self._settings.deadline_seconds,
            backoff_seconds=self._settings.backoff_seconds,
        )
        self._path: CallPath[Completion] = CallPath(
            SERVICE,
            tool_transport.BACKEND,
            chat_dialect.DialectTransport(transport.send).send,
            policy,
            Cache(CacheSpec(mode="off")),
            answered_by=self.endpoint.url,
            build=asyncio.to_thread,
            account=self.account,
            price_of=self._price,
        )

    def _price(self, turn: Completion) -> float:
        """US dollars of a turn, by the tokens that the server reports."""
        prompt, written = self.endpoint.usd_per_million_prompt_tokens, self.endpoint.usd_per_million_completion_tokens
        return (turn.read * prompt + turn.written * written) / 1e6

    async def _complete(self, conversation: Conversation) -> Completion:
        """The next turn; waits while the endpoint is down.

        Raises:
            QuestionSkipped: the endpoint refuses the request, or fails at it time and again.
            ServiceDown: it was down for longer than the stage waits.
            UserError: it refused every request so far, or the budget of the run is used up.
        """
        place = (conversation.transcript.turns,)
        arguments = {"conversation": conversation.number, "seed": conversation.seed, "place": place}
        failures = TurnFailures(self._where)
        while True:
            reply = await self._call(arguments, lambda: self.body(conversation))
            if reply.failure is None:
                return reply.unwrap()
            if reply.failure.kind in REFUSED:
                raise QuestionSkipped(f"the model's server: {reply.failure.words}", where=self._where)
            failures.note(reply.failure)
            # The call path has paused between its attempts; what remains is a wait longer than its budget. It is cut, so
            # that a server that asks for hours counts as down.
            await asyncio.sleep(min(reply.failure.retry_after or 0.0, outage.LONGEST_PROBE))

    async def _call(self, arguments: Mapping[str, Any], body: Callable[[], bytes]) -> Reply[Completion]:
        """One call of the endpoint, with its attempts. Raises ServiceDown, UserError."""
        io = self._io
        assert io is not None
        try:
            return await self._stage.watch().call(
                SERVICE, lambda: io.run(self._path.call(arguments, body, chat_messages.read))
            )
        except outage.BudgetUsedUp:
            raise
        except UserError as error:
            remedy = "check url, model and key (ENDPOINT_GOG_API_KEY)"
            raise UserError(error.what, where=self._where, remedy=remedy) from None

    def body(self, conversation: Conversation) -> bytes:
        """The request for a conversation's next turn, as JSON."""
        request: dict[str, Any] = {
            "model": self.endpoint.model,
            "messages": chat_messages.messages(conversation.transcript.parts, conversation.transcript.urls),
            "temperature": self.limits.temperature,
            "max_tokens": self.limits.turn_tokens,
            "seed": noise(conversation.seed, (conversation.transcript.turns,)) >> 32,  # some servers take 31 bits only
            **self.endpoint.request,
        }
        return json.dumps(request).encode()

    # ---------------------------------------------------------------- what sessions ask for

    async def generate(self, conversation: Conversation) -> Generation:
        """The next turn of a conversation."""
        if conversation.transcript.room() < 1:
            return chat_transcript.FULL
        turn = await self._complete(conversation)
        self.served_by.see(turn.served_by)
        metrics.record_tokens("prefilled", turn.read)
        metrics.record_tokens("generated", turn.written)
        self._counters = Counters.total(
            (self._counters, Counters(generated=turn.written, prefilled=turn.read, unique=turn.read, steps=1))
        )
        return conversation.transcript.append(turn)

    def release(self, conversation: Conversation) -> None:
        """Frees the place of a conversation that is over; again is harmless."""
        self._open = [each for each in self._open if each is not conversation]


@dataclass
class ChatSession:
    """One conversation with the engine. Implements gog.agent.Session."""

    engine: ChatEngine
    """Where turns are sampled."""
    conversation: Conversation
    """Its state."""

    async def generate(self) -> Generation:
        """Samples the next turn."""
        return await self.engine.generate(self.conversation)

    def room(self) -> int:
        """Tokens that the conversation can still take."""
        return self.conversation.transcript.room()

    async def encode(self, body: str, images: Sequence[Image], note: str = "") -> Segment:
        """An observation with its frame, as a segment. Appends nothing."""
        return await self.conversation.transcript.encode(body, images, note)

    def observe(self, observation: Segment) -> None:
        """Appends an observation."""
        check_observation(observation, self.room())
        self.conversation.transcript.observe(observation)

    def segments(self) -> tuple[Segment, ...]:
        """The conversation so far."""
        return self.conversation.transcript.segments()

    def close(self) -> None:
        """Frees its place."""
        self.engine.release(self.conversation)

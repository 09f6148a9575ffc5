"""The vLLM engine: turns are sampled by servers, whose prefix cache makes a turn cost what is new in it.

A turn is one request with the whole conversation as token ids and images (`vllm_request`). Servers may be several
(`vllm_fleet`); each holds the base model and is given every version of the policy as an adapter (`vllm_weights`), which
it must prove to compute what the trainer computes. Sampling noise belongs to conversation and turn, so a turn that is
repeated after a failure repeats its tokens; with other requests in its batch a server may differ in the last bits.

A server that dies, restarts or asks for patience is never blamed on the policy: the turn is sampled again, on another
replica or when the server responds, and the stage waits as it waits for tools (`gog.outage`). Sockets and deadlines live
on a loop of their own; images are prepared and requests built in worker threads.

Not here: streaming, swaps within a turn, starting servers (the control plane does that).
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import random
import shutil
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch

from gog import api_keys, metrics, outage, prompts, tool_transport
from gog.agent import Generation
from gog.engine import Counters, Seed
from gog.errors import UserError
from gog.images import Image
from gog.io_loop import IOLoop
from gog.spec import key_variable
from gog.tool_types import Reply
from gog.trajectory import Segment
from gog_recipes.models import policy_model
from gog_recipes.rollout import vllm_check, vllm_leftovers, vllm_names, vllm_proof, vllm_replica, vllm_weights
from gog_recipes.rollout import vllm_request as requests
from gog_recipes.rollout.engine import Parts, check_observation, check_prompt, check_resumable
from gog_recipes.rollout.turn_failures import TurnFailures
from gog_recipes.rollout.vllm_fleet import SERVICE, Fleet, Sampled
from gog_recipes.rollout.vllm_images import SentImage, SentImages
from gog_recipes.rollout.vllm_replica import WHERE, Probe, Replica, Served
from gog_recipes.rollout.vllm_session import Conversation, VLLMSession
from gog_recipes.rollout.vllm_versions import Versions
from gog_recipes.runtime.interruption import Interrupted

Value = TypeVar("Value")


class VLLMEngine:
    """Samples from vLLM servers. Implements gog.engine.Engine."""

    def __init__(self, parts: Parts) -> None:
        """Prepares what the servers must prove; they are asked when the first conversation opens. All ranks at once.

        Raises:
            UserError: no server is named, or results must repeat bit for bit.
        """
        assert parts.stage is not None, "the vllm engine needs its stage"
        self._parts, self.processor, self.limits = parts, parts.processor, parts.limits
        self.style, self.capacity = parts.processor.style, parts.capacity
        self._stage, self._ranks = parts.stage, parts.stage.ranks
        self._settings = parts.stage.config.tools.policy_server
        self._urls = vllm_check.urls(parts.stage.config.endpoints.get(SERVICE, ""))
        if not self._urls:
            raise UserError(
                "engine vllm needs a server", where=WHERE, remedy="set endpoints.policy: {url: …} or {runtime: vllm}"
            )
        if parts.settings.deterministic:
            raise UserError(
                "vLLM repeats no result bit for bit",
                where="deterministic",
                remedy="remove it, or sample with engine: transformers",
            )
        self._images = SentImages(parts.processor, parts.vision)
        self._counters = Counters()
        self._open: list[Conversation] = []
        self._sampling = 0
        self._written: set[str] = set()
        stage = f"{parts.stage.config.run}-{parts.stage.key}"
        self._leftovers = vllm_leftovers.Leftovers(stage, lambda: self._written)
        self._versions = Versions(self._serve(parts.model, parts.version), self._ranks)
        self._proofs = vllm_proof.make(parts.model, self._versions.current, self._probe, self._ranks)
        self._written.update(proof.served.name for proof in self._proofs)
        if self._ranks.is_main:
            self._leftovers.delete(self._folder)
        self._starting = asyncio.Lock()
        self._io: IOLoop | None = None
        self._rng = random.Random(0)

    # ---------------------------------------------------------------- gog.engine.Engine

    @property
    def version(self) -> int:
        """Version of the weights that turns are sampled from."""
        return self._versions.current.version

    def prefetch(self, images: Sequence[Image]) -> None:
        """Does nothing: images are prepared in worker threads when a prompt shows them."""

    async def open(
        self,
        prompt: str,
        images: Sequence[Image],
        seeds: Sequence[Seed],
        *,
        suppress: Sequence[str] = (),
        resume: Sequence[Sequence[Segment]] | None = None,
    ) -> list[VLLMSession]:
        """See gog.engine.Engine.open."""
        await self._start()
        sent = dict(zip((image.hash for image in images), await self._images.get(images), strict=True))
        opening = self._segment("prompt", prompt, [image.hash for image in images[: prompt.count(prompts.IMAGE)]], sent)
        check_prompt(opening, self.limits)
        earlier = resume or [()] * len(seeds)
        for segments in earlier:
            check_resumable(segments, opening, self.limits, sent.__contains__)
        suppressed, sessions = tuple(self.processor.forbidden(suppress)), []
        # One home for a group, whose prompt it reads once.
        home = self._fleet.home(Counter(each.home.url for each in self._open))
        for seed, segments in zip(seeds, earlier, strict=True):
            conversation = Conversation(seed, suppressed, home)
            for segment in segments or [opening]:
                self._append(conversation, segment, [sent[image] for image in segment.images])
            conversation.turns = sum(segment.source == "model" for segment in conversation.segments)
            self._open.append(conversation)
            sessions.append(VLLMSession(self, conversation))
        self._count(unique=sum(session.conversation.tokens for session in sessions) if resume else len(opening.tokens))
        return sessions

    @property
    def busy(self) -> bool:
        """See gog.engine.Engine.busy: turns are sampled elsewhere."""
        return False

    async def hold(self) -> None:
        """See gog.engine.Engine.hold: servers have copies of the trainer's tensors."""

    async def switch(self, weights: Any, version: int) -> None:
        """See gog.engine.Engine.switch; a turn in flight ends on the version that it began with."""
        served = self._serve(weights, version)
        await self._start()
        await self._unless_interrupted(self._call(lambda: self._fleet.require(served)))
        self._versions.advance(served)
        await self._unless_interrupted(self._unload(self._versions.take_unused()))

    async def _unless_interrupted(self, work: Coroutine[Any, Any, object]) -> None:
        """Does something that may wait for a server, unless this process is asked to end: the first turn on a version loads
        it, too, and a version that stays loaded costs space only."""
        with contextlib.suppress(Interrupted):
            await self._stage.interruption.race(work)

    async def rest(self) -> None:
        """See gog.engine.Engine.rest: nothing is held in this process."""

    def take_counters(self) -> Counters:
        """See gog.engine.Engine.take_counters."""
        counters, self._counters = self._counters, Counters()
        return counters

    async def close(self) -> None:
        """Unloads the adapters and ends the connections."""
        assert not self._open, "closed under a conversation"
        if self._io is not None:
            await self._unload(self._versions.take_all())
            for proof in self._proofs:
                shutil.rmtree(proof.served.folder, ignore_errors=True)
            await self._io.run(self._session.close())
            self._io.close()
            self._io = None

    # ---------------------------------------------------------------- weights

    def _serve(self, model: torch.nn.Module, version: int) -> Served:
        """Writes a version of the policy for the servers to load. All ranks at once."""
        parts, name, probe = self._parts, self._leftovers.stage, self._probe(model)
        served = vllm_weights.serve(model, parts.saved, version, name, self._folder, self._ranks, probe)
        self._written.add(served.name)
        return served

    @property
    def _folder(self) -> Path:
        """Where versions are written."""
        return Path(self._settings.adapters or self._stage.common / "adapters")

    def _probe(self, model: torch.nn.Module) -> Probe:
        return vllm_weights.probe(model, self.processor, self._parts.vision)

    async def _unload(self, unused: Sequence[Served]) -> None:
        """Unloads versions and deletes their files. Ranks share both, so one of them does it."""
        for served in unused:
            if served.name and self._ranks.is_main and self._io is not None:
                await self._io.run(self._fleet.unload(served))
                shutil.rmtree(served.folder, ignore_errors=True)  # what is left costs space only

    # ---------------------------------------------------------------- servers

    async def _start(self) -> None:
        """Connects to the servers and checks those that respond, once."""
        async with self._starting:
            if self._io is not None:
                return
            self._io = IOLoop("gog-vllm")
            try:
                await self._io.run(self._connect())
                served = self._versions.current
                await self._call(lambda: self._fleet.require(served))
            except BaseException:
                await self._io.run(self._session.close())
                self._io.close()
                self._io = None
                raise

    async def _connect(self) -> None:
        """Makes what belongs to the I/O loop."""
        self._session = tool_transport.open_session(vllm_replica.CONNECT_SECONDS)
        names = vllm_names.Names(self._urls)
        replicas = [self._replica(url) for url in await names.replicas()]
        self._fleet = Fleet(replicas, names=names, join=self._replica)

    def _replica(self, url: str) -> Replica:
        key = api_keys.from_environment(key_variable(SERVICE))
        return vllm_replica.connect(url, self._session, self._settings, key, self._proofs, self._check)

    async def _check(self, replica: Replica) -> None:
        """Checks a server, and unloads what an earlier attempt left there."""
        experts = bool(policy_model.family_of(self._parts.model).lora_parameters)
        adapters = bool(self._versions.current.name)
        await vllm_check.check(replica, self.processor, self.limits, adapters=adapters, experts=experts)
        if self._ranks.is_main:
            await self._leftovers.unload(replica)

    async def _call(
        self, send: Callable[[], Coroutine[Any, Any, Reply[Value]]], failures: TurnFailures | None = None
    ) -> Value:
        """What `send` returns once the servers respond; waits for them as for tools.

        Args:
            send: asks them.
            failures: of the turn that is sampled; None for what is no turn.

        Raises:
            ServiceDown: they were down for longer than the stage waits.
            QuestionSkipped: they fail at this turn, while they sample others.
            UserError: what waiting does not change.
        """
        io = self._io
        assert io is not None
        attempt = 0
        while True:
            if failures is not None and failures.killed and self._sampling == 1:  # no other turn may have killed it
                await self._stage.watch().call(SERVICE, lambda: io.run(self._fleet.health()))
                reply = await io.run(send())
            else:
                reply = await self._stage.watch().call(SERVICE, lambda: io.run(send()))
            if reply.failure is None:
                assert reply.value is not None
                return reply.value
            if failures is not None:
                failures.note(reply.failure)
            attempt += 1
            pause = self._settings.backoff_seconds * 2 ** min(attempt - 1, 6) * (0.5 + self._rng.random() / 2)
            await asyncio.sleep(min(reply.failure.retry_after or pause, outage.LONGEST_PROBE))

    # ---------------------------------------------------------------- what sessions ask for

    async def generate(self, conversation: Conversation) -> Generation:
        """The next turn of a conversation."""
        budget = min(self.room(conversation), self.limits.turn_tokens)
        if budget < 1:
            return Generation("", finished=False, room=False)
        with self._versions.sampling() as served:
            tokens, logprobs, finished = await self._turn(conversation, served, budget)
        if served is not self._versions.current and self._ranks.size == 1:  # others may need it until the next switch
            await self._unless_interrupted(self._unload(self._versions.take_unused()))
        text, overrun = self.processor.turn_text(tokens)
        turn = Segment(
            source="model", tokens=tuple(tokens), logprobs=tuple(logprobs), version=served.version, overrun=overrun
        )
        self._append(conversation, turn, [])
        conversation.turns += 1
        return Generation(text, finished, self.room(conversation) > 0)

    async def _turn(
        self, conversation: Conversation, served: Served, budget: int
    ) -> tuple[list[int], list[float], bool]:
        """Tokens and log-probs of a turn of at most `budget` tokens, and whether it ended by itself. Several requests
        where the server stopped at what only looked like an end."""
        tokens: list[int] = []
        logprobs: list[float] = []
        length = 0
        while not length and len(tokens) < budget:
            place = (conversation.turns, len(tokens))
            parameters = requests.sampling(
                self.processor, self.limits, conversation.suppressed, conversation.seed, place, budget - len(tokens)
            )
            prompt, images = conversation.prompt.then(tokens), tuple(each.uri for each in conversation.images)
            request = functools.partial(self._fleet.generate, conversation.home, served, prompt, images, parameters)
            self._sampling += 1
            try:
                sampled: Sampled = await self._call(request, TurnFailures(WHERE))
            finally:
                self._sampling -= 1
            conversation.home, answer = sampled.replica, sampled.answer
            read = len(prompt.expanded) - answer.cached
            metrics.record_tokens("prefilled", read)
            metrics.record_tokens("generated", len(answer.tokens))
            self._count(generated=len(answer.tokens), prefilled=read, steps=1)
            known = len(tokens)
            tokens, logprobs = tokens + answer.tokens, logprobs + answer.logprobs
            length = await asyncio.to_thread(requests.turn_length, tokens, self.processor, known)
        end = length or len(tokens)
        return tokens[:end], logprobs[:end], bool(length)

    def room(self, conversation: Conversation) -> int:
        """Tokens that a conversation can still take."""
        return self.limits.tokens - conversation.tokens

    async def encode(self, body: str, images: Sequence[Image], note: str) -> tuple[Segment, list[SentImage]]:
        """The tokens of an observation with its frame, and its images as they are sent."""
        sent = await self._images.get(images)
        hashes = [image.hash for image in images]
        text = prompts.observation(body, note)
        return self._segment("observation", text, hashes, dict(zip(hashes, sent, strict=True))), sent

    def observe(self, conversation: Conversation, observation: Segment, images: list[SentImage]) -> None:
        """Appends an observation."""
        check_observation(observation, self.room(conversation))
        self._append(conversation, observation, images)
        self._count(unique=len(observation.tokens))

    def release(self, conversation: Conversation) -> None:
        """Frees the place of a conversation that is over; again is harmless."""
        self._open = [each for each in self._open if each is not conversation]

    def _segment(self, source: Any, text: str, images: Sequence[str], sent: dict[str, SentImage]) -> Segment:
        ids = self.processor.encode(text, [sent[image].tokens for image in images])
        return Segment(source=source, tokens=tuple(ids), images=tuple(images))

    def _append(self, conversation: Conversation, segment: Segment, images: list[SentImage]) -> None:
        tokens = {image: sent.tokens for image, sent in zip(segment.images, images, strict=True)}
        conversation.segments.append(segment)
        conversation.prompt.append(segment, self.processor.image_pad, tokens.__getitem__)
        conversation.images += images

    def _count(self, **more: int) -> None:
        self._counters = Counters.total((self._counters, Counters(**more)))

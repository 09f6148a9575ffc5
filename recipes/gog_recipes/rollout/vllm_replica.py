"""One vLLM server: requests with bounded concurrency and deadlines, and the adapters that it has loaded.

A server that restarts has lost its adapters, and answers that the model does not exist. That is no fault of the request:
the adapter is loaded and verified again, then the request is repeated. What cannot be had by waiting (a missing endpoint,
a rank that the server does not take) is a UserError that names the option to start the server with.

Everything here runs in one event loop, that of `gog.io_loop`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np

from gog import tool_transport, wording
from gog.errors import NotFinite, UserError
from gog.spec import PolicyServerSpec
from gog.tool_transport import Transport
from gog.tool_types import CallError, FailureKind
from gog_recipes.rollout import vllm_request as requests
from gog_recipes.rollout.vllm_delivery import Receiver, address

LOAD, UNLOAD = "/v1/load_lora_adapter", "/v1/unload_lora_adapter"
MODELS = "/v1/models"
"""Lists the base model, and its adapters, which have it as their parent."""
CONNECT_SECONDS = 10.0
"""Seconds after which a host that answers nothing at all counts as unreachable."""
WHERE = "endpoints.policy"
DIED = "EngineCore encountered an issue"
"""Part of the answer to a request that killed vLLM's engine."""
NO_ROUTE = "HTTP 404: Not Found"
"""What a path that the server does not have is answered with."""


@dataclass(frozen=True, eq=False)
class Probe:
    """A fixed prompt, and what the trainer makes of it with an adapter's weights."""

    prompt: requests.Prompt
    """The prompt, with an image."""
    images: tuple[str, ...]
    """Its images as data URIs."""
    logprobs: np.ndarray
    """[n] the trainer's log-probs of its last n tokens, those after the image; all tokens of the vocabulary allowed."""
    tolerance: float
    """Mean difference in nats that is accepted."""

    def check(self, answer: requests.Answer, server: str) -> None:
        """Raises UserError if a server computes something else."""
        difference = float(np.abs(answer.prompt_logprobs - self.logprobs).mean())
        if not difference <= self.tolerance:  # also if it is not a number
            raise UserError(
                f"log-probs of {server} differ from the trainer's by {difference:.3g} nats on average, by at most "
                f"{self.tolerance:g} if both compute the same model",
                where=WHERE,
                remedy="serve the base model of the run in its dtype, for example with --dtype float32",
            )


@dataclass(frozen=True, eq=False)
class Served:
    """Weights that servers sample from."""

    name: str
    """Name of the adapter; empty for the plain base model."""
    folder: str
    """Where every replica reads the adapter; empty for the base model."""
    version: int
    """Recorded with every turn that they sample."""
    probe: Probe
    """Distinguishes these weights from others."""


@dataclass(frozen=True, eq=False)
class Proof:
    """A part of an adapter, multiplied until its effect shows through the rounding of the weights' type (`vllm_proof`)."""

    kind: str
    """The modules that it changes, for messages."""
    served: Served
    """The adapter. Its probe accepts half of the effect."""


@dataclass
class Replica:
    """One server."""

    url: str
    """Its base URL."""
    session: aiohttp.ClientSession
    """Open for as long as the replica is used."""
    settings: PolicyServerSpec
    """Concurrency and deadlines."""
    key: str = ""
    """API key; empty where the server requires none."""
    base: str = ""
    """Name under which it serves the base model; known after the check (`vllm_check`)."""
    proofs: Sequence[Proof] = ()
    """What it must compute before it gets its first adapter."""
    receiver: Receiver | None = None
    """Takes adapters for it; None where it reads the trainer's folder."""
    loaded: set[str] = field(default_factory=set)
    """Adapters that it has, as far as is known; with "" its base computes what the trainer's does."""
    check: Callable[[Replica], Awaitable[None]] | None = None
    """Whether it can be the policy (`vllm_check`). Raises CallError while it does not respond, UserError if it cannot."""
    checked: bool = False
    """Whether it passed the check since its start, as far as is known."""
    proved: bool = False
    """Whether it passed the proofs since its start, as far as is known."""

    def __post_init__(self) -> None:
        self._slots = asyncio.Semaphore(self.settings.concurrency)
        self._loading = asyncio.Lock()
        self._failed: CallError | None = None

    async def generate(
        self, served: Served, prompt: requests.Prompt, images: tuple[str, ...], parameters: dict[str, Any]
    ) -> requests.Answer:
        """Samples a turn, or a part of one.

        Raises:
            CallError: a transient failure.
            UserError: a refusal, another prompt than was meant, or a log-prob that is not finite.
        """
        async with self._slots:
            for last in (False, True):
                await self.require(served)
                try:
                    return await self._ask(served.name, prompt, images, parameters)
                except CallError as error:
                    if last or not (served.name and "does not exist" in error.message):
                        raise _as_user_error(error, self.url) or error from None
                    self.forget()  # the server was restarted
        raise AssertionError

    async def _ask(
        self, model: str, prompt: requests.Prompt, images: tuple[str, ...], parameters: dict[str, Any]
    ) -> requests.Answer:
        body = await asyncio.to_thread(requests.body, model or self.base, prompt, images, parameters)
        answer = await self.send(requests.GENERATE, body)
        try:
            return await asyncio.to_thread(requests.read, answer, prompt)
        except ValueError as error:
            raise CallError(FailureKind.MALFORMED, wording.one_line(str(error))) from None
        except NotFinite as error:
            raise NotFinite(f"{self.url} {error.what}", where=error.where, remedy=error.remedy) from None

    async def require(self, served: Served) -> None:
        """Checks the server unless it is known, then loads an adapter and verifies it unless the server has it.

        Raises:
            CallError: a transient failure.
            UserError: the server cannot be the policy or load the adapter, or computes something else.
        """
        if self._has(served):
            return
        before = self._failed
        async with self._loading:
            if self._failed is not None and self._failed is not before:  # while this waited
                raise self._failed
            try:
                await self._prepare(served)
            except CallError as error:
                self._failed = error
                raise

    async def _prepare(self, served: Served) -> None:
        await self.admit()
        if self._has(served):
            return
        if served.name:
            await self._prove()
            await self._load(served)
        await self.verify(served)
        self.loaded.add(served.name)

    def _has(self, served: Served) -> bool:
        return self.checked and served.name in self.loaded

    async def admit(self) -> None:
        """Checks the server, unless that has been done since its start. Raises CallError and UserError."""
        if not self.checked:
            if self.check is not None:
                await self.check(self)
            self.checked = True

    def forget(self) -> None:
        """Takes nothing about the server for granted any more: it may be another one at the same address."""
        self.checked = self.proved = False
        self.loaded.clear()

    async def _prove(self) -> None:
        for proof in () if self.proved else self.proofs:
            await self._load(proof.served)
            self.loaded.add(proof.served.name)
            try:
                await self.verify(proof.served)
            except UserError as error:
                raise UserError(
                    f"{self.url} does not apply adapters of {proof.kind}: {error.what}",
                    where=WHERE,
                    remedy="serve with the version of vLLM that docs/engines.md names, or sample with engine: transformers",
                ) from None
            finally:
                await self.unload(proof.served)
        self.proved = True

    async def _load(self, served: Served) -> None:
        folder = served.folder
        if self.receiver is not None:
            folder = await self.receiver.deliver(served.name, Path(served.folder))
        try:
            await self.post(LOAD, lora_name=served.name, lora_path=folder)
        except CallError as error:
            if "has already been loaded" not in error.message:  # by another rank
                raise _load_error(error, self.url, served) or error from None

    async def verify(self, served: Served) -> None:
        """Compares the server's log-probs of a fixed prompt with the trainer's.

        Raises:
            CallError: a transient failure.
            UserError: they differ, or the request is refused.
        """
        parameters = {"temperature": 0.0, "max_tokens": 1, "logprobs": 0, "prompt_logprobs": 0, "ignore_eos": True}
        try:
            answer = await self._ask(served.name, served.probe.prompt, served.probe.images, parameters)
        except CallError as error:
            raise _as_user_error(error, self.url) or error from None
        served.probe.check(answer, f"{served.name or self.base} on {self.url}")

    async def unload(self, served: Served) -> None:
        """Unloads an adapter. A server that does not have it, or does not respond, has nothing to unload."""
        if served.name:
            with contextlib.suppress(CallError):
                await self.drop(served.name)

    async def drop(self, name: str) -> None:
        """Unloads the adapter of a name, whichever rank or attempt loaded it, and removes its files beside the server.

        Raises:
            CallError: a transient failure.
        """
        self.loaded.discard(name)
        try:
            await self.post(UNLOAD, lora_name=name)
        except CallError as error:
            if error.kind is not FailureKind.REFUSED:  # it does not have it
                raise
        if self.receiver is not None:
            await self.receiver.remove(name)

    async def names(self) -> set[str]:
        """Names of the adapters that the server has, and of those whose files lie beside it. Raises CallError."""
        models = (await self.get(MODELS)).get("data", [])
        there = {} if self.receiver is None else await self.receiver.names()
        return {str(each["id"]) for each in models if each.get("parent")} | there.keys()

    async def post(self, path: str, **fields: Any) -> bytes:
        """Sends a small JSON request. Raises CallError."""
        return await self.send(path, json.dumps(fields).encode())

    async def send(self, path: str, body: bytes) -> bytes:
        """Sends a request within the deadline. Raises CallError."""
        try:
            return await self._send(path, body)
        except CallError as error:
            if error.kind is FailureKind.CONNECTION or DIED in error.message:
                self.forget()
            raise

    async def _send(self, path: str, body: bytes) -> bytes:
        transport, deadline = (
            Transport(self.session, "policy", self.url + path, self.key),
            self.settings.deadline_seconds,
        )
        try:
            return await asyncio.wait_for(transport.send(body), deadline)
        except aiohttp.ConnectionTimeoutError:
            raise CallError(FailureKind.CONNECTION, f"no connection within {CONNECT_SECONDS:g} s") from None
        except TimeoutError:
            raise CallError(FailureKind.TIMEOUT, f"no answer within {deadline:g} s") from None

    async def get(self, path: str) -> Any:
        """The JSON document at a path. Raises CallError."""
        text = await self._fetch(path)
        try:
            return json.loads(text)
        except ValueError:
            raise CallError(FailureKind.MALFORMED, f"{path} is not JSON") from None

    async def health(self) -> None:
        """Asks the server whether it is well. Raises CallError."""
        await self._fetch("/health")

    async def _fetch(self, path: str) -> bytes:
        headers = {"authorization": f"Bearer {self.key}"} if self.key else {}
        try:
            async with (
                asyncio.timeout(self.settings.deadline_seconds),
                self.session.get(self.url + path, headers=headers) as response,
            ):
                text = await response.content.read(tool_transport.MAX_WHOLE_BODY)
                tool_transport.check_status(response.status, {}, tool_transport.explanation(text, self.key))
                return text
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise CallError(FailureKind.CONNECTION, wording.one_line(f"{type(error).__name__}: {error}")) from None


def connect(
    url: str,
    session: aiohttp.ClientSession,
    settings: PolicyServerSpec,
    key: str,
    proofs: Sequence[Proof],
    check: Callable[[Replica], Awaitable[None]],
) -> Replica:
    """The server at a URL, with the receiver beside it where the settings name its port."""
    made = Replica(url, session, settings, key, proofs=proofs, check=check)
    if settings.receiver_port is not None:
        made.receiver = Receiver(address(url, settings.receiver_port), session, settings.deadline_seconds, key)
    return made


def _as_user_error(error: CallError, url: str) -> UserError | None:
    """The UserError for a refusal, which waiting does not change; None for other failures."""
    if error.kind not in (FailureKind.REFUSED, FailureKind.AUTH):
        return None
    remedy = "start vLLM with --enable-scale-out" if error.message == NO_ROUTE else "see the server's log"
    return UserError(f"{url} refused a request: {error.message}", where=WHERE, remedy=remedy)


def _load_error(error: CallError, url: str, served: Served) -> UserError | None:
    """The UserError for an adapter that a server will never load; None for other failures."""
    remedies = {
        NO_ROUTE: "start vLLM with VLLM_ALLOW_RUNTIME_LORA_UPDATING=True in its environment, and with --enable-lora",
        "LoRA is not enabled": "start vLLM with --enable-lora",
        "max_lora_rank": "start vLLM with a larger --max-lora-rank",
        "No adapter found": "set tools.policyServer.adapters to a folder that every replica sees under the same path, or "
        "run a receiver beside each replica and set tools.policyServer.receiverPort",
    }
    for words, remedy in remedies.items():
        if words in error.message:
            return UserError(f"{url} cannot load {served.folder}: {error.message}", where=WHERE, remedy=remedy)
    return _as_user_error(error, url)

"""Rolls a version of the policy out to every pod: each pod loads and verifies it before any pod makes it the default.

A load request affects one process of one pod and is lost when that process restarts. Each pod is therefore contacted at
its own address, every pass first lists the loaded versions, and passes repeat until every pod is up to date; a later
pass completes what an operator that died left unfinished. Each version has its own name (`grpo/120` is `grpo-120`), so
the weights under a name never change. Requests for the name `policy` use each pod's default, which is switched only
after every pod has loaded the version and completed a token with it. The previous version stays loaded for clients that
still name it; older versions are unloaded.

Supports gog's policy server and vLLM with runtime LoRA updating; `_Pod` holds the differences. vLLM reads folders only, so
the checkpoint is fetched to one first: by the receiver in its pod (gog_tools.policy.receiver), or by the caller for a vLLM
of the same machine. A pod that does not respond in time is waited for and never failed, because it may still be loading.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Literal, TypeVar
from urllib.parse import urlsplit

from gog import offers, store
from gog.errors import UserError
from gog_operator.build.vllm import RECEIVER_PORT
from gog_operator.cluster import bounded_http
from gog_operator.cluster.bounded_http import Answer

MODELS, LOAD, UNLOAD = "/v1/models", "/v1/load_lora_adapter", "/v1/unload_lora_adapter"
DEFAULT, COMPLETIONS = "/v1/default", "/v1/completions"
VERSION = re.compile(r"[a-z][-a-z0-9]*-[0-9]+")
"""Names of versions; other names on a server are never unloaded."""
PROBE = {"prompt": "what", "max_tokens": 1, "temperature": 0}
"""The request that verifies a version."""
TIMEOUT_SECONDS = 5.0
"""Timeout of a request."""
AT_ONCE = 16
"""Maximum number of pods contacted at the same time."""
KEPT = 1
"""Number of previous versions that stay loaded."""
MAX_ANSWER = 4_000_000
"""Maximum bytes read of a response."""

Value = TypeVar("Value")


@dataclass(frozen=True)
class Outcome:
    """The result of one pass."""

    state: Literal["done", "waiting", "failed"]
    """done: every pod serves the version; waiting: another pass may help; failed: it will not."""
    message: str
    """The pod and its response."""


Request = Callable[[str, "Mapping[str, Any] | None"], Answer]
"""(URL, body of a POST request or None for GET) -> Answer. Raises OSError on timeout."""
Fetch = Callable[[str], str]
"""Checkpoint, such as `grpo/120` -> folder with its adapter. Raises store.Unavailable, UserError."""


class _Stop(Exception):
    """Ends the pass with an outcome."""

    def __init__(self, state: Literal["waiting", "failed"], message: str) -> None:
        super().__init__(message)
        self.outcome = Outcome(state, message)


def ensure_version(
    pods: Sequence[str],
    version: str,
    request: Request,
    *,
    receiver: int = RECEIVER_PORT,
    fetch: Fetch | None = None,
) -> Outcome:
    """Makes one pass of a rollout. A pod's failure becomes the outcome and is never raised.

    Args:
        pods: Address of each pod, such as `http://10.0.0.7:8080`.
        version: The version, such as `grpo/120`, and further ones that are loaded for clients that name them, separated by
            spaces; empty for the base.
        request: Sends a request to a pod.
        receiver: Port of the receiver of adapters in pods of vLLM.
        fetch: Fetches a checkpoint for a vLLM that reads the folders of this process; None where its receiver does.
    """
    if not pods:
        return Outcome("waiting", "no pod serves the policy yet")
    try:
        found = _on_each([_Pod(url, request, version.split(), receiver, fetch) for url in pods], _Pod.refresh)
        for each in reversed(version.split() or [""]):  # the default last
            for pod in found:
                pod.version = each
            for step in (_Pod.load, _Pod.verify):
                _on_each(found, step)
        for step in (_Pod.switch, _Pod.tidy):
            _on_each(found, step)
    except _Stop as stop:
        return stop.outcome
    return Outcome("done", f"{len(pods)} of {len(pods)} pods serve {version or 'the base'}")


def requester(key: str = "", *, seconds: float = TIMEOUT_SECONDS) -> Request:
    """Sends requests over HTTP. key: the pods' API key, if they require one; seconds: the timeout."""
    headers = {"content-type": "application/json"} | ({"authorization": f"Bearer {key}"} if key else {})

    def request(url: str, body: Mapping[str, Any] | None) -> Answer:
        data = None if body is None else json.dumps(body).encode()
        return bounded_http.request(url, seconds=seconds, limit=MAX_ANSWER, body=data, headers=headers)

    return request


class _Pod:
    """One server: the models it listed last, and the version it should serve."""

    def __init__(self, url: str, request: Request, versions: Sequence[str], receiver: int, fetch: Fetch | None) -> None:
        self.url, self.request, self.receiver, self.fetch = url.rstrip("/"), request, receiver, fetch
        self.version = versions[0] if versions else ""
        self.wanted = {offers.name_of(each) for each in versions}
        self.names: list[str] = []
        self.default = ""
        self.ours = True

    @property
    def name(self) -> str:
        """The version's name on this server. The base is the first in every listing."""
        return offers.name_of(self.version) if self.version else self.names[0]

    def refresh(self) -> _Pod:
        answer = self._call(MODELS)
        if answer.status != 200:
            raise self._refused("does not list its models", answer)
        try:
            cards = json.loads(answer.body)["data"]
            self.names = [str(card["id"]) for card in cards]
            self.default = next((str(card["id"]) for card in cards if card.get("default")), "")
            self.ours = cards[0]["owned_by"] == "gog"
        except (ValueError, KeyError, TypeError, AttributeError, IndexError):
            raise _Stop("waiting", f"{self.url}: {MODELS} is not what a policy server answers") from None
        return self

    def load(self) -> None:
        if self.name in self.names:
            return
        path = self.version if self.ours else self._fetched(self.fetch) if self.fetch else self._received()
        answer = self._call(LOAD, {"lora_name": self.name, "lora_path": path})
        if not self.ours and answer.status == 404 and b"NotFoundError" not in answer.body:
            raise _Stop("failed", f"{self.url} loads no adapters (set VLLM_ALLOW_RUNTIME_LORA_UPDATING=1)")
        if answer.status == 409 or (not self.ours and b"already" in answer.body):
            raise _Stop("waiting", f"{self.url}: {_describe(answer)}")
        if answer.status >= 400:
            raise self._refused(f"cannot load {self.version}", answer)
        self.refresh()
        if self.name not in self.names:
            raise _Stop("waiting", f"{self.url} does not list {self.name} yet")

    def _fetched(self, fetch: Fetch) -> str:
        try:
            return fetch(self.version)
        except store.Unavailable as error:
            raise _Stop("waiting", f"cannot fetch {self.version}: {error}") from None
        except UserError as error:
            raise _Stop("failed", error.sentence()) from None

    def _received(self) -> str:
        """Where vLLM finds the version, which the receiver in its pod fetches from the store."""
        host = urlsplit(self.url)
        beside = f"{host.scheme}://{host.netloc.removesuffix(f':{host.port}')}:{self.receiver}"
        answer = self._call(f"/adapters/{self.name}", {"ref": self.version}, beside)
        if answer.status != 200:
            raise self._refused(f"cannot fetch {self.version}", answer)
        try:
            return str(json.loads(answer.body)["path"])
        except (ValueError, KeyError, TypeError):
            raise _Stop("waiting", f"{beside} is not a receiver of adapters") from None

    def verify(self) -> None:
        """Completes one token with the version, unless it is the default already."""
        if self.ours and self.default == self.name:
            return
        answer = self._call(COMPLETIONS, PROBE | {"model": self.name})
        if answer.status != 200:
            raise self._refused(f"completes nothing with {self.name}", answer)
        try:
            model = json.loads(answer.body)["model"]
        except (ValueError, KeyError, TypeError):
            model = None
        if model != self.name:
            raise _Stop("failed", f"{self.url} answered for {self.name} as {model!r}")

    def switch(self) -> None:
        """Makes the version the default. vLLM has no default; its clients name the version in the ToolServer's status."""
        if not self.ours or self.default == self.name:
            return
        answer = self._call(DEFAULT, {"model": self.name})
        if answer.status != 200:
            raise self._refused(f"does not switch to {self.name}", answer)

    def tidy(self) -> None:
        """Unloads older versions. Names are listed in the order of loading, so the previous versions are the last."""
        kept = self.wanted | {self.name}
        others = [each for each in self.names if each not in kept and VERSION.fullmatch(each)]
        for old in others[: max(0, len(others) - KEPT)]:
            answer = self._call(UNLOAD, {"lora_name": old})
            if answer.status not in (200, 404):
                raise self._refused(f"does not unload {old}", answer)

    def _call(self, path: str, body: Mapping[str, Any] | None = None, url: str = "") -> Answer:
        try:
            return self.request((url or self.url) + path, body)
        except OSError as error:
            raise _Stop("waiting", f"{self.url} does not answer: {error or type(error).__name__}") from None

    def _refused(self, what: str, answer: Answer) -> _Stop:
        """The outcome of an error response. Another pass helps if the server is starting, busy or broken, but not if it
        rejected the request."""
        lasting = 400 <= answer.status < 500 and answer.status not in (404, 408, 409, 429)
        hint = " (does the ToolServer's Secret hold its key?)" if answer.status in (401, 403) else ""
        return _Stop("failed" if lasting else "waiting", f"{self.url} {what}: {_describe(answer)}{hint}")


def _describe(answer: Answer) -> str:
    """Status and message of an error response, in the formats that servers use, shortened to one line."""
    try:
        body = json.loads(answer.body)
        inner = body.get("error", body)
        text = inner.get("message") or inner.get("detail") if isinstance(inner, dict) else inner
    except (ValueError, AttributeError):
        text = answer.body.decode(errors="replace")
    return f"{answer.status} {' '.join(str(text).split())[:300]}".strip()


def _on_each(pods: Sequence[_Pod], work: Callable[[_Pod], Value]) -> list[Value]:
    """Runs a step on all pods at the same time; then raises the most severe failure."""
    if not pods:
        return []
    results: list[Value] = []
    stops: list[_Stop] = []
    with ThreadPoolExecutor(min(AT_ONCE, len(pods)), thread_name_prefix="version") as threads:
        for future in [threads.submit(work, pod) for pod in pods]:
            try:
                results.append(future.result())
            except _Stop as stop:
                stops.append(stop)
    if stops:
        raise min(stops, key=lambda stop: stop.outcome.state)  # "failed" before "waiting"
    return results

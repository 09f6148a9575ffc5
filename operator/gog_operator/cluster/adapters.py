"""Brings a version of the policy onto every pod that serves it: loaded, verified, and only then made the default.

A load reaches one process of one pod and is lost when that restarts. So each pod is asked at its own address, every call
checks first what is loaded, and the whole is repeated until nothing is left to do: an operator that dies between two
calls leaves nothing that the next pass does not finish. A version has a name of its own (`grpo/120` is `grpo-120`), so
the weights under a name never change. Requests for the name `policy` go to each pod's default, which is switched only
once every pod has loaded the version and completed a token with it. The version before stays loaded for clients that
still name it; older ones are unloaded.

Works with gog's policy server and with vLLM that allows runtime LoRA updating; `_Pod` holds the differences. A pod that
does not answer in time is waited for, never failed: it continues to load meanwhile.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from gog import adapters
from gog_operator.cluster import bounded_http
from gog_operator.cluster.bounded_http import Answer

MODELS, LOAD, UNLOAD = "/v1/models", "/v1/load_lora_adapter", "/v1/unload_lora_adapter"
DEFAULT, COMPLETIONS = "/v1/default", "/v1/completions"
VERSION = re.compile(r"[a-z][-a-z0-9]*-[0-9]+")
"""Names that we give; other names on a server are not ours to unload."""
PROBE = {"prompt": "what", "max_tokens": 1, "temperature": 0}
"""The request that verifies a version."""
TIMEOUT_SECONDS = 5.0
AT_ONCE = 16
"""Pods that are asked at the same time."""
KEPT = 1
"""Versions before the current one that stay loaded."""
MAX_ANSWER = 4_000_000
"""Bytes of an answer that are read."""

Value = TypeVar("Value")


@dataclass(frozen=True)
class Outcome:
    """The result of one pass."""

    state: Literal["done", "waiting", "failed"]
    """done: every pod serves the version; waiting: another pass may help; failed: it will not."""
    message: str
    """Which pod, and what it answered."""


Ask = Callable[[str, "Mapping[str, Any] | None"], Answer]
"""(address, body of a POST or None for a GET) -> Answer. Raises OSError when none comes within seconds."""


class _Stop(Exception):
    """Ends the pass with an outcome."""

    def __init__(self, state: Literal["waiting", "failed"], message: str) -> None:
        super().__init__(message)
        self.outcome = Outcome(state, message)


def ensure_version(pods: Sequence[str], version: str, ask: Ask, *, shared: str = "/mnt/adapters") -> Outcome:
    """Makes one pass towards every pod serving a version. Never raises for what a pod does.

    Args:
        pods: address of each, `http://10.0.0.7:8080`.
        version: `grpo/120`; "" for the base.
        ask: how a pod is asked.
        shared: folder in which vLLM's pods find adapters by name.
    """
    if not pods:
        return Outcome("waiting", "no pod serves the policy yet")
    try:
        found = _on_each([_Pod(url, ask, version, shared) for url in pods], _Pod.refresh)
        for step in (_Pod.load, _Pod.verify, _Pod.switch, _Pod.tidy):
            _on_each(found, step)
    except _Stop as stop:
        return stop.outcome
    return Outcome("done", f"{len(pods)} of {len(pods)} pods serve {version or 'the base'}")


def asker(key: str = "", *, seconds: float = TIMEOUT_SECONDS) -> Ask:
    """Asks over HTTP. key: of the pods, if they ask for one; seconds: for a whole answer."""
    headers = {"content-type": "application/json"} | ({"authorization": f"Bearer {key}"} if key else {})

    def ask(url: str, body: Mapping[str, Any] | None) -> Answer:
        data = None if body is None else json.dumps(body).encode()
        return bounded_http.request(url, seconds=seconds, limit=MAX_ANSWER, body=data, headers=headers)

    return ask


class _Pod:
    """One server: what it had loaded when it was last asked, and what it shall serve."""

    def __init__(self, url: str, ask: Ask, version: str, shared: str) -> None:
        self.url, self.ask, self.version, self.shared = url.rstrip("/"), ask, version, shared
        self.names: list[str] = []
        self.default = ""
        self.ours = True

    @property
    def name(self) -> str:
        """The version's name on this server; the base comes first in every listing."""
        return adapters.name_of(self.version) if self.version else self.names[0]

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
        path = self.version if self.ours else f"{self.shared}/{self.name}"
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
        """Makes the version the default. vLLM has none: its clients name the version of the endpoint's status."""
        if not self.ours or self.default == self.name:
            return
        answer = self._call(DEFAULT, {"model": self.name})
        if answer.status != 200:
            raise self._refused(f"does not switch to {self.name}", answer)

    def tidy(self) -> None:
        """Unloads older versions. Names are listed in the order of loading, so the last others are the versions before."""
        others = [each for each in self.names if each != self.name and VERSION.fullmatch(each)]
        for old in others[: max(0, len(others) - KEPT)]:
            answer = self._call(UNLOAD, {"lora_name": old})
            if answer.status not in (200, 404):
                raise self._refused(f"does not unload {old}", answer)

    def _call(self, path: str, body: Mapping[str, Any] | None = None) -> Answer:
        try:
            return self.ask(self.url + path, body)
        except OSError as error:
            raise _Stop("waiting", f"{self.url} does not answer: {error or type(error).__name__}") from None

    def _refused(self, what: str, answer: Answer) -> _Stop:
        """Another pass helps while a server is starting, busy or broken, not once it understood and refused."""
        lasting = 400 <= answer.status < 500 and answer.status not in (404, 408, 409, 429)
        hint = " (does the endpoint's Secret hold its key?)" if answer.status in (401, 403) else ""
        return _Stop("failed" if lasting else "waiting", f"{self.url} {what}: {_describe(answer)}{hint}")


def _describe(answer: Answer) -> str:
    """Status and message of an error, in the forms that servers use, cut to a line."""
    try:
        body = json.loads(answer.body)
        inner = body.get("error", body)
        text = inner.get("message") or inner.get("detail") if isinstance(inner, dict) else inner
    except (ValueError, AttributeError):
        text = answer.body.decode(errors="replace")
    return f"{answer.status} {' '.join(str(text).split())[:300]}".strip()


def _on_each(pods: Sequence[_Pod], work: Callable[[_Pod], Value]) -> list[Value]:
    """Runs a step on all pods at the same time; then raises the gravest of what went wrong."""
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

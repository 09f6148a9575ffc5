"""Brings a version of the policy onto every pod that serves it: loaded, verified, and only then switched to.

A load reaches one process of one pod and is lost when it restarts, so each pod is asked by its own address and the whole
is repeated until nothing is left to do: every call looks at what is there first, and an operator that dies between two
of them leaves nothing that the next pass does not finish. A version has a name of its own (`grpo/120` is `grpo-120`), so
weights never change under a name; requests for the name `policy` go to each pod's default, which is switched only once
every pod holds the version and has completed a token with it. The version before stays for who still names it; older
ones go.

Works with gog's policy server and with vLLM that allows runtime LoRA updating; what differs is in `_Pod`. A pod that
does not answer in time is waited for, never failed: loading goes on without us.
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
"""Names that we give; others on a server are somebody else's."""
PROBE = {"prompt": "what", "max_tokens": 1, "temperature": 0}
TIMEOUT_SECONDS = 5.0
AT_ONCE = 16
KEPT = 1
"""Versions before the current one that stay loaded."""
MAX_ANSWER = 4_000_000
"""Bytes of an answer that are read."""

Value = TypeVar("Value")


@dataclass(frozen=True)
class Outcome:
    """state: done, every pod serves the version; waiting, ask again; failed, asking again will not help."""

    state: Literal["done", "waiting", "failed"]
    message: str


Ask = Callable[[str, "Mapping[str, Any] | None"], Answer]
"""(address, body of a POST or None for a GET) -> Answer. Raises OSError when none comes, within seconds."""


class _Stop(Exception):
    """The pass ends here with an outcome."""

    def __init__(self, state: Literal["waiting", "failed"], message: str) -> None:
        super().__init__(message)
        self.outcome = Outcome(state, message)


def ensure_version(pods: Sequence[str], version: str, ask: Ask, *, shared: str = "/mnt/adapters") -> Outcome:
    """One pass towards every pod serving `version` (`grpo/120`; "" for the base). Never raises for what a pod does.

    pods: address of each (`http://10.0.0.7:8080`); shared: folder in which vLLM's pods find adapters by name.
    """
    if not pods:
        return Outcome("waiting", "no pod serves the policy yet")
    try:
        found = _each([_Pod(url, ask, version, shared) for url in pods], _Pod.look)
        for step in (_Pod.load, _Pod.verify, _Pod.switch, _Pod.tidy):
            _each(found, step)
    except _Stop as stop:
        return stop.outcome
    return Outcome("done", f"{len(pods)} of {len(pods)} pods serve {version or 'the base'}")


def asker(key: str = "", *, seconds: float = TIMEOUT_SECONDS) -> Ask:
    """The real thing. key: of the pods, if they ask for one; seconds: for a whole answer."""
    headers = {"content-type": "application/json"} | ({"authorization": f"Bearer {key}"} if key else {})

    def ask(url: str, body: Mapping[str, Any] | None) -> Answer:
        data = None if body is None else json.dumps(body).encode()
        return bounded_http.request(url, seconds=seconds, limit=MAX_ANSWER, body=data, headers=headers)

    return ask


class _Pod:
    """One server, as it was when it was looked at, and what it is to serve."""

    def __init__(self, url: str, ask: Ask, version: str, shared: str) -> None:
        self.url, self.ask, self.version, self.shared = url.rstrip("/"), ask, version, shared
        self.names: list[str] = []
        self.default = ""
        self.ours = True

    @property
    def name(self) -> str:
        """Of the version here; the base comes first in every listing."""
        return adapters.name_of(self.version) if self.version else self.names[0]

    def look(self) -> _Pod:
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
            raise _Stop("waiting", f"{self.url}: {_said(answer)}")
        if answer.status >= 400:
            raise self._refused(f"cannot load {self.version}", answer)
        self.look()
        if self.name not in self.names:
            raise _Stop("waiting", f"{self.url} does not list {self.name} yet")

    def verify(self) -> None:
        """One token, unless the pod serves the version already."""
        if self.ours and self.default == self.name:
            return
        answer = self._call(COMPLETIONS, PROBE | {"model": self.name})
        if answer.status != 200:
            raise self._refused(f"completes nothing with {self.name}", answer)
        try:
            wrote = json.loads(answer.body)["model"]
        except (ValueError, KeyError, TypeError):
            wrote = None
        if wrote != self.name:
            raise _Stop("failed", f"{self.url} answered for {self.name} as {wrote!r}")

    def switch(self) -> None:
        """vLLM has no default: there, clients name the version that the endpoint's status tells."""
        if not self.ours or self.default == self.name:
            return
        answer = self._call(DEFAULT, {"model": self.name})
        if answer.status != 200:
            raise self._refused(f"does not switch to {self.name}", answer)

    def tidy(self) -> None:
        """Names are listed in the order of loading, so the last ones besides this are the versions before it."""
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
        """A server that is starting, busy or broken may mend; one that understood and refused will not."""
        lasting = 400 <= answer.status < 500 and answer.status not in (404, 408, 409, 429)
        hint = " (does the endpoint's Secret hold its key?)" if answer.status in (401, 403) else ""
        return _Stop("failed" if lasting else "waiting", f"{self.url} {what}: {_said(answer)}{hint}")


def _said(answer: Answer) -> str:
    """The sentence of an error, in the forms that servers have for it, at most a line of it."""
    try:
        body = json.loads(answer.body)
        inner = body.get("error", body)
        text = inner.get("message") or inner.get("detail") if isinstance(inner, dict) else inner
    except (ValueError, AttributeError):
        text = answer.body.decode(errors="replace")
    return f"{answer.status} {' '.join(str(text).split())[:300]}".strip()


def _each(pods: Sequence[_Pod], work: Callable[[_Pod], Value]) -> list[Value]:
    """On all pods at once, each to its end; then the gravest of what went wrong is raised."""
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

"""Fetches a trainer's progress over HTTP. It never fails a pass: without a response, no progress is reported.

The response is untrusted (it comes from a tenant), may be of another version of gog, and becomes part of an object's
status. Each field is therefore validated by itself, and dropped if it is invalid or too large.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from gog_operator.api.objects import Progress
from gog_operator.cluster import bounded_http
from gog_operator.workqueue import Key, WorkQueue

SECONDS = 1.0
"""Timeout of a request; a pod that is gone delays a pass by this much."""
POLL_THREADS = 3
"""Requests at the same time."""
POLL_SECONDS = 4.0
"""Minimum interval between two requests to a trainer; slightly less than that of passes over a running stage."""
MAX_POLL_SECONDS = 60.0
"""Maximum interval between two requests to a trainer whose requests time out."""
FORGET_SECONDS = 3600.0
"""Time after which a trainer that is no longer polled is forgotten."""
MAX_ANSWER = 65_536
"""Maximum bytes read of a response."""
MAX_METRICS = 16_384
"""Maximum bytes kept of the metrics, as JSON."""
MAX_TEXT = 256
"""Maximum characters of a metric that is text."""
MAX_DEPTH = 3
"""Maximum nesting of lists and mappings in a metric."""
MAX_STEPS = 10**12
"""Maximum of `step` and `total`."""
MAX_NUMBER = 1e18
"""Maximum magnitude of a metric; larger numbers do not fit into the columns of `kubectl get`."""

Request = Callable[[str, float], dict[str, Any] | None]
"""(URL, timeout in seconds) -> the JSON object at the URL, or None."""
Poll = Callable[[str, str], dict[str, Any] | None]
"""(namespace, URL) -> a new JSON object of the URL, or None."""

log = logging.getLogger(__name__)


def request(url: str, seconds: float = SECONDS) -> dict[str, Any] | None:
    """The JSON object at a URL of the cluster; None if there is no response or it is not a JSON object."""
    try:
        answer = bounded_http.request(url, seconds=seconds, limit=MAX_ANSWER)
        body = json.loads(answer.body) if answer.status == 200 else None
    except (OSError, ValueError, RecursionError):  # RecursionError: a document nested thousands deep
        return None
    return body if isinstance(body, dict) else None


@dataclass
class _Trainer:
    """A trainer that is polled."""

    due: float
    """Reading of the clock from which the next request may be sent."""
    interval: float = POLL_SECONDS
    """Seconds between two requests."""
    pending: bool = False
    """Whether a request is queued or in progress."""
    answer: dict[str, Any] | None = None
    """Response that no pass has seen yet."""


class ProgressPolls:
    """Polls trainers in threads of its own, so that a slow trainer blocks no pass.

    A pass takes the newest response and requests the next one. Each trainer is polled at a bounded rate, however often
    its stage is reconciled, and at a lower one while its requests time out; threads are shared fairly by namespaces.

    Args:
        request: Sends the request.
        clock: Monotonic time in seconds.
        threads: Number of threads that will call `run`.
    """

    def __init__(
        self, request: Request = request, clock: Callable[[], float] = time.monotonic, threads: int = POLL_THREADS
    ) -> None:
        self.threads, self.queue = threads, WorkQueue(clock, workers=threads)
        self._request, self._clock = request, clock
        self._trainers: dict[Key, _Trainer] = {}
        self._lock = threading.Lock()

    def __call__(self, namespace: str, url: str) -> dict[str, Any] | None:
        """The JSON object of a URL that arrived since the last call; None if none did."""
        key, now = Key("Progress", namespace, url), self._clock()
        with self._lock:
            if key not in self._trainers:
                self._forget(now)
            trainer = self._trainers.setdefault(key, _Trainer(now))
            answer, trainer.answer = trainer.answer, None
            due = not trainer.pending and now >= trainer.due
            if due:
                trainer.pending, trainer.due = True, now + trainer.interval
        if due:
            self.queue.add(key)
        return answer

    def run(self) -> None:
        """Sends requests until the queue is closed."""
        while (key := self.queue.wait()) is not None:
            self.process(key)

    def process(self, key: Key) -> None:
        """Sends one request. Never raises, because the thread serves all trainers."""
        answer, begun = None, self._clock()
        try:
            answer = self._request(key.name, SECONDS)
        except Exception:
            log.exception("progress of %s", key.name)
        now = self._clock()
        with self._lock:
            trainer = self._trainers[key]
            slow = answer is None and now - begun > SECONDS / 2
            trainer.interval = min(2 * trainer.interval, MAX_POLL_SECONDS) if slow else POLL_SECONDS
            if slow:
                trainer.due = now + trainer.interval
            trainer.pending, trainer.answer = False, trainer.answer if answer is None else answer
        self.queue.done(key)

    def _forget(self, now: float) -> None:
        self._trainers = {
            key: each for key, each in self._trainers.items() if each.pending or each.due > now - FORGET_SECONDS
        }


def parse_progress(body: Mapping[str, Any] | None) -> Progress | None:
    """The valid fields of a progress document; None if no field is valid."""
    known: dict[str, Any] = {}
    for name in Progress.model_fields:
        value = (body or {}).get(name)
        if name == "metrics":
            value = _metrics(value)
        if name in ("step", "total") and not (isinstance(value, int) and 0 <= value <= MAX_STEPS):
            continue
        if value is not None and _valid({name: value}):
            known[name] = value
    return Progress.model_validate(known) if known else None


def _valid(fields: dict[str, Any]) -> bool:
    try:
        Progress.model_validate(fields)
    except ValidationError:
        return False
    return True


def _metrics(value: Any) -> dict[str, Any] | None:
    """The metrics that a status may hold, without the longest ones if all together are too long."""
    if not isinstance(value, dict):
        return None
    kept = {name: each for name, each in value.items() if isinstance(name, str) and _plain(each)}
    while kept and len(json.dumps(kept)) > MAX_METRICS:
        kept.pop(max(kept, key=lambda name: len(json.dumps(kept[name]))))
    return kept


def _plain(value: Any, depth: int = MAX_DEPTH) -> bool:
    """Whether the value is safe in a status: finite numbers, short texts, limited nesting."""
    if isinstance(value, dict | list):
        inner = value.values() if isinstance(value, dict) else value
        return depth > 0 and all(_plain(each, depth - 1) for each in inner)
    if isinstance(value, str):
        return len(value) <= MAX_TEXT
    return value is None or (isinstance(value, int | float) and abs(value) <= MAX_NUMBER)  # False for NaN

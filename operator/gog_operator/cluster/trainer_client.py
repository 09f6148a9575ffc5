"""The progress of a trainer, asked over HTTP. Never fails a pass: without an answer there is no progress to show.

What a trainer answers is a tenant's, perhaps of another version of gog, and becomes part of an object's status. So each
field is taken by itself, and left out when it is not understood or too large.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from pydantic import ValidationError

from gog_operator.api.objects import Progress
from gog_operator.cluster import bounded_http

SECONDS = 1.0
"""For a whole answer: a pod that is gone costs this much of a pass."""
POLL_SECONDS = 4.0
"""Least time between two requests to a trainer; passes over a running stage are a little further apart."""
MAX_POLL_SECONDS = 60.0
"""Most time between two requests to a trainer that lets them time out."""
FORGET_SECONDS = 3600.0
MAX_ANSWER = 65_536
"""Bytes of an answer that are read."""
MAX_METRICS = 16_384
"""Bytes of the metrics, as JSON, that are kept."""
MAX_TEXT = 256
"""Characters of a metric that is text."""
MAX_DEPTH = 3
"""Levels of lists and mappings in a metric."""
MAX_STEPS = 10**12
MAX_NUMBER = 1e18
"""Larger figures do not fit into the columns of `kubectl get`."""

Ask = Callable[[str, float], dict[str, Any] | None]
"""(URL, seconds) -> the JSON object there, or None."""


def ask(url: str, seconds: float = SECONDS) -> dict[str, Any] | None:
    """The JSON object at a URL of the cluster; None when no answer comes or it is something else."""
    try:
        answer = bounded_http.request(url, seconds=seconds, limit=MAX_ANSWER)
        body = json.loads(answer.body) if answer.status == 200 else None
    except (OSError, ValueError, RecursionError):  # RecursionError: a document nested thousands deep
        return None
    return body if isinstance(body, dict) else None


class ProgressPoll:
    """Asks each trainer at a bounded rate, whatever triggers passes over its stage.

    A trainer whose answer always differs would otherwise be asked again by the event of every status that holds its
    answer. One that lets a request time out holds a worker for that long, so its interval doubles.

    Args:
        ask: how it is asked.
        clock: seconds that only grow.
    """

    def __init__(self, ask: Ask, clock: Callable[[], float] = time.monotonic) -> None:
        self._ask, self._clock = ask, clock
        self._due: dict[str, tuple[float, float]] = {}  # URL -> (time of the next request, interval)
        self._lock = threading.Lock()

    def __call__(self, url: str, seconds: float = SECONDS) -> dict[str, Any] | None:
        """The JSON object at a URL; None also when it was asked a moment ago."""
        now = self._clock()
        with self._lock:
            due, interval = self._due.get(url, (now, POLL_SECONDS))
            if now < due:
                return None
            self._due = {each: known for each, known in self._due.items() if known[0] > now - FORGET_SECONDS}
            self._due[url] = (now + interval, interval)
        answer = self._ask(url, seconds)
        slow = answer is None and self._clock() - now > seconds / 2
        interval = min(2 * interval, MAX_POLL_SECONDS) if slow else POLL_SECONDS
        with self._lock:
            self._due[url] = (now + interval, interval)
        return answer


def parse_progress(body: Mapping[str, Any] | None) -> Progress | None:
    """A progress document, field by field as far as it is understood; None when nothing of it is."""
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
    """The metrics that a status may hold, the longest left out where all together are too long."""
    if not isinstance(value, dict):
        return None
    kept = {name: each for name, each in value.items() if isinstance(name, str) and _plain(each)}
    while kept and len(json.dumps(kept)) > MAX_METRICS:
        kept.pop(max(kept, key=lambda name: len(json.dumps(kept[name]))))
    return kept


def _plain(value: Any, depth: int = MAX_DEPTH) -> bool:
    """Whether an API server and every reader of a status can hold the value: finite numbers, short texts, little depth."""
    if isinstance(value, dict | list):
        inner = value.values() if isinstance(value, dict) else value
        return depth > 0 and all(_plain(each, depth - 1) for each in inner)
    if isinstance(value, str):
        return len(value) <= MAX_TEXT
    return value is None or (isinstance(value, int | float) and abs(value) <= MAX_NUMBER)  # which NaN is not

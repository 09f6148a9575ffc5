"""Fetches a trainer's progress over HTTP. It never fails a pass: without a response, no progress is reported.

The response is untrusted (it comes from a tenant), may be of another version of gog, and becomes part of an object's
status. Each field is therefore validated by itself, and dropped if it is invalid or too large.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from pydantic import ValidationError

from gog_operator.api.objects import Progress
from gog_operator.cluster import bounded_http

SECONDS = 1.0
"""Timeout of a request."""
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


def request(url: str, seconds: float = SECONDS) -> dict[str, Any] | None:
    """The JSON object at a URL of the cluster; None if there is no response or it is not a JSON object."""
    try:
        answer = bounded_http.request(url, seconds=seconds, limit=MAX_ANSWER)
        body = json.loads(answer.body) if answer.status == 200 else None
    except (OSError, ValueError, RecursionError):  # RecursionError: a document nested thousands deep
        return None
    return body if isinstance(body, dict) else None


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

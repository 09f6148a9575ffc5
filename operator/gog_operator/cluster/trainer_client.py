"""What a trainer tells of itself over HTTP, and what we tell people in Kubernetes events. Neither ever fails a pass."""

from __future__ import annotations

import hashlib
import json
import logging
import urllib.request
from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Any

from pydantic import ValidationError

from gog_operator.api.meta import API_VERSION
from gog_operator.api.objects import Object, Progress
from gog_operator.cluster import paths
from gog_operator.cluster.api_errors import Explained
from gog_operator.cluster.interface import Refused, Unavailable
from gog_operator.cluster.kube import ApiError, items
from gog_operator.plan.actions import Event

SECONDS = 1.0
LARGEST = 65_536
LONGEST = 1024
"""Characters of an event's message."""
ROWS = 500
COMPONENT = "gog-operator"

Ask = Callable[[str, float], dict[str, Any] | None]
"""(URL, timeout in seconds) -> the JSON object there, or None."""

log = logging.getLogger(__name__)
_opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def ask(url: str, timeout: float = SECONDS) -> dict[str, Any] | None:
    """The JSON object at a URL of the cluster; None when there is none to be had."""
    try:
        with _opener.open(url, timeout=timeout) as answer:
            told = json.loads(answer.read(LARGEST))
    except (OSError, ValueError):
        return None
    return told if isinstance(told, dict) else None


def progress_of(told: dict[str, Any] | None) -> Progress | None:
    """What a trainer said, as far as it is understood: it may be of another version."""
    if not told:
        return None
    known = {
        key: told[key] for key in ("step", "total", "metrics", "checkpoint", "waiting") if told.get(key) is not None
    }
    try:
        return Progress.model_validate(known)
    except ValidationError:
        return None


def record(api: Explained, namespace: str, thing: Object, event: Event, now: datetime) -> None:
    """One Event per sentence and object; said again, it counts up. An event that cannot be written is only logged."""
    told = event.message[:LONGEST]
    name = f"{thing.name}.{_digest(thing.metadata.uid, event.reason, told)}"
    stamp = now.strftime("%Y-%m-%dT%H:%M:%SZ")
    try:
        api.call("POST", paths.EVENTS.path(namespace), body=_document(thing, event, name, namespace, told, stamp))
    except ApiError as error:
        if error.status == 409:
            _again(api, paths.EVENTS.path(namespace, name), stamp)
    except (Refused, Unavailable) as error:
        log.warning("event for %s %s not written: %s", thing.kind, thing.name, error)


def _again(api: Explained, path: str, stamp: str) -> None:
    try:
        there = api.find(path) or {}
        api.merge(path, {"count": int(there.get("count") or 1) + 1, "lastTimestamp": stamp})
    except (ApiError, Refused, Unavailable) as error:
        log.warning("%s not counted up: %s", path, error)


def _document(thing: Object, event: Event, name: str, namespace: str, told: str, stamp: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": name, "namespace": namespace},
        "involvedObject": {
            "apiVersion": API_VERSION,
            "kind": thing.kind,
            "name": thing.name,
            "namespace": namespace,
            "uid": thing.metadata.uid,
        },
        "type": "Warning" if event.warning else "Normal",
        "reason": event.reason,
        "message": told,
        "source": {"component": COMPONENT},
        "reportingComponent": COMPONENT,
        "firstTimestamp": stamp,
        "lastTimestamp": stamp,
        "count": 1,
    }


def rows(api: Explained, namespace: str, things: Iterable[Object]) -> list[dict[str, Any]]:
    """The newest events of some objects, oldest first, as a local run's events.jsonl has them."""
    ours = {each.metadata.uid for each in things}
    listed = items(api, paths.EVENTS.path(namespace), fields=f"reportingComponent={COMPONENT}")
    found = [each for each in listed if each.get("involvedObject", {}).get("uid") in ours]
    found.sort(key=lambda each: str(each.get("lastTimestamp") or ""))
    return [
        {
            "time": each.get("lastTimestamp"),
            "kind": each["involvedObject"].get("kind"),
            "name": each["involvedObject"].get("name"),
            "type": each.get("type"),
            "reason": each.get("reason"),
            "message": each.get("message"),
        }
        for each in found[-ROWS:]
    ]


def _digest(*parts: str) -> str:
    return hashlib.blake2b("\0".join(parts).encode(), digest_size=6).hexdigest()

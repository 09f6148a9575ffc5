"""Kubernetes Events of our objects: written after the status that they report, and read for a run's report.

An event that cannot be written is logged and never fails a pass, because the conditions hold the state.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable
from datetime import datetime
from typing import Any

from gog_operator.api.meta import API_VERSION
from gog_operator.api.objects import Object
from gog_operator.cluster import paths
from gog_operator.cluster.api_errors import TranslatedApi
from gog_operator.cluster.interface import Refused, Unavailable
from gog_operator.cluster.kube import ApiError, items
from gog_operator.plan.actions import Event

MAX_MESSAGE = 1024
"""Maximum characters of a message; the API server rejects longer ones."""
MAX_ROWS = 500
"""Maximum number of events in a report; the newest are kept."""
COMPONENT = "gog-operator"

log = logging.getLogger(__name__)


def record(api: TranslatedApi, namespace: str, thing: Object, event: Event, now: datetime) -> None:
    """Writes one Event per object, reason and message; a repetition increments its count."""
    message = event.message[:MAX_MESSAGE]
    name = f"{thing.name}.{_digest(thing.metadata.uid, event.reason, message)}"
    stamp = now.strftime("%Y-%m-%dT%H:%M:%SZ")
    try:
        api.call("POST", paths.EVENTS.path(namespace), body=_document(thing, event, name, namespace, message, stamp))
    except ApiError as error:
        if error.status == 409:
            _count(api, paths.EVENTS.path(namespace, name), stamp)
    except (Refused, Unavailable) as error:
        log.warning("event for %s %s not written: %s", thing.kind, thing.name, error)


def rows(api: TranslatedApi, namespace: str, things: Iterable[Object]) -> list[dict[str, Any]]:
    """The newest events of some objects, oldest first, in the form of a local run's events.jsonl."""
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
        for each in found[-MAX_ROWS:]
    ]


def _count(api: TranslatedApi, path: str, stamp: str) -> None:
    try:
        current = api.find(path) or {}
        api.merge(path, {"count": int(current.get("count") or 1) + 1, "lastTimestamp": stamp})
    except (ApiError, Refused, Unavailable) as error:
        log.warning("%s not counted: %s", path, error)


def _document(thing: Object, event: Event, name: str, namespace: str, message: str, stamp: str) -> dict[str, Any]:
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
        "message": message,
        "source": {"component": COMPONENT},
        "reportingComponent": COMPONENT,
        "firstTimestamp": stamp,
        "lastTimestamp": stamp,
        "count": 1,
    }


def _digest(*parts: str) -> str:
    return hashlib.blake2b("\0".join(parts).encode(), digest_size=6).hexdigest()

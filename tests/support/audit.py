"""The requests of a service account to a real API server, from its audit log, beside what the account's roles allow.

A right is (API group, resource with subresource, verb). The log is written at Metadata level, one JSON line a request.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

Right = tuple[str, str, str]


def requests(log: Path, user: str) -> list[dict[str, Any]]:
    """Requests of a user for resources, in order; an incomplete last line is left out."""
    found = []
    for line in log.read_text().splitlines():
        if f'"username":"{user}"' in line and line.endswith("}"):
            event = json.loads(line)
            if "objectRef" in event:
                found.append(event)
    return found


def right_of(event: Mapping[str, Any]) -> Right:
    ref = event["objectRef"]
    resource = "/".join(part for part in (ref["resource"], ref.get("subresource")) if part)
    return ref.get("apiGroup", ""), resource, event["verb"]


def denied(events: Iterable[Mapping[str, Any]]) -> set[Right]:
    return {right_of(each) for each in events if each.get("responseStatus", {}).get("code") == 403}


def used(events: Iterable[Mapping[str, Any]]) -> set[Right]:
    return {right_of(each) for each in events}


def allowed(roles: Iterable[Mapping[str, Any]]) -> set[Right]:
    """Every right that the rules of these roles give."""
    return {
        (group, resource, verb)
        for role in roles
        for rule in role.get("rules") or ()
        for group in rule.get("apiGroups", ())
        for resource in rule.get("resources", ())
        for verb in rule["verbs"]
    }

"""Pods that serve a policy, in memory: what they have loaded and which version answers by default, by address."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from gog_operator.cluster import adapters
from gog_operator.cluster.bounded_http import Answer


class PolicyPods:
    def __init__(self) -> None:
        self.loaded: dict[str, list[str]] = {}
        """Address -> names of the loaded versions, the base first."""
        self.default: dict[str, str] = {}
        """Address -> name of the version that answers requests without one."""
        self.changes = 0
        """Requests that changed a pod."""

    def answer(self, url: str, body: Mapping[str, Any] | None) -> Answer:
        host, _, path = url.removeprefix("http://").partition("/")
        loaded = self.loaded.setdefault(host, ["base"])
        name = str((body or {}).get("lora_name") or (body or {}).get("model"))
        self.changes += body is not None
        match f"/{path}":
            case adapters.MODELS:
                default = self.default.get(host, "base")
                return _ok({"data": [{"id": each, "owned_by": "gog", "default": each == default} for each in loaded]})
            case adapters.LOAD:
                loaded.append(name)
            case adapters.UNLOAD:
                loaded.remove(name)
            case adapters.DEFAULT:
                self.default[host] = name
        return _ok({"model": name})


def _ok(body: Mapping[str, Any]) -> Answer:
    return Answer(200, json.dumps(body).encode())

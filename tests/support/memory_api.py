"""An API server in memory, for tests of how often the operator asks it: documents, resource versions, watch events.

It knows neither schemas nor garbage collection; what those decide is tested on a real API server.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from gog_operator.cluster import paths
from gog_operator.cluster.kube import Api, ApiError, Document, Request
from support.recorder import matches


class MemoryApi(Api):
    """Serves documents by path and counts requests."""

    def __init__(self) -> None:
        self.objects: dict[str, Document] = {}
        self.requests: Counter[str] = Counter()
        """Number of requests by method."""
        self.events: Callable[[str, str, Document], None] = lambda resource, type_, body: None
        """Receives (resource, type, object) of every change."""
        self._version = 0

    def put(self, resource: paths.Resource, body: Document) -> Document:
        """Creates or replaces an object, as another user of the cluster."""
        path = resource.path(body["metadata"]["namespace"], body["metadata"]["name"])
        known = path in self.objects
        return self._keep(path, copy.deepcopy(body), "MODIFIED" if known else "ADDED")

    def change(self, path: str, patch: Mapping[str, Any]) -> Document:
        """Merges fields into an object, as another user of the cluster."""
        return self._keep(path, merged(self.objects[path], patch), "MODIFIED")

    def remove(self, path: str) -> None:
        body = self.objects.pop(path)
        self._version += 1
        body["metadata"]["resourceVersion"] = str(self._version)
        self._notify(path, "DELETED", body)

    def send(self, request: Request) -> Document:
        self.requests[request.method] += 1
        path, body = request.path.removesuffix("/status"), dict(request.body or {})
        resource = paths.resource_of(path)
        assert resource is not None, path
        if request.method == "GET" and path.endswith(f"/{resource.plural}"):
            selector = (request.query or {}).get("labelSelector", "")
            found = [
                each for key, each in self.objects.items() if key.startswith(f"{path}/") and matches(each, selector)
            ]
            return {"items": copy.deepcopy(found)}
        if request.method == "POST":
            return self._create(path, copy.deepcopy(body))
        if path not in self.objects:
            raise ApiError(404, "NotFound", f"{path} not found")
        if request.method == "DELETE":
            self.remove(path)
            return {}
        if request.method == "PATCH":
            wanted = body.get("metadata", {}).get("resourceVersion")
            if wanted not in (None, self.objects[path]["metadata"]["resourceVersion"]):
                raise ApiError(409, "Conflict", "the object has been modified")
            return copy.deepcopy(self.change(path, body))
        return copy.deepcopy(self.objects[path])

    def _create(self, path: str, body: Document) -> Document:
        path = f"{path}/{body['metadata']['name']}"
        if path in self.objects:
            raise ApiError(409, "AlreadyExists", f"{path} exists")
        body["metadata"].setdefault("namespace", path.split("/namespaces/")[1].split("/")[0])
        return copy.deepcopy(self._keep(path, body, "ADDED"))

    def _keep(self, path: str, body: Document, type_: str) -> Document:
        self._version += 1
        old = self.objects.get(path, {}).get("metadata", {})
        uid = old.get("uid") or body["metadata"].get("uid") or f"uid-{self._version}"
        body["metadata"] |= {"resourceVersion": str(self._version), "uid": uid}
        body["metadata"].setdefault("generation", 1)
        self.objects[path] = body
        self._notify(path, type_, body)
        return body

    def _notify(self, path: str, type_: str, body: Document) -> None:
        resource = paths.resource_of(path)
        assert resource is not None
        ours = resource in paths.OURS.values()
        if ours or matches(body, paths.LABEL):
            self.events(resource.name, type_, copy.deepcopy(body))


def merged(target: Mapping[str, Any], patch: Mapping[str, Any]) -> Document:
    """A JSON merge patch (RFC 7386), applied."""
    found = dict(target)
    for key, value in patch.items():
        if value is None:
            found.pop(key, None)
        else:
            found[key] = merged(found.get(key) or {}, value) if isinstance(value, Mapping) else value
    return found

"""The newest known document of every watched object, so that a pass which finds nothing to do sends no request.

Problem: 500 running stages change their figures all the time, and each pass over one would read ten objects. Decision:
watches, resyncs and the operator's own requests keep documents here. The cache may be outdated: events are late or lost, and
another operator may write. A pass over it therefore writes figures at most, guarded by the resource version; everything
else is decided again on documents that are read from the API server (`reconcile.look`). A document is replaced by newer
ones only. An object that is kept although it was deleted costs one such pass, until the next resync.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterable, Mapping
from typing import Any

from gog_operator.cluster import paths
from gog_operator.cluster.kube import Api, ApiError, Document, Request
from gog_operator.cluster.snapshot import LISTED, Snapshot, Stored, stored

WATCHED = {resource.name: resource for resource, _ in LISTED}
LABEL = tuple(paths.LABEL.split("="))


class ObjectCache:
    """Documents by path. Methods may be called from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._objects: dict[str, Stored] = {}
        self._namespaces: frozenset[str | None] = frozenset()
        self._touched: set[str] | None = None

    def observe(self, resource: str, type_: str | None, body: Mapping[str, Any]) -> None:
        """Takes over a watch event.

        Args:
            resource: Name of the resource, such as `gogruns.gog.dev`.
            type_: ADDED, MODIFIED or DELETED; None for an object in a watch's initial list.
            body: The object.
        """
        if resource not in WATCHED:
            return
        metadata = body["metadata"]
        path = WATCHED[resource].path(metadata["namespace"], metadata["name"])
        if type_ == "DELETED":
            self.remove(path, stored(body).version)
        else:
            self.put(path, body)

    def put(self, path: str, body: Mapping[str, Any]) -> None:
        """Keeps a document that was read or written, unless a newer one is known or no watch would report its changes."""
        resource = paths.resource_of(path)
        if resource is None or resource.name not in WATCHED or not _is_watched(resource, body):
            return
        new = stored(body)
        with self._lock:
            self._touch(path)
            self._put(path, new)

    def remove(self, path: str, version: int | None = None) -> None:
        """Forgets an object. version: of the deletion; None if it is absent now."""
        with self._lock:
            self._touch(path)
            known = self._objects.get(path)
            if known is not None and (version is None or version >= known.version):
                del self._objects[path]

    def begin(self) -> None:
        """Precedes the requests of a resync; what changes from now on is newer than its lists."""
        with self._lock:
            self._touched = set()

    def replace(self, listed: Snapshot, namespaces: Iterable[str | None]) -> None:
        """Takes over the lists of a resync.

        Args:
            listed: What was listed since `begin`.
            namespaces: The namespaces that were listed completely; (None,) for all. Only these are covered from now on.
        """
        with self._lock:
            touched, self._touched = self._touched or set(), None
            self._namespaces = frozenset(namespaces)
            for path in [each for each in self._objects if each not in listed.objects and each not in touched]:
                del self._objects[path]
            for path, each in listed.objects.items():
                if path not in touched or path in self._objects:  # otherwise it was deleted meanwhile
                    self._put(path, each)

    def covers(self, path: str) -> bool:
        """Whether an object that is not here does not exist, as far as is known."""
        if path in self._objects:
            return True
        resource, place = paths.resource_of(path), path.partition("/namespaces/")[2].split("/")
        if resource is None or resource.name not in WATCHED or len(place) != 3:
            return False
        return place[0] in self._namespaces or None in self._namespaces

    def find(self, path: str) -> Document | None:
        """The newest known document; None if there is none."""
        known = self._objects.get(path)
        return None if known is None else json.loads(known.text)

    def _touch(self, path: str) -> None:
        if self._touched is not None:
            self._touched.add(path)

    def _put(self, path: str, new: Stored) -> None:
        known = self._objects.get(path)
        if known is None or new.version >= known.version:
            self._objects[path] = new


def _is_watched(resource: paths.Resource, body: Mapping[str, Any]) -> bool:
    labels = body.get("metadata", {}).get("labels") or {}
    return resource in paths.OURS.values() or labels.get(LABEL[0]) == LABEL[1]


class CachedApi(Api):
    """An Api that keeps in a cache what it reads and writes.

    Args:
        api: Client of the API server.
        cache: The cache.
        fresh: Whether reads go to the API server; otherwise those that the cache covers do not.
    """

    def __init__(self, api: Api, cache: ObjectCache, *, fresh: bool) -> None:
        self.api, self.cache, self.fresh = api, cache, fresh

    def send(self, request: Request) -> Document:
        known = not (self.fresh or request.writes or request.query) and self.cache.covers(request.path)
        if known:
            found = self.cache.find(request.path)
            if found is None:
                raise ApiError(404, "NotFound", f"{request.path} is not known")
            return found
        return self._forward(request)

    def _forward(self, request: Request) -> Document:
        try:
            answer = self.api.send(request)
        except ApiError as error:
            if error.status == 404 and request.method == "GET":
                self.cache.remove(request.path)
            raise
        name = answer.get("metadata", {}).get("name")
        if name and request.method != "DELETE":
            path = f"{request.path}/{name}" if request.method == "POST" else request.path.removesuffix("/status")
            self.cache.put(path, answer)
        return answer

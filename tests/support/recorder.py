"""An API client that records every object written through it, and one that serves reads from these records.

Problem: a fault test needs the watch stream, the actors' reads and the final state of a namespace thousands of times,
and each would cost a request. Decision: all writes in a namespace, by the operator and by the actors, go through one
`Recorder`. It delivers watch events to its listeners, and waits until the garbage collector has finished. It must query
the server for objects that the garbage collector may have deleted, because it does not see these deletions.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from datetime import datetime

from gog_operator.api.meta import ARTIFACTS
from gog_operator.cluster import paths
from gog_operator.cluster.kube import Api, ApiError, Document, Request

Listener = Callable[[str, Document], None]
"""(ADDED, MODIFIED or DELETED; the object)"""
COLLECTOR_SECONDS = 60.0
"""Seconds for the garbage collector, after which remaining objects count as orphans."""


class Recorder(Api):
    """Forwards every request and records the written objects.

    Args:
        api: Client of the real server.
        now: The test's clock, which replaces the creation time of objects.
    """

    def __init__(self, api: Api, now: Callable[[], datetime]) -> None:
        self.api, self.now = api, now
        self.objects: dict[str, Document] = {}
        """The objects as the server last returned them, by path."""
        self.listeners: list[Listener] = []
        self.writes = 0
        """Number of write requests."""
        self.ended = False
        """Whether the namespace is being deleted, and every object with it."""
        self._created: dict[str, str] = {}

    def send(self, request: Request) -> Document:
        method, path = request.method, request.path
        try:
            answer = self.api.send(request)
        except ApiError as error:
            if error.status == 404 and method != "POST":
                self.forget(path)
            raise
        self._date(answer)
        if "dryRun" in (request.query or {}):
            return answer
        self.writes += request.writes
        if method == "DELETE":
            self.refresh(path)
        elif method != "GET" and "metadata" in answer:
            where = f"{path}/{answer['metadata']['name']}" if method == "POST" else path.removesuffix("/status")
            self._keep(where, answer)
        return answer

    def refresh(self, path: str) -> None:
        """Reads an object again; forgets it if it no longer exists."""
        try:
            found = self.api.call("GET", path)
        except ApiError as error:
            if error.status != 404:
                raise
            self.forget(path)
        else:
            self._keep(path, found)

    def forget(self, path: str) -> None:
        body = self.objects.pop(path, None)
        if body is not None:
            self._notify("DELETED", body)

    def of(self, resource: paths.Resource) -> Iterator[tuple[str, Document]]:
        """Path and body of every object of a resource."""
        for path, body in list(self.objects.items()):
            if paths.resource_of(path) is resource:
                yield path, body

    def settle(self) -> None:
        """Waits until the garbage collector has removed ownerless objects. Raises AssertionError for an orphan."""
        end = time.monotonic() + COLLECTOR_SECONDS
        while left := self.leaving():
            for path in left:
                self.refresh(path)
            if self.leaving():
                assert time.monotonic() < end, f"orphans: {self.leaving()}"
                time.sleep(0.01)

    def leaving(self) -> list[str]:
        """Objects that are being deleted, and objects all of whose owners are gone; without those that the operator holds."""
        if self.ended:
            return [path for path, body in self.objects.items() if not _is_held(body["metadata"])]
        present = {body["metadata"]["uid"] for body in self.objects.values()}
        return [path for path, body in self.objects.items() if _leaves(body["metadata"], present)]

    def _date(self, body: Document) -> None:
        uid = body.get("metadata", {}).get("uid")
        if uid is not None:
            stamp = self.now().strftime("%Y-%m-%dT%H:%M:%SZ")
            body["metadata"]["creationTimestamp"] = self._created.setdefault(uid, stamp)

    def _keep(self, path: str, body: Document) -> None:
        old = self.objects.get(path)
        self.objects[path] = body
        if old is None or old["metadata"]["resourceVersion"] != body["metadata"]["resourceVersion"]:
            self._notify("ADDED" if old is None else "MODIFIED", body)

    def _notify(self, type_: str, body: Document) -> None:
        for each in list(self.listeners):
            each(type_, body)


class RecordedApi(Api):
    """An Api for actors: serves reads from a recorder's records, and sends writes through the recorder."""

    def __init__(self, recorder: Recorder) -> None:
        self.recorder = recorder

    def send(self, request: Request) -> Document:
        path = request.path
        if request.writes:
            return self.recorder.send(request)
        resource = paths.resource_of(path)
        assert resource is not None, path
        if not path.endswith(f"/{resource.plural}"):
            found = self.recorder.objects.get(path)
            if found is None:
                raise ApiError(404, "NotFound", f"{path} not found")
            return found
        selector = (request.query or {}).get("labelSelector", "")
        return {"items": [each for _, each in self.recorder.of(resource) if matches(each, selector)]}


def _is_held(metadata: Document) -> bool:
    """Whether an object that is being deleted waits for the operator, and for nothing else."""
    return "deletionTimestamp" in metadata and metadata.get("finalizers") == [ARTIFACTS]


def _leaves(metadata: Document, present: set[str]) -> bool:
    owners = metadata.get("ownerReferences") or ()
    return ("deletionTimestamp" in metadata and not _is_held(metadata)) or bool(
        owners and not any(each["uid"] in present for each in owners)
    )


def matches(body: Document, selector: str) -> bool:
    """Whether an object's labels match a selector of the forms `key` and `key=value`."""
    labels = body["metadata"].get("labels") or {}
    wanted = [each.partition("=") for each in selector.split(",") if each]
    return all(key in labels and (not sign or labels[key] == value) for key, sign, value in wanted)

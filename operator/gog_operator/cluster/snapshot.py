"""The API server as it was when everything was listed: read-only, in memory, queried like the real one.

Problem: a resync must decide for every object, and several requests per object would overload the server. Decision: it
lists each resource once and decides by the same code as a pass, reading from here. An object is kept as compact JSON
without its managed fields, a tenth of its size as Python objects, and parsed whenever it is read. Pods are not listed:
what only pods or lists tell is left to the real pass that follows.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

from gog_operator.cluster import paths
from gog_operator.cluster.kube import Api, ApiError, Document, Request, items

LISTED: tuple[tuple[paths.Resource, str], ...] = (
    *((resource, "") for resource in paths.OURS.values()),
    (paths.VOLCANO_JOBS, paths.LABEL),
    (paths.INFERENCE_SERVICES, paths.LABEL),
    (paths.DEPLOYMENTS, paths.LABEL),
    (paths.JOBS, paths.LABEL),
)
"""What is listed, and the labels that it must have."""


class Snapshot(Api):
    """An Api that answers from what was listed."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        """Path -> document as JSON."""
        self.versions: dict[tuple[str, str, str], str] = {}
        """(resource, namespace, name) -> resource version."""
        self.unknown: list[paths.Resource] = []
        """Resources that the server does not have."""

    def take(self, api: Api, namespace: str | None) -> None:
        """Lists everything of a namespace; None for all. Raises ApiError."""
        for resource, selector in LISTED:
            try:
                for body in items(api, resource.path(namespace), selector):
                    self.put(resource, body)
            except ApiError as error:
                if not error.missing_type:
                    raise
                self.unknown.append(resource)

    def add(self, other: Snapshot) -> None:
        """Adds what another snapshot holds."""
        self.objects |= other.objects
        self.versions |= other.versions
        self.unknown += other.unknown

    def put(self, resource: paths.Resource, body: Document) -> None:
        metadata = body["metadata"]
        metadata.pop("managedFields", None)
        self.versions[resource.name, metadata["namespace"], metadata["name"]] = metadata["resourceVersion"]
        path = resource.path(metadata["namespace"], metadata["name"])
        self.objects[path] = json.dumps(body, separators=(",", ":")).encode()

    def names(self, resource: paths.Resource) -> Iterator[tuple[str, str]]:
        """Namespace and name of every object of a resource."""
        return ((namespace, name) for kind, namespace, name in self.versions if kind == resource.name)

    def send(self, request: Request) -> Document:
        if request.writes:
            raise ApiError(405, "MethodNotAllowed", f"{request.method} {request.path}: a snapshot cannot be changed")
        if request.query is not None:
            return {"items": []}
        found = self.objects.get(request.path)
        if found is None:
            raise ApiError(404, "NotFound", f"{request.path} was not listed")
        document: Document = json.loads(found)
        return document

"""A read-only, in-memory snapshot of the API server, with the interface of its client.

Problem: a resync must decide for every object, and several requests per object would overload the server. Decision: the
resync lists each resource once, and runs the same code as a pass on this snapshot. Each object is stored as compact
JSON without managed fields, a tenth of its size as Python objects, and parsed on every read. Pods are not listed;
decisions that depend on pods or on lists are left to the pass that follows.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from gog_operator.cluster import paths
from gog_operator.cluster.kube import Api, ApiError, Document, Request, items

LISTED: tuple[tuple[paths.Resource, str], ...] = (
    *((resource, "") for resource in paths.OURS.values()),
    (paths.VOLCANO_JOBS, paths.LABEL),
    (paths.INFERENCE_SERVICES, paths.LABEL),
    (paths.DEPLOYMENTS, paths.LABEL),
    (paths.JOBS, paths.LABEL),
)
"""Resources to list, each with its label selector."""


class Stored(NamedTuple):
    """A document as it is kept in memory."""

    version: int
    """Its resource version, which grows with every write."""
    text: bytes
    """The document as compact JSON, without managed fields."""


def stored(body: Mapping[str, Any]) -> Stored:
    """The form in which a document is kept."""
    metadata = {key: value for key, value in body["metadata"].items() if key != "managedFields"}
    text = json.dumps({**body, "metadata": metadata}, separators=(",", ":")).encode()
    version = str(metadata.get("resourceVersion"))
    return Stored(int(version) if version.isdigit() else 0, text)


class Snapshot(Api):
    """An Api that serves listed objects."""

    def __init__(self) -> None:
        self.objects: dict[str, Stored] = {}
        """Documents by path."""
        self.versions: dict[tuple[str, str, str], str] = {}
        """Resource versions by (resource, namespace, name)."""
        self.unknown: list[paths.Resource] = []
        """Resources that the server does not have."""

    def take(self, api: Api, namespace: str | None) -> None:
        """Lists all resources of a namespace; None for all namespaces. Raises ApiError."""
        for resource, selector in LISTED:
            try:
                for body in items(api, resource.path(namespace), selector):
                    self.put(resource, body)
            except ApiError as error:
                if not error.missing_type:
                    raise
                self.unknown.append(resource)

    def add(self, other: Snapshot) -> None:
        """Adds the contents of another snapshot."""
        self.objects |= other.objects
        self.versions |= other.versions
        self.unknown += other.unknown

    def put(self, resource: paths.Resource, body: Document) -> None:
        metadata = body["metadata"]
        self.versions[resource.name, metadata["namespace"], metadata["name"]] = metadata["resourceVersion"]
        self.objects[resource.path(metadata["namespace"], metadata["name"])] = stored(body)

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
        document: Document = json.loads(found.text)
        return document

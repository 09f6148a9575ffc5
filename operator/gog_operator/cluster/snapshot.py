"""The API server as it was when everything was listed: read-only, in memory, asked like the real one.

So that a resync costs a few dozen requests instead of several per object, and decides with the very code that a pass
does. An object is kept as compact JSON without its managed fields, which is a tenth of what it takes as Python's
objects, and understood anew whenever it is asked for. Pods are not here: what only they tell is left to the real pass
that follows, and so is what only a list of something tells.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from gog_operator.cluster import paths
from gog_operator.cluster.kube import Api, ApiError, items

LISTED: tuple[tuple[paths.Resource, str], ...] = (
    *((resource, "") for resource in paths.OURS.values()),
    (paths.VOLCANO_JOBS, paths.LABEL),
    (paths.INFERENCE_SERVICES, paths.LABEL),
    (paths.DEPLOYMENTS, paths.LABEL),
    (paths.JOBS, paths.LABEL),
)
"""What is listed, and the labels that it must carry."""


class Snapshot:
    """An Api that answers from what was listed. versions: of every object, by resource, namespace and name; unknown:
    resources that the server does not have."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.versions: dict[tuple[str, str, str], str] = {}
        self.unknown: list[paths.Resource] = []

    def take(self, api: Api, namespace: str | None) -> None:
        """Lists everything of a namespace, None for all. Raises ApiError."""
        for resource, selector in LISTED:
            try:
                for body in items(api, resource.path(namespace), selector):
                    self.put(resource, body)
            except ApiError as error:
                if not error.missing_type:
                    raise
                self.unknown.append(resource)

    def put(self, resource: paths.Resource, body: dict[str, Any]) -> None:
        metadata = body["metadata"]
        metadata.pop("managedFields", None)
        self.versions[resource.name, metadata["namespace"], metadata["name"]] = metadata["resourceVersion"]
        path = resource.path(metadata["namespace"], metadata["name"])
        self.objects[path] = json.dumps(body, separators=(",", ":")).encode()

    def names(self, resource: paths.Resource) -> Iterator[tuple[str, str]]:
        """Namespace and name of every object of a resource."""
        return ((namespace, name) for kind, namespace, name in self.versions if kind == resource.name)

    def call(
        self,
        method: str,
        path: str,
        *,
        body: Mapping[str, Any] | None = None,
        query: Mapping[str, str] | None = None,
        content: str = "application/json",
    ) -> dict[str, Any]:
        if method != "GET":
            raise ApiError(405, "MethodNotAllowed", f"{method} {path}: what was listed cannot be changed")
        if query is not None:
            return {"items": []}
        found = self.objects.get(path)
        if found is None:
            raise ApiError(404, "NotFound", f"{path} was not there")
        return json.loads(found)

"""An endpoint -> the command line of its server, the same in a pod and on a laptop."""

from __future__ import annotations

import json

from gog import catalog
from gog import spec as settings
from gog_operator.api import names
from gog_operator.api.objects import Endpoint

READERS = tuple(server.name for server in catalog.SERVERS if server.reads_data)
"""Roles that answer from a dataset; the others know only what they are sent."""


def arguments(
    endpoint: Endpoint, *, host: str, port: int, ready_file: str = "", data: settings.DataSpec | None = None
) -> list[str]:
    """What follows `gog serve`. data: where the dataset is."""
    spec = endpoint.spec
    line = [names.kebab(spec.role), "--host", host, "--port", str(port)]
    if ready_file:
        line += ["--ready-file", ready_file]
    place = (data.path or data.uri) if data is not None and spec.role in READERS else None
    if place:
        line += ["--data", place]
    if spec.backend != "world":
        line += ["--backend", spec.backend]
    if spec.options:
        line += ["--options", json.dumps(spec.options, sort_keys=True)]
    if spec.base:
        line += ["--model", spec.base]
    if reads_store(endpoint, data) and spec.store is not None:
        line += ["--store", spec.store.model_dump_json(by_alias=True, exclude_unset=True)]
    if spec.failures.rate > 0:
        line += ["--failures", json.dumps(spec.failures.model_dump(mode="json"))]
    return line


def reads_store(endpoint: Endpoint, data: settings.DataSpec | None) -> bool:
    """Whether the server fetches something from a store: adapters, or a dataset that is kept in one."""
    if endpoint.spec.role == "policy":
        return True
    return endpoint.spec.role in READERS and data is not None and data.uri is not None

"""An endpoint -> the command line of its server, the same in a pod and on a laptop."""

from __future__ import annotations

import json

from gog import spec as settings
from gog_operator.api.objects import Endpoint
from gog_operator.build import names


def arguments(
    endpoint: Endpoint, *, host: str, port: int, ready_file: str, data: settings.DataSpec | None
) -> list[str]:
    """What follows `gog serve`."""
    spec = endpoint.spec
    line = [names.kebab(spec.role), "--host", host, "--port", str(port), "--ready-file", ready_file]
    if data is not None and data.path is not None:
        line += ["--data", data.path]
    if spec.backend != "world":
        line += ["--backend", spec.backend]
    if spec.model:
        line += ["--model", spec.model]
    if spec.failures.rate > 0:
        line += ["--failures", json.dumps(spec.failures.model_dump(mode="json"))]
    return line

"""A stage's state over HTTP: `/metrics` in Prometheus' text format, `/progress` as JSON. Read-only.

Served by threads of the recipe's own process, so it answers exactly as long as the recipe runs. A training step holds
the interpreter for moments only, so a slow answer does not mean a fault.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gog import finite_json, metrics
from gog.errors import UserError
from gog.metrics import serving
from gog_recipes.runtime.ranks import Ranks

page = serving.MultiRankRegistry(metrics.REGISTRY)
"""This rank's metrics, and what other ranks have counted."""


def serve(port: int, progress: Callable[[], dict[str, Any]], host: str = "0.0.0.0") -> serving.Server:
    """Starts serving.

    Args:
        port: 0 takes a free one
        progress: the progress document, read at each request
        host: address to listen on

    Raises:
        UserError: the port is taken.
    """
    pages: serving.Pages = {
        serving.METRICS: lambda: serving.text(page),
        "/progress": lambda: ("application/json", finite_json.dumps(progress()).encode()),
    }
    try:
        return serving.Server(pages, port, host)
    except OSError as error:
        raise UserError(
            f"cannot serve metrics at port {port}: {error.strerror}", where=serving.PORT, remedy="use another"
        ) from None


def gather_counts(ranks: Ranks) -> None:
    """Puts the counts of all ranks on the page of rank 0. All ranks at once."""
    if ranks.size > 1:
        page.others = ranks.gather(serving.counts(metrics.REGISTRY))[1:]


def begin(workdir: Path, progress: Callable[[], dict[str, Any]]) -> serving.Server | None:
    """Serves if the environment asks for it, and writes port and process id into the work folder."""
    if not os.environ.get(serving.PORT):
        return None
    server = serve(int(os.environ[serving.PORT]), progress, os.environ.get(serving.HOST) or "0.0.0.0")
    (workdir / serving.PORT_FILE).write_text(json.dumps({"port": server.server_port, "pid": os.getpid()}))
    return server


def end(server: serving.Server | None) -> None:
    """Waits for the last scrape, if the environment gives time for one."""
    if server is not None:
        server.linger(float(os.environ.get(serving.LINGER) or 0))

"""What a stage's pod says of itself over HTTP: `/metrics` in Prometheus' text, `/progress` as JSON. Read-only.

Threads of the recipe's own process, so that it answers as long as the recipe runs and no longer. A step of training
holds the interpreter for moments only; a slow answer is no sign of a fault.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import prometheus_client

from gog import metrics
from gog.errors import UserError

PORT = "GOG_METRICS_PORT"
"""Environment: the port to serve at; absent on one machine, where stages have files in common with `gog run`."""


def serve(port: int, progress: Callable[[], dict[str, Any]], host: str = "0.0.0.0") -> ThreadingHTTPServer:
    """Starts serving; port 0 takes a free one. Raises UserError when the port is taken."""
    pages: dict[str, Callable[[], tuple[str, bytes]]] = {
        "/metrics": lambda: (
            prometheus_client.CONTENT_TYPE_LATEST,
            prometheus_client.generate_latest(metrics.REGISTRY),
        ),
        "/progress": lambda: ("application/json", json.dumps(progress()).encode()),
    }

    class Handler(BaseHTTPRequestHandler):
        timeout = 30

        def do_GET(self) -> None:
            page = pages.get(self.path.partition("?")[0])
            if page is None:
                self.send_error(404)
                return
            kind, body = page()
            self.send_response(200)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Polled every few seconds: not worth a line."""

    try:
        server = ThreadingHTTPServer((host, port), Handler)
    except OSError as error:
        raise UserError(
            f"cannot serve metrics at port {port}: {error.strerror}", where=PORT, remedy="give another"
        ) from None
    threading.Thread(target=server.serve_forever, daemon=True, name="monitor").start()
    return server

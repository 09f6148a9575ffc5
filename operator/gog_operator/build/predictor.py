"""What all predictor pods have in common: names, the port, probes, and how they end."""

from __future__ import annotations

from typing import Any

PORT = 8080
"""Port of every server."""
CONTAINER = "kserve-container"
"""Name by which KServe knows a predictor's main container."""
PRESTOP_SECONDS = 5
"""Seconds that a terminating pod still answers, because requests arrive until every node knows that it terminates."""
GRACE_SECONDS = 45
"""Seconds before a terminating pod is killed: preStop, the server's 25 seconds for requests in flight, and a reserve."""
PERIOD = 2
"""Seconds between probes of a server that is not ready."""
LIFECYCLE = {"preStop": {"sleep": {"seconds": PRESTOP_SECONDS}}}
"""Hooks of a server's container."""

Document = dict[str, Any]


def probe(path: str, period: int, failures: int, port: int = PORT) -> Document:
    """A probe over HTTP. period: seconds between requests; failures: requests in a row that may fail."""
    return {
        "httpGet": {"path": path, "port": port, "scheme": "HTTP"},
        "periodSeconds": period,
        "timeoutSeconds": 5,
        "failureThreshold": failures,
    }

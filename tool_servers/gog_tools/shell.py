"""What every tool server has around it: a health page, metrics, a cap on bodies, a count of what was answered.

It lies outside of failure injection, so that neither page ever fails on purpose, and that injected failures are counted
as what the client saw. Bodies larger than any picture needs are refused before they are read; an error that a server
did not foresee becomes a 500 and a traceback in the log, and costs the client neither its connection nor others theirs.
"""

from __future__ import annotations

import logging
import time

import prometheus_client

from gog_tools.failures import App, Message, Receive, Scope, Send, reply

MAX_BODY = 64_000_000
"""Bytes of a request."""
HEALTH_PATHS = ("/healthz", "/health")
OUTCOMES = ("ok", "client_error", "server_error", "gone")
REQUESTS = prometheus_client.Counter(
    "gog_server_requests", "Requests answered by a tool server, by outcome.", ("server", "outcome")
)
SECONDS = prometheus_client.Histogram(
    "gog_server_request_duration_seconds",
    "Duration of a request in the server.",
    ("server",),
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60),
)


class Shell:
    """ASGI layer around every server: health, metrics, the cap on bodies, and a count of what was answered."""

    def __init__(self, app: App, name: str) -> None:
        self.app = app
        self.outcomes = {outcome: REQUESTS.labels(name, outcome) for outcome in OUTCOMES}
        self.seconds = SECONDS.labels(name)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
        elif scope["path"] in HEALTH_PATHS:
            await reply(send, 200, b'{"status":"ok"}', kind=b"application/json")
        elif scope["path"] == "/metrics":
            page = prometheus_client.generate_latest()
            await reply(send, 200, page, kind=prometheus_client.CONTENT_TYPE_LATEST.encode())
        else:
            await self._counted(scope, receive, send)

    async def _counted(self, scope: Scope, receive: Receive, send: Send) -> None:
        status, start = 0, time.perf_counter()

        async def watched(message: Message) -> None:
            nonlocal status
            status = message.get("status", status)
            await send(message)

        try:
            refusal = too_large(scope)
            if refusal:
                await reply(watched, *refusal)
            else:
                await self.app(scope, receive, watched)
        except Exception:
            logging.getLogger(__name__).exception("%s %s failed", scope["method"], scope["path"])
            if status == 0:
                await reply(watched, 500, b"internal error; see the server's log")
        finally:
            self.outcomes[outcome_of(status)].inc()
            self.seconds.observe(time.perf_counter() - start)


def outcome_of(status: int) -> str:
    """0 stands for a request that was never answered."""
    if status == 0:
        return "gone"
    return "ok" if status < 400 else "client_error" if status < 500 else "server_error"


def too_large(scope: Scope) -> tuple[int, bytes] | None:
    """The refusal of a body whose length is not told or above MAX_BODY."""
    if scope["method"] not in ("POST", "PUT"):
        return None
    length = dict(scope["headers"]).get(b"content-length")
    if length is None:
        return 411, b"say the body's length"
    if int(length) > MAX_BODY:
        return 413, b"the body has more than %d bytes" % MAX_BODY
    return None

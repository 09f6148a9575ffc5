"""What every tool server has around it: health, metrics, a key, a cap on bodies, a count of what was answered.

It stands before the server itself is there: /healthz says that the process answers, /readyz that it can do its work,
and anything else is a 503 until then. It lies outside of failure injection, so that none of these pages ever fails on
purpose, and that injected failures are counted as what the client saw. Bodies larger than any image needs are refused
before they are read; an error that a server did not foresee becomes a 500 and a traceback in the log, and costs the
client neither its connection nor others theirs.
"""

from __future__ import annotations

import hmac
import logging
import time

from gog import metrics
from gog.metrics import serving
from gog_tools.serving.failures import App, Message, Receive, Scope, Send, drain, reply

MAX_BODY = 64_000_000
"""Bytes of a request."""
HEALTH_PATHS = ("/healthz", "/health")
READY_PATH = "/readyz"


class Shell:
    """ASGI layer around every server, opened once there is one. key: what requests have to bear; "" for none."""

    def __init__(self, name: str, *, key: str = "") -> None:
        self.app: App = _starting
        self.ready = False
        self.authorization = f"Bearer {key}".encode() if key else b""
        self.outcomes = {each: metrics.SERVER_REQUESTS.labels(name, each) for each in metrics.SERVER_OUTCOMES}
        self.seconds = metrics.SERVER_SECONDS.labels(name)

    def open(self, app: App) -> None:
        self.app, self.ready = app, True

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
        elif scope["path"] in HEALTH_PATHS:
            await reply(send, 200, b'{"status":"ok"}', kind=b"application/json")
        elif scope["path"] == READY_PATH:
            status, body = (200, b'{"status":"ready"}') if self.ready else (503, b'{"status":"starting"}')
            await reply(send, status, body, kind=b"application/json")
        elif scope["path"] == serving.METRICS:
            kind, page = serving.text(metrics.SERVERS.registry)
            await reply(send, 200, page, kind=kind.encode())
        else:
            await self._counted(scope, receive, send)

    async def _counted(self, scope: Scope, receive: Receive, send: Send) -> None:
        status, start = 0, time.perf_counter()

        async def watched(message: Message) -> None:
            nonlocal status
            status = message.get("status", status)
            await send(message)

        try:
            refusal = self._unauthorized(scope) or too_large(scope)
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

    def _unauthorized(self, scope: Scope) -> tuple[int, bytes] | None:
        given = dict(scope["headers"]).get(b"authorization", b"")
        if not self.authorization or hmac.compare_digest(given, self.authorization):
            return None
        return 401, b"send the header Authorization: Bearer KEY"


async def _starting(scope: Scope, receive: Receive, send: Send) -> None:
    await drain(receive)
    await reply(send, 503, b"starting; see /readyz", retry_after=1)


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

"""What surrounds every tool server: health, readiness, metrics, an API key, a cap on bodies, a count of answers.

It answers before the server behind it is built: /healthz as soon as the process runs, /readyz once it can do its work,
and every other page is a 503 until then. It lies outside of failure injection, so that its own pages never fail on
purpose and injected failures are counted as the client saw them. A body larger than any image needs is refused before
it is read; other bodies are read here, within bounds of time and memory (`intake`). An exception that a server does not
handle is a 500 with a traceback in the log, and closes neither this client's connection nor another's.
"""

from __future__ import annotations

import hmac
import logging
import time

from gog import metrics
from gog.metrics import serving
from gog_tools.serving import errors, intake
from gog_tools.serving.failures import App, Message, Receive, Scope, Send, drain, reply

MAX_BODY = 64_000_000
"""Most bytes of a request."""
HEALTH_PATHS = ("/healthz", "/health")
READY_PATH = "/readyz"
JSON = b"application/json"


class Middleware:
    """ASGI layer around a server, which it serves once `open` is called."""

    def __init__(self, name: str, *, key: str = "", has_metrics: bool = True) -> None:
        """Creates the layer of a server that is not ready.

        Args:
            name: Of the server.
            key: API key of requests; empty requires none.
            has_metrics: Whether /metrics is among its pages.
        """
        self.has_metrics = has_metrics
        self.app: App = _starting
        self.ready = False
        self.authorization = f"Bearer {key}".encode() if key else b""
        self.outcomes = {each: metrics.SERVER_REQUESTS.labels(name, each) for each in metrics.SERVER_OUTCOMES}
        self.seconds = metrics.SERVER_SECONDS.labels(name)
        self.intake = intake.Intake()

    def open(self, app: App) -> None:
        """Serves an application from now on."""
        self.app, self.ready = app, True

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
        elif scope["path"] in HEALTH_PATHS:
            await reply(send, 200, b'{"status":"ok"}', kind=JSON)
        elif scope["path"] == READY_PATH:
            status, body = (200, b'{"status":"ready"}') if self.ready else (503, b'{"status":"starting"}')
            await reply(send, status, body, kind=JSON)
        elif scope["path"] == serving.METRICS and self.has_metrics:
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
            await self._answer(scope, receive, watched)
        except Exception:
            logging.getLogger(__name__).exception("%s %s failed", scope["method"], scope["path"])
            if status == 0:
                await reply(watched, 500, errors.body(500, errors.UNEXPECTED), kind=JSON)
        finally:
            self.outcomes[outcome_of(status)].inc()
            self.seconds.observe(time.perf_counter() - start)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        refusal = self._unauthorized(scope) or refused_body(scope)
        if refusal:
            await refuse(send, refusal)
            return
        try:
            held = await self.intake.take(receive)
        except intake.Gone:
            return
        except errors.RequestError as error:
            await refuse(send, error)
            return
        with held:
            await self.app(scope, held.receive, send)

    def _unauthorized(self, scope: Scope) -> errors.RequestError | None:
        given = dict(scope["headers"]).get(b"authorization", b"")
        if not self.authorization or hmac.compare_digest(given, self.authorization):
            return None
        return errors.RequestError(401, "send the header Authorization: Bearer KEY")


async def refuse(send: Send, error: errors.RequestError) -> None:
    """Answers a request that does not reach the server. The rest of a body that is late is not waited for."""
    body, wait = errors.body(error.status, error.message), error.retry_after
    await reply(
        send, error.status, body, kind=JSON, retry_after=None if wait is None else int(wait), close=error.status == 408
    )


async def _starting(scope: Scope, receive: Receive, send: Send) -> None:
    await drain(receive)
    await reply(send, 503, errors.body(503, "starting; see /readyz"), kind=JSON, retry_after=1)


def outcome_of(status: int) -> str:
    """The outcome label of an HTTP status; 0 for a request that was never answered."""
    if status == 0:
        return "gone"
    return "ok" if status < 400 else "client_error" if status < 500 else "server_error"


def refused_body(scope: Scope) -> errors.RequestError | None:
    """Why a request's body is not read: its length is missing or above MAX_BODY. None accepts it."""
    headers = dict(scope["headers"])
    length = headers.get(b"content-length")
    if length is None:
        has_body = scope["method"] in ("POST", "PUT") or b"transfer-encoding" in headers
        return errors.RequestError(411, "send the body's length in Content-Length") if has_body else None
    if int(length) > MAX_BODY:
        return errors.RequestError(413, f"the body has more than {MAX_BODY} bytes")
    return None

"""Injected failures, to show that a run survives those of real tools.

Paid searches stall, refuse, break and answer HTML with status 200. This layer does the same to a chosen fraction of
requests, in front of any of our servers, which know nothing of it. Only POSTs fail: a server under injection must still
look healthy, as real ones do. Outages are not imitated (injected failures are independent of each other), nor wrong
answers.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from gog.spec import FailureInjection

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
"""An ASGI application."""

MALFORMED = (
    b"<!DOCTYPE html><html><body><h1>Please verify that you are human</h1></body></html>",
    b'{"hits": [{"title": "cut o',
)


class FailureInjector:
    """ASGI layer that fails requests. Which ones is a function of the seed and the order of requests alone."""

    def __init__(
        self, app: App, injection: FailureInjection, *, timeout_seconds: float = 30.0, retry_after: int = 1
    ) -> None:
        """Creates the layer.

        Args:
            app: what answers the other requests
            injection: fraction, kinds and seed of the failures
            timeout_seconds: how long a request that times out stays unanswered
            retry_after: seconds that a 429 asks the client to wait
        """
        self.app, self.injection = app, injection
        self.timeout_seconds, self.retry_after = timeout_seconds, retry_after
        self.rng = random.Random(injection.seed)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        kind = self.draw() if scope["type"] == "http" and scope["method"] == "POST" else None
        if kind is None:
            await self.app(scope, receive, send)
        else:
            await self.fail(kind, receive, send)

    def draw(self) -> str | None:
        """The kind of the next request's failure, or None."""
        if self.rng.random() >= self.injection.rate:
            return None
        return self.rng.choice(self.injection.kinds)

    async def fail(self, kind: str, receive: Receive, send: Send) -> None:
        """Answers a request with a failure of one kind."""
        await drain(receive)  # an unread body would close the client's connection, which is a failure of another kind
        if kind == "timeout":
            await wait_for_disconnect(receive, self.timeout_seconds)
            await reply(send, 504, b"injected timeout")
        elif kind == "429":
            await reply(send, 429, b"injected: too many requests", retry_after=self.retry_after)
        elif kind == "5xx":
            await reply(send, self.rng.choice((500, 503)), b"injected server error")
        elif kind == "malformed":
            await reply(send, 200, self.rng.choice(MALFORMED))
        else:
            await reply(send, 200, b"")


async def drain(receive: Receive) -> None:
    """Reads the request's body to its end, or until the client disconnects."""
    while True:
        message = await receive()
        if message["type"] == "http.disconnect" or not message.get("more_body", False):
            return


async def wait_for_disconnect(receive: Receive, seconds: float) -> None:
    """Waits until the client disconnects, at most `seconds`."""
    try:
        async with asyncio.timeout(seconds):
            while (await receive())["type"] != "http.disconnect":
                pass
    except TimeoutError:
        return


async def reply(
    send: Send,
    status: int,
    body: bytes,
    *,
    kind: bytes = b"text/plain",
    retry_after: int | None = None,
    close: bool = False,
) -> None:
    """Sends a complete response.

    Args:
        send: of the ASGI request
        status: HTTP status
        body: the whole body
        kind: content type
        retry_after: seconds for a Retry-After header; None sends none
        close: whether the connection ends after it
    """
    headers = [(b"content-type", kind), (b"content-length", b"%d" % len(body))]
    if retry_after is not None:
        headers.append((b"retry-after", b"%d" % retry_after))
    if close:
        headers.append((b"connection", b"close"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})

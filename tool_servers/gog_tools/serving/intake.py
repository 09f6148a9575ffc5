"""Receives the body of a request before the server behind it is called.

A client may send half of a body and wait, or many may send large ones at once. So a body has a time within which it must
arrive (408), and all bodies of a process share a number of bytes (503, after which a client retries). A body counts from its
first byte until its request is answered, because a server holds it, or what it has made of it, for as long. A client
that disconnects within its body is no failure of the server.

Bodies are not streamed: no server of gog begins before it has a whole one. Heads have bounds of their own
(serving.heads).
"""

from __future__ import annotations

import asyncio
from types import TracebackType

from gog_tools.serving import errors
from gog_tools.serving.failures import Message, Receive, drain

RECEIVE_SECONDS = 60.0
"""Time in which a body must arrive. The longest one then needs 9 Mbit/s."""
MAX_HELD = 512_000_000
"""Bytes of bodies that a process holds at once: a quarter of the memory that a tool server's pod has by default."""


class Gone(Exception):
    """The client disconnected before its body had arrived."""


class Held:
    """A body that has arrived. Its bytes count until the context is left."""

    def __init__(self, intake: Intake, receive: Receive) -> None:
        self._intake, self._receive, self._size = intake, receive, 0
        self._message: Message | None = None

    def __enter__(self) -> Held:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._intake.left += self._size
        self._size = 0

    async def arrive(self) -> None:
        """Receives the body. Raises Gone, and RequestError where there is no room for it."""
        body, more = bytearray(), True  # not a list: a client may send it in parts of one byte
        while more:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise Gone
            part, more = message.get("body", b""), message.get("more_body", False)
            if len(part) > self._intake.left:
                del body, part, message
                await self._refuse(more)
            self._intake.left -= len(part)
            self._size += len(part)
            body += part
        self._message = {"type": "http.request", "body": bytes(body), "more_body": False}

    async def _refuse(self, more: bool) -> None:
        """Reads the rest without keeping it: an unread body would end the connection before the client has the answer."""
        self.__exit__(None, None, None)
        if more:
            await drain(self._receive)
        raise errors.RequestError(503, "too many bytes of requests are in flight", retry_after=1)

    async def receive(self) -> Message:
        """The body in one message, then what the client does."""
        message, self._message = self._message, None  # not kept: the server behind has it
        return await self._receive() if message is None else message


class Intake:
    """What the bodies of a process share."""

    def __init__(self, *, seconds: float = RECEIVE_SECONDS, most: int = MAX_HELD) -> None:
        """Creates it.

        Args:
            seconds: time in which a body must arrive
            most: bytes of all bodies that are held at once
        """
        self.seconds, self.left = seconds, most

    async def take(self, receive: Receive) -> Held:
        """A body that has arrived; use it as a context manager.

        Raises:
            Gone: the client has disconnected.
            errors.RequestError: the body takes too long (408), or there is no room for it (503).
        """
        held = Held(self, receive)
        try:
            async with asyncio.timeout(self.seconds):
                await held.arrive()
        except BaseException as error:
            held.__exit__(None, None, None)
            if isinstance(error, TimeoutError):
                words = f"the body did not arrive within {self.seconds:g} s"
                raise errors.RequestError(408, words) from None
            raise
        return held

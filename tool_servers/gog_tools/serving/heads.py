"""Receives the head of a request: its first line and headers.

uvicorn calls an application when a head is complete, and bounds neither its time nor its size. So a client that never
completes one, or one that sends headers without end, is disconnected here. A connection that has sent nothing yet counts as
one whose head is not complete; between two requests, uvicorn's own limit holds (`timeout_keep_alive`).
"""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

SECONDS = 30.0
"""Time in which a head must arrive."""
MAX_BYTES = 65_536
"""Size of a head. What arrives at once, up to 256 KiB, is read before it is counted."""


class HeadProtocol(HttpToolsProtocol):
    """uvicorn's connection, which closes when a head takes too long or is too large."""

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self._deadline: asyncio.TimerHandle | None = None
        self._received = 0

    def connection_made(self, transport: asyncio.Transport) -> None:
        super().connection_made(transport)
        self._begin()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._deadline is not None:
            self._received += len(data)
            if self._received > MAX_BYTES:
                self.transport.close()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._begin()

    def on_headers_complete(self) -> None:
        self._end()
        super().on_headers_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        self._end()
        super().connection_lost(exc)

    def _begin(self) -> None:
        self._end()  # of the wait for a first byte
        self._received = 0
        self._deadline = self.loop.call_later(SECONDS, self.transport.close)

    def _end(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

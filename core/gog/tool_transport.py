"""HTTP transport of one tool: sends a request's bytes to its URL, returns the response's bytes, raises CallError.

Responses are untrusted: their size is bounded, they are never decompressed (a small one may expand to gigabytes), and
redirects are not followed. A server's error message is kept, in one line and without our key, because it is often the
only description of the cause.
"""

from __future__ import annotations

import asyncio
import contextlib
import email.utils
import functools
import io
import json
import math
import os
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC
from typing import Any

import aiohttp

from gog import metrics, tool_api, wording
from gog.calls import redact
from gog.calls.attempt import LONG_ANSWER
from gog.store import proxies
from gog.tool_types import Bill, CallError, FailureKind, add_pages

BACKEND = "http"
"""Label of metrics."""
MAX_ANSWER_BYTES = 24_000_000
"""Maximum bytes of a response. To read one takes a call that holds the interpreter lock throughout, and with it the
thread that owns sockets and deadlines: 20 ms for so many bytes."""
MAX_VALUES = 40_000
"""Maximum commas, brackets and braces of a tool's response, which can take far more time and memory than bytes do: 60 MB
of `[],` took minutes and gigabytes."""
OBSERVED_BYTES = 65_536
MAX_RETRY_AFTER = 86_400.0
"""Seconds; a server that asks for a longer wait is treated as one that asks for these."""
MAX_USD = 10_000.0
"""US dollars; a cost beyond them is a fault of the server, and not believed."""
MAX_WHOLE_BODY = 1 << 16
"""Maximum bytes of a request body that are written to the socket at once; a longer body is written in parts, so that
other requests are served in between."""
_EXPLANATION_BYTES = 20_000
"""Maximum bytes of an error body that is searched for a message."""


def open_session(connect_seconds: float | None = None) -> aiohttp.ClientSession:
    """A session for any number of transports; the call path sets deadlines and concurrency.

    Args:
        connect_seconds: seconds after which a host that answers nothing at all, as after the loss of its node, counts as
            unreachable; six times as long on a connection that is open. None: the deadline alone bounds a call.
    """
    factory = None if connect_seconds is None else functools.partial(_watched_socket, connect_seconds)
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, socket_factory=factory),
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=connect_seconds),
        auto_decompress=False,
    )


def _watched_socket(seconds: float, address: tuple[Any, ...]) -> socket.socket:
    """A socket that breaks off when the other host's kernel does not answer: after six times so many seconds."""
    made = socket.socket(*address[:3])
    made.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    count = 3
    options = {
        "TCP_KEEPIDLE": max(1, round(seconds)),
        "TCP_KEEPINTVL": max(1, round(seconds / count)),
        "TCP_KEEPCNT": count,
        "TCP_USER_TIMEOUT": round(6000 * seconds),  # it ends connections to a busy server that reads nothing, too
    }
    for name, value in options.items():
        if hasattr(socket, name):  # not every system has all of them
            made.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
    return made


@dataclass(frozen=True)
class Exchange:
    """One request, as an observer sees it."""

    status: int = 0
    """HTTP status; 0 where there was no response."""
    headers: Mapping[str, str] = field(default_factory=dict)
    """Of the response, with names in any case."""
    body: bytes = b""
    """First OBSERVED_BYTES bytes of its body, without our key."""
    error: Exception | None = None
    """Why there was no response."""


@dataclass(frozen=True)
class Transport:
    """Sends requests to one tool."""

    session: aiohttp.ClientSession
    """Open for as long as the transport is used."""
    tool: str
    """Name of the tool, for metrics."""
    url: str
    """URL of its requests."""
    key: str = ""
    """API key; empty where the server requires none."""
    backend: str = BACKEND
    """Label of metrics."""
    max_bytes: int = MAX_ANSWER_BYTES
    """Maximum bytes of a response."""
    max_values: int | None = None
    """Maximum commas, brackets and braces of a response; None for no limit."""
    observe: Callable[[Exchange], None] | None = None
    """Called after each request, but for those that are cut off."""

    async def send(self, body: bytes, bill: Bill | None = None) -> bytes:
        """Sends a JSON body by POST and returns the body of the response.

        Args:
            body: JSON.
            bill: the response's cost is added to it.

        Raises:
            CallError: no connection, a truncated or too long response, or a status other than 200.
        """
        answer = await self._exchange(body, bill)
        if len(answer) <= LONG_ANSWER:
            return self._clean(answer)
        return await asyncio.to_thread(self._clean, answer)

    def _clean(self, answer: bytes) -> bytes:
        """A response without our key. Raises CallError if it holds too many values."""
        if self.max_values is not None and len(answer) > self.max_values:
            check_values(answer, self.max_values)
        return redact.redact(answer, (self.key,))

    async def _exchange(self, body: bytes, bill: Bill | None) -> bytes:
        headers = {"content-type": "application/json", "accept-encoding": "identity"}
        if self.key:
            headers["authorization"] = f"Bearer {self.key}"
        data = body if len(body) <= MAX_WHOLE_BODY else io.BytesIO(body)
        try:
            async with self.session.post(
                self.url, data=data, headers=headers, allow_redirects=False, proxy=_proxy(self.url)
            ) as response:
                _note_cost(self.tool, response.headers, bill, self.backend)  # also of a body that cannot be read
                answer = await _read_whole(response, self.max_bytes)
                if self.observe is not None:
                    start = redact.redact(answer[:OBSERVED_BYTES], (self.key,))
                    self.observe(Exchange(response.status, response.headers, start))
                if response.status != 200:
                    check_status(response.status, response.headers, explanation(answer, self.key))
                return answer
        except TimeoutError:
            raise
        except (aiohttp.ClientError, OSError) as error:
            if self.observe is not None:
                self.observe(Exchange(error=error))
            words = f"{type(error).__name__}: {error}"  # quotes the server where its answer is not HTTP
            raise CallError(FailureKind.CONNECTION, explanation(words.encode(), self.key)) from None


def _proxy(url: str) -> str | None:
    """The proxy of the environment for a URL; None for none. Raises UserError for one that is not an http:// address."""
    found = proxies.of(url, os.environ) if proxies.named(os.environ) else None
    return found.url if found is not None else None


async def _read_whole(response: aiohttp.ClientResponse, most: int) -> bytes:
    """The whole body. Raises CallError if it has more bytes than `most`."""
    parts, size = [], 0
    async for part in response.content.iter_any():
        parts.append(part)
        size += len(part)
        if size > most:
            raise CallError(FailureKind.MALFORMED, f"the answer is longer than {most:,} bytes")
    return b"".join(parts)


def check_values(answer: bytes, most: int) -> None:
    """Raises CallError if JSON has more values than `most`, before it is parsed.

    Counts what separates values, inside texts too, and eight escapes of characters as one.
    """
    found = 0
    for start in range(0, len(answer), redact.PIECE):  # one search of all of it would hold the interpreter lock
        part = start, start + redact.PIECE
        found += sum(answer.count(each, *part) for each in (b",", b"[", b"{")) + answer.count(b"\\", *part) // 8
        if found > most:
            raise CallError(FailureKind.MALFORMED, f"the answer has more than {most:,} values")


_OF_HEADER = {
    **{name: FailureKind(name) for name in tool_api.FAILURES if name in set(FailureKind)},
    "unavailable": FailureKind.SERVER_ERROR,
    "unreachable": FailureKind.SERVER_ERROR,
}
_OF_STATUS = {
    401: FailureKind.AUTH,
    402: FailureKind.NO_CREDIT,
    403: FailureKind.AUTH,
    408: FailureKind.SERVER_ERROR,
    429: FailureKind.RATE_LIMITED,
}


def check_status(status: int, headers: Mapping[str, str], words: str, now: Callable[[], float] = time.time) -> None:
    """Raises CallError for any status other than 200.

    Args:
        status: HTTP status.
        headers: Headers of the response, with names in any case.
        words: The server's error message.
        now: Time in seconds since 1970, for a Retry-After that is a date in a response without a date of its own.
    """
    if status == 200:
        return
    message = f"HTTP {status}: {words}" if words else f"HTTP {status}"
    seconds = retry_after(headers, now)
    kind = _OF_HEADER.get(headers.get(tool_api.FAILURE_HEADER, "").strip().lower()) or _OF_STATUS.get(status)
    if kind is None and status == 503 and "retry-after" in headers:
        kind = FailureKind.RATE_LIMITED
    if kind is None:
        kind = FailureKind.SERVER_ERROR if status >= 500 else FailureKind.REFUSED
    raise CallError(kind, message, seconds)


def retry_after(headers: Mapping[str, str], now: Callable[[], float] = time.time) -> float | None:
    """Seconds that Retry-After asks for, from a number or from a date; None if it is absent or unreadable.

    A date is compared with the response's own date, because the two clocks may differ.
    """
    text = headers.get("retry-after", "").strip()
    if text.isascii() and text.replace(".", "", 1).isdigit():
        return min(float(text), MAX_RETRY_AFTER)
    until = _seconds_since_1970(text)
    if until is None:
        return None
    since = _seconds_since_1970(headers.get("date", ""))
    return min(max(0.0, until - (now() if since is None else since)), MAX_RETRY_AFTER)


def _seconds_since_1970(date: str) -> float | None:
    """The time of an HTTP date; None for any other text."""
    try:
        time_of_day = email.utils.parsedate_to_datetime(date)
        return time_of_day.replace(tzinfo=time_of_day.tzinfo or UTC).timestamp()
    except (ValueError, OverflowError):
        return None


def explanation(answer: bytes, key: str = "") -> str:
    """A server's error message, in one line of at most wording.MAX_WORDS characters.

    The message in error bodies of OpenAI and FastAPI; any other body unchanged.

    >>> explanation(b'{"error": {"message": "The model does not exist", "code": 404}}')
    'The model does not exist'
    """
    text = answer[:_EXPLANATION_BYTES].decode("utf-8", "replace")
    if len(answer) <= _EXPLANATION_BYTES:
        with contextlib.suppress(ValueError, RecursionError):  # not JSON: the body is the message
            text = _message(json.loads(text)) or text
    return wording.one_line(text.replace(key, "[key]") if key else text)


def _message(body: Any) -> str:
    for name in ("error", "message", "detail"):
        if isinstance(body, dict) and name in body:
            return _message(body[name])
    return body if isinstance(body, str) else ""


def _note_cost(tool: str, headers: Mapping[str, str], bill: Bill | None = None, backend: str = BACKEND) -> None:
    """Records the cost that a response reports, also for failures, which may be charged."""
    if tool_api.COST_HEADER in headers or tool_api.CREDIT_HEADER in headers:
        cost = dollars(headers.get(tool_api.COST_HEADER, ""), MAX_USD)
        left = dollars(headers.get(tool_api.CREDIT_HEADER, ""))
        metrics.record_cost(tool, backend, cost, left)
        if bill is not None:
            bill.usd = bill.usd if cost is None else (bill.usd or 0.0) + cost
            bill.credit = bill.credit if left is None else left
    if bill is None:
        return
    bill.vendor = wording.one_line(headers.get(tool_api.VENDOR_HEADER, ""), 40)
    calls = _count(headers.get(tool_api.CALLS_HEADER, ""))
    if calls is not None:
        bill.calls = (bill.calls or 0) + calls
    names = (tool_api.PAGES_READ_HEADER, tool_api.PAGES_FAILED_HEADER)
    read, failed = (_count(headers.get(name, "")) or 0 for name in names)
    bill.pages = add_pages(bill.pages, (read, failed))


def _count(text: str) -> int | None:
    """A number of a header; None if it is none below a billion."""
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else None


def dollars(text: str, most: float = math.inf) -> float | None:
    """The amount; None if the text is not an amount of money, or a larger one than `most`."""
    try:
        amount = float(text)
    except ValueError:
        return None
    return amount if math.isfinite(amount) and 0 <= amount <= most else None

"""HTTP transport of one tool: sends a request's bytes to its URL, returns the response's bytes, raises CallError.

Responses are untrusted: their size is bounded, they are never decompressed (a small one may expand to gigabytes), and
redirects are not followed. A server's error message is kept, in one line and without our key, because it is often the
only description of the cause.
"""

from __future__ import annotations

import contextlib
import io
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import aiohttp

from gog import metrics, tool_api
from gog.call_path import CallError
from gog.tool_types import FailureKind

BACKEND = "http"
"""Label of metrics."""
MAX_ANSWER_BYTES = 64_000_000
MAX_WHOLE_BODY = 1 << 16
"""Maximum bytes of a request body that are written to the socket at once; a longer body is written in parts, so that
other requests are served in between."""
MAX_WORDS = 300
"""Maximum characters that are kept of a server's error message."""
_EXPLANATION_BYTES = 20_000
"""Maximum bytes of an error body that is searched for a message."""


def open_session() -> aiohttp.ClientSession:
    """A session for any number of transports; the call path sets deadlines and concurrency."""
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0),
        timeout=aiohttp.ClientTimeout(total=None),
        auto_decompress=False,
    )


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

    async def send(self, body: bytes) -> bytes:
        """Sends a JSON body by POST and returns the body of the response.

        Raises:
            CallError: no connection, a truncated or too long response, or a status other than 200.
        """
        headers = {"content-type": "application/json", "accept-encoding": "identity"}
        if self.key:
            headers["authorization"] = f"Bearer {self.key}"
        data = body if len(body) <= MAX_WHOLE_BODY else io.BytesIO(body)
        try:
            async with self.session.post(self.url, data=data, headers=headers, allow_redirects=False) as response:
                answer = await _read_whole(response)
                _note_cost(self.tool, response.headers)
                check_status(response.status, response.headers.get("retry-after"), explanation(answer, self.key))
                return answer
        except TimeoutError:
            raise
        except (aiohttp.ClientError, OSError) as error:
            raise CallError(FailureKind.CONNECTION, f"{type(error).__name__}: {error}"[:MAX_WORDS]) from None


async def _read_whole(response: aiohttp.ClientResponse) -> bytes:
    """The whole body. Raises CallError if it is too long."""
    parts, size = [], 0
    async for part in response.content.iter_any():
        parts.append(part)
        size += len(part)
        if size > MAX_ANSWER_BYTES:
            raise CallError(FailureKind.MALFORMED, f"the answer is longer than {MAX_ANSWER_BYTES:,} bytes")
    return b"".join(parts)


def check_status(status: int, retry_after: str | None, words: str) -> None:
    """Raises CallError for any status other than 200.

    Args:
        status: HTTP status.
        retry_after: Value of the Retry-After header, if present; only seconds are supported.
        words: The server's error message.
    """
    if status == 200:
        return
    message = f"HTTP {status}: {words}" if words else f"HTTP {status}"
    if status == 429 or (status == 503 and retry_after):
        seconds = float(retry_after) if retry_after and _is_number(retry_after) else None
        raise CallError(FailureKind.RATE_LIMITED, message, seconds)
    if status >= 500 or status == 408:
        raise CallError(FailureKind.SERVER_ERROR, message)
    raise CallError(FailureKind.REFUSED, message)


def _is_number(text: str) -> bool:
    return text.isascii() and text.replace(".", "", 1).isdigit()


def explanation(answer: bytes, key: str = "") -> str:
    """A server's error message, in one line of at most MAX_WORDS characters.

    The message in error bodies of OpenAI and FastAPI; any other body unchanged.

    >>> explanation(b'{"error": {"message": "The model does not exist", "code": 404}}')
    'The model does not exist'
    """
    text = answer[:_EXPLANATION_BYTES].decode("utf-8", "replace")
    if len(answer) <= _EXPLANATION_BYTES:
        with contextlib.suppress(ValueError, RecursionError):  # not JSON: the body is the message
            text = _message(json.loads(text)) or text
    return one_line(text.replace(key, "[key]") if key else text)


def _message(body: Any) -> str:
    for name in ("error", "message", "detail"):
        if isinstance(body, dict) and name in body:
            return _message(body[name])
    return body if isinstance(body, str) else ""


def one_line(text: str, limit: int = MAX_WORDS) -> str:
    """Untrusted text made safe for a log: one printable line of bounded length."""
    plain = "".join(each if each.isprintable() else " " for each in text[: 4 * limit])
    words = " ".join(plain.split())
    return words if len(words) <= limit else f"{words[: limit - 1]}…"


def _note_cost(tool: str, headers: Mapping[str, str]) -> None:
    """Records the cost that a response reports, also for failures, which may be charged."""
    if tool_api.COST_HEADER in headers or tool_api.CREDIT_HEADER in headers:
        cost, left = (_dollars(headers.get(name, "")) for name in (tool_api.COST_HEADER, tool_api.CREDIT_HEADER))
        metrics.record_cost(tool, BACKEND, cost, left)


def _dollars(text: str) -> float | None:
    """The amount; None if the text is not an amount of money."""
    try:
        amount = float(text)
    except ValueError:
        return None
    return amount if math.isfinite(amount) and amount >= 0 else None

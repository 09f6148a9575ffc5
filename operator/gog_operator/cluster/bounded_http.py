"""One HTTP request to a pod, bounded in time and size.

Problem: what listens in a pod is a tenant's, and an operator serves all tenants: an answer that drips a byte a second, or
redirects, or never ends would hold a worker. Decision: one deadline for connecting, sending and reading, a limit on the
bytes that are read, no redirects, no proxy. Resolving a name is bounded by the system's resolver only.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Answer:
    status: int
    """HTTP status."""
    body: bytes
    """At most the limit that was asked for; the rest is cut."""


def request(
    url: str, *, seconds: float, limit: int, body: bytes | None = None, headers: Mapping[str, str] | None = None
) -> Answer:
    """GET, or POST of a body.

    Args:
        url: the address.
        seconds: until the whole answer must have arrived.
        limit: bytes of the answer that are read.
        body: of a POST.
        headers: of the request.

    Raises:
        OSError: no answer came in time.
    """
    return asyncio.run(_request(url, seconds, limit, body, dict(headers or {})))


async def _request(url: str, seconds: float, limit: int, body: bytes | None, headers: dict[str, str]) -> Answer:
    import aiohttp  # here: a third of a second, which `gog run` need not spend

    timeout = aiohttp.ClientTimeout(total=seconds)
    method = "GET" if body is None else "POST"
    try:
        async with (
            aiohttp.ClientSession(timeout=timeout, headers=headers, auto_decompress=False) as session,
            session.request(method, url, data=body, allow_redirects=False) as response,
        ):
            return Answer(response.status, await _read(response.content, limit))
    except (aiohttp.ClientError, ValueError) as error:
        raise ConnectionError(str(error) or type(error).__name__) from None


async def _read(stream: asyncio.StreamReader, limit: int) -> bytes:
    data = b""
    while len(data) < limit and (chunk := await stream.read(limit - len(data))):
        data += chunk
    return data

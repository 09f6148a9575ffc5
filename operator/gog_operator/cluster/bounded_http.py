"""One HTTP request to a pod, bounded in time and size.

Problem: the server in a pod belongs to a tenant, and the operator serves all tenants. A response that trickles,
redirects or never ends would block a worker. Decision: one deadline covers resolving the name, connecting, sending and
reading; the bytes read are limited; redirects and proxies are disabled. A lookup in the system's resolver cannot be
interrupted, so it is left to its thread at the deadline; while as many as there are threads hang, others wait for one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

LOOKUPS = 32
"""Maximum number of names that are resolved at the same time."""


class _Lookups(ThreadPoolExecutor):
    """Threads that event loops share. The end of a loop does not wait for them."""

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Does nothing: another loop may use them."""


_LOOKUPS = _Lookups(LOOKUPS, thread_name_prefix="lookup")


@dataclass(frozen=True)
class Answer:
    """A response."""

    status: int
    """HTTP status."""
    body: bytes
    """Body, cut at the requested limit."""


def request(
    url: str, *, seconds: float, limit: int, body: bytes | None = None, headers: Mapping[str, str] | None = None
) -> Answer:
    """Sends a GET request, or a POST request if a body is given.

    Args:
        url: URL.
        seconds: Deadline for the whole response.
        limit: Maximum bytes read of the response.
        body: Body of a POST request.
        headers: Headers of the request.

    Raises:
        OSError: there was no response in time.
    """
    with asyncio.Runner() as runner:
        runner.get_loop().set_default_executor(_LOOKUPS)
        return runner.run(_request(url, seconds, limit, body, dict(headers or {})))


async def _request(url: str, seconds: float, limit: int, body: bytes | None, headers: dict[str, str]) -> Answer:
    import aiohttp  # slow to import (0.3 s), and `gog run` does not need it

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

"""The replicas behind the URLs of a manifest: one for each address of a host name that has several.

An adapter must be loaded on every replica, so a load balancer in front of them does not do. A headless Service of
Kubernetes is a name with an address for each pod, which changes when a pod is replaced. Only names of plain http are
looked up, because a certificate is of a name.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Awaitable, Callable, Sequence
from urllib.parse import urlsplit

LOOK_SECONDS = 10.0
"""Between two looks while turns are sampled."""

Lookup = Callable[[str, int], Awaitable[Sequence[str]]]
"""(host, port) -> addresses. Raises OSError."""


async def lookup(host: str, port: int) -> Sequence[str]:
    """Addresses of a host name. Raises OSError."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return sorted({str(each[4][0]) for each in found})


class Names:
    """URLs of a manifest."""

    def __init__(self, urls: Sequence[str], find: Lookup = lookup) -> None:
        """Keeps the URLs.

        Args:
            urls: base URLs
            find: looks up a host name
        """
        self.urls, self._find = urls, find
        self._several: set[str] = set()

    async def replicas(self) -> list[str]:
        """Base URL of each replica, in the order of the manifest. A name that cannot be looked up now stays a name."""
        found: list[str] = []
        for url in self.urls:
            found += [each for each in await self._of(url) if each not in found]
        return found

    async def _of(self, url: str) -> list[str]:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port or 80
        if parts.scheme != "http" or not _is_name(host):
            return [url]
        try:
            addresses = await self._find(host, port)
        except OSError:
            return [url] if host not in self._several else []
        families = {ipaddress.ip_address(each).version for each in addresses}
        own = [each for each in addresses if ipaddress.ip_address(each).version == min(families)]
        if len(own) > 1:
            self._several.add(host)
        if host not in self._several:
            return [url]
        return [f"http://{each if ':' not in each else f'[{each}]'}:{port}{parts.path}" for each in own]


def _is_name(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return host not in ("", "localhost")
    return False

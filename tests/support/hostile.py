"""Servers on loopback that answer as hostile or broken ones do, byte by byte; and a guard that may reach them.

127.0.0.1 takes the part of the public internet, 127.0.0.2 that of an internal address.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import time
import zlib
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Any, TypeVar

from gog_tools.fetch import guard
from support.tcp_server import TcpServer

Value = TypeVar("Value")
PUBLIC, INTERNAL = "127.0.0.1", "127.0.0.2"
LOOPBACK = (ipaddress.ip_network(f"{PUBLIC}/32"),)
HTML = "text/html; charset=utf-8"
PATIENCE = 20.0
"""Seconds for which a server sends an endless answer; tests end long before."""


def response(body: bytes = b"", status: str = "200 OK", **headers: str) -> bytes:
    """A whole response."""
    given = {"content-type": HTML, "content-length": str(len(body)), "connection": "close"}
    given |= {name.replace("_", "-"): value for name, value in headers.items()}
    lines = [f"{name}: {value}" for name, value in given.items() if value]
    return "\r\n".join([f"HTTP/1.1 {status}", *lines, "", ""]).encode() + body


def sends(*pieces: bytes, pause: float = 0.0) -> Callable[[socket.socket], None]:
    """Reads the request, then sends these pieces."""

    def serve(connection: socket.socket) -> None:
        connection.recv(1 << 16)
        for piece in pieces:
            connection.sendall(piece)
            time.sleep(pause)

    return serve


def repeats(head: bytes, piece: bytes, pause: float = 0.0) -> Callable[[socket.socket], None]:
    """Sends a beginning, then the same piece for as long as it is read."""

    def serve(connection: socket.socket) -> None:
        connection.recv(1 << 16)
        connection.sendall(head)
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            connection.sendall(piece)
            time.sleep(pause)

    return serve


def by_path(answers: dict[str, bytes]) -> Callable[[socket.socket], None]:
    """A whole response for each path; 404 for others."""

    def serve(connection: socket.socket) -> None:
        path = connection.recv(1 << 16).split(b" ")[1].decode()
        connection.sendall(answers.get(path, response(b"", "404 Not Found")))

    return serve


def gzip_of(size: int, member: bytes = b"") -> bytes:
    """A gzip body that decodes to `size` zero bytes."""
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    pieces = [packer.compress(bytes(1 << 20)) for _ in range(size >> 20)]
    return b"".join([*pieces, packer.compress(bytes(size & 0xFFFFF)), packer.flush(), member])


def names(**answers: Sequence[str]) -> guard.Resolve:
    """A resolver of `NAME.example`: each request takes the next answer, addresses separated by commas; the last stays."""
    left: dict[str, Iterator[str]] = {name: iter(each) for name, each in answers.items()}
    last: dict[str, str] = {}

    async def resolve(host: str) -> list[str]:
        name = host.partition(".")[0]
        if name not in left:
            raise socket.gaierror(socket.EAI_NONAME, "unknown")
        last[name] = next(left[name], last.get(name, ""))
        return last[name].split(",")

    return resolve


def fetch(
    port: int, use: Callable[[guard.Guard], Awaitable[Value]], resolve: guard.Resolve | None = None, **environment: str
) -> Value:
    """Runs `use` with a guard for which 127.0.0.1 is public, and `port` the port of web pages."""
    rules: dict[str, Any] = {"allow": LOOPBACK, "ports": frozenset({port})}
    rules |= {"resolve": resolve} if resolve else {}

    async def scenario() -> Value:
        async with guard.Guard(guard.Rules(**rules), environment=environment) as opened:
            return await use(opened)

    return asyncio.run(scenario())


def page(serve: Callable[[socket.socket], None], path: str = "/", limits: guard.Limits | None = None) -> guard.Answer:
    """Fetches one page of a server."""
    limits = limits or guard.Limits(max_bytes=1_000_000, seconds=5.0)
    with TcpServer(serve) as server:
        return fetch(server.port, lambda client: client.page(f"http://{PUBLIC}:{server.port}{path}", limits))

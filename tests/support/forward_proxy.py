"""A small HTTP forward proxy for tests, in this process: absolute URLs for http, CONNECT for https.

It resolves every host name to loopback, so that a server can be reached under a name that only the proxy knows. A test
that succeeds with such a name has gone through the proxy.
"""

from __future__ import annotations

import base64
import socket
import threading
import urllib.parse
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest

from support import tcp_server

HOST = "s3.gog.test"
"""A name that does not resolve; `.test` is reserved for this."""


@dataclass
class ForwardProxy:
    """Forwards requests to ports of this machine. It holds a body back until it has all of it, in both directions."""

    user: str = ""
    """Required user and password, as `user:password`; empty: none."""
    status: int = 0
    """Answer every request with this status instead of forwarding it; 0: forward."""
    requests: list[str] = field(default_factory=list)
    """Request lines, in order."""
    replaced: tuple[bytes, bytes] = (b"", b"")
    """Text to replace in the heads of answers."""

    def __enter__(self) -> ForwardProxy:
        self._server = tcp_server.TcpServer(self._serve)
        self._server.start()
        self.port = self._server.port
        return self

    def __exit__(self, *_: object) -> None:
        self._server.close()

    def url(self, credentials: str = "") -> str:
        return f"http://{credentials + '@' if credentials else ''}127.0.0.1:{self.port}"

    def _serve(self, connection: socket.socket) -> None:
        request = whole_message(connection)
        if not request:
            return
        line, _, _ = request.partition(b"\r\n")
        self.requests.append(line.decode())
        if refused := self._refusal(request):
            connection.sendall(f"HTTP/1.1 {refused} Refused\r\nContent-Length: 0\r\n\r\n".encode())
        elif line.startswith(b"CONNECT"):
            self._tunnel(connection, line)
        else:
            connection.sendall(self._forwarded(request))

    def _refusal(self, request: bytes) -> int:
        expected = f"proxy-authorization: basic {base64.b64encode(self.user.encode()).decode()}".lower()
        if self.user and expected.encode() not in request.lower():
            return 407
        return self.status

    def _forwarded(self, request: bytes) -> bytes:
        head, _, body = request.partition(b"\r\n\r\n")
        line, _, fields = head.partition(b"\r\n")
        method, url, version = line.decode().split(" ")
        parts = urllib.parse.urlsplit(url)
        target = parts.path + (f"?{parts.query}" if parts.query else "")
        kept = [each for each in fields.split(b"\r\n") if not each.lower().startswith((b"proxy-", b"connection:"))]
        with socket.create_connection(("127.0.0.1", parts.port or 80)) as onward:
            lines = [f"{method} {target} {version}".encode(), *kept, b"Connection: close"]
            onward.sendall(b"\r\n".join(lines) + b"\r\n\r\n" + body)
            answer = b""
            while data := onward.recv(1 << 20):
                answer += data
        head, end, body = answer.partition(b"\r\n\r\n")
        return head.replace(*self.replaced) + end + body if self.replaced[0] else answer

    def _tunnel(self, connection: socket.socket, line: bytes) -> None:
        port = int(line.split(b" ")[1].rpartition(b":")[2])
        with socket.create_connection(("127.0.0.1", port)) as onward:
            connection.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
            back = threading.Thread(target=_pump, args=(onward, connection), daemon=True)
            back.start()
            _pump(connection, onward)
            back.join()


def _pump(source: socket.socket, target: socket.socket) -> None:
    try:
        while data := source.recv(1 << 16):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)
    except OSError:
        pass  # the other side has closed


def whole_message(connection: socket.socket) -> bytes:
    """One request with its body; empty when the connection was closed."""
    request = b""
    while b"\r\n\r\n" not in request:
        data = connection.recv(1 << 16)
        if not data:
            return b""
        request += data
    head, _, body = request.partition(b"\r\n\r\n")
    fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:])
    missing = int(fields.get(b"content-length", 0)) - len(body)
    if fields.get(b"expect") == b"100-continue" and not body:
        connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
    pieces = [request]
    while missing > 0 and (data := connection.recv(1 << 20)):
        pieces.append(data)
        missing -= len(data)
    return b"".join(pieces)


@pytest.fixture
def proxy(monkeypatch: pytest.MonkeyPatch) -> Iterator[ForwardProxy]:
    """A proxy that the environment names, for http and https."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    with ForwardProxy() as running:
        monkeypatch.setenv("HTTP_PROXY", running.url())
        monkeypatch.setenv("HTTPS_PROXY", running.url())
        yield running

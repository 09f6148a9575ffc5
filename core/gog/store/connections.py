"""Connections that carry parts of blobs: fast for large bodies, through a proxy if there is one."""

from __future__ import annotations

import http.client
import io
import socket
import ssl
import struct
import urllib.parse
from typing import Any

from gog.store.proxies import Proxy

CONNECT_SECONDS, ANSWER_SECONDS = 10, 60
"""Time limits for opening a connection and for the next bytes of a small answer."""
SLOWEST = 1 << 20
"""Bytes per second that a buffering proxy must forward. It forwards a body after it has received all of it."""
LARGE = 1 << 16
"""Bytes; larger reads are of bodies."""


def connect(url: str, proxy: Proxy | None, context: ssl.SSLContext | None) -> http.client.HTTPConnection:
    """A connection for requests to a URL; it opens with the first one.

    Args:
        url: any address of the server.
        proxy: the proxy to go through; None: directly.
        context: trusted authorities, for https.
    """
    target = urllib.parse.urlsplit(url)
    host, port = (proxy.host, proxy.port) if proxy else (str(target.hostname), target.port)
    if target.scheme != "https":
        return _Plain(host, port, timeout=CONNECT_SECONDS)
    secure = _Secure(host, port, timeout=CONNECT_SECONDS, context=context)
    if proxy:
        name, number = str(target.hostname), target.port or 443
        secure.set_tunnel(name, number, {"Host": f"{name}:{number}", **proxy.headers})
    return secure


def request_target(url: str, proxy: Proxy | None) -> str:
    """The target in a request line: path and query, and the whole URL for a proxy without TLS."""
    parts = urllib.parse.urlsplit(url)
    if proxy and parts.scheme == "http":
        return url
    return parts.path + (f"?{parts.query}" if parts.query else "")


def allow(sock: socket.socket, size: int) -> None:
    """Sets how long to wait for bytes of the next answer. size: bytes of the request's body or of the answer."""
    _set_timeout(sock, ANSWER_SECONDS + size // SLOWEST)


def _set_timeout(sock: socket.socket, seconds: int) -> None:
    """Time-outs by the kernel; Python's own take two system calls for each send and receive."""
    limit = struct.pack("ll", seconds, 0)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, limit)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)


def _prepare(sock: socket.socket) -> None:
    sock.settimeout(None)
    _set_timeout(sock, ANSWER_SECONDS)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


class _Whole(io.RawIOBase):
    """A socket's bytes. Large reads fill their buffer, in one system call instead of ten."""

    def __init__(self, sock: socket.socket, raw: io.RawIOBase) -> None:
        self._sock, self._raw = sock, raw

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        if len(buffer) < LARGE:
            return self._raw.readinto(buffer)
        return self._sock.recv_into(buffer, len(buffer), socket.MSG_WAITALL)

    def close(self) -> None:
        self._raw.close()
        super().close()


class _Response(http.client.HTTPResponse):
    def __init__(self, sock: socket.socket, *arguments: Any, **options: Any) -> None:
        super().__init__(sock, *arguments, **options)
        self.fp = io.BufferedReader(_Whole(sock, self.fp.detach()))


class _Plain(http.client.HTTPConnection):
    response_class = _Response

    def connect(self) -> None:
        super().connect()
        _prepare(self.sock)


class _Secure(http.client.HTTPSConnection):
    def connect(self) -> None:
        super().connect()
        _prepare(self.sock)

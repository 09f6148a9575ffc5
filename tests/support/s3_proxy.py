"""A proxy before an S3 server, which fails requests as a test orders."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable

from gog.spec import StoreSpec
from support import forward_proxy, s3, tcp_server


class Proxy:
    """A reverse proxy in front of a gateway that makes requests fail. It closes the connection after each answer.

    ignored: a header for which it answers 200 by itself; fail_when: which requests (their head as bytes) to answer by which fault.
    """

    def __init__(self, gateway: s3.Gateway) -> None:
        self.gateway, self.failed, self.ignored = gateway, 0, b""
        self._when: Callable[[bytes], bool] = lambda _: False
        self._fault: Callable[..., None] = Proxy.reset
        self._left, self._lock = 0, threading.Lock()
        self._server = tcp_server.TcpServer(self._serve)
        self.port = self._server.port

    def fail_when(self, when: Callable[[bytes], bool], fault: Callable[..., None], times: int = 1) -> None:
        self._when, self._fault, self._left = when, fault, times

    def spec(self, prefix: str, **fields: object) -> StoreSpec:
        return self.gateway.spec(prefix, endpoint_url=f"http://127.0.0.1:{self.port}", **fields)

    def __enter__(self) -> Proxy:
        self._server.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.close()

    def _serve(self, connection: socket.socket) -> None:
        request = forward_proxy.whole_message(connection)
        if not request:
            return
        with self._lock:
            fails = self._left > 0 and self._when(request.partition(b"\r\n\r\n")[0])
            self._left -= fails
            self.failed += fails
        (self._fault if fails else Proxy.passed)(self, connection, request)

    def _answer(self, request: bytes) -> bytes:
        head, _, body = request.partition(b"\r\n\r\n")
        if self.ignored and self.ignored + b":" in head.lower():
            return b'HTTP/1.1 200 OK\r\nETag: "x"\r\nContent-Length: 0\r\nConnection: close\r\n\r\n'
        with socket.create_connection(("127.0.0.1", self.gateway.port)) as onward:
            onward.sendall(head + b"\r\nConnection: close\r\n\r\n" + body)
            answer = b""
            while data := onward.recv(1 << 20):
                answer += data
        return answer

    def passed(self, connection: socket.socket, request: bytes) -> None:
        connection.sendall(self._answer(request))

    def answer429(self, connection: socket.socket, request: bytes) -> None:
        connection.sendall(b"HTTP/1.1 429 Too Many Requests\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")

    def answer403(self, connection: socket.socket, request: bytes) -> None:
        connection.sendall(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")

    def answer500(self, connection: socket.socket, request: bytes) -> None:
        connection.sendall(b"HTTP/1.1 500 Oh\r\nContent-Length: 2\r\nConnection: close\r\n\r\noh")

    def answer503(self, connection: socket.socket, request: bytes) -> None:
        body = b"<Error><Code>SlowDown</Code><Message>Reduce your request rate.</Message></Error>"
        head = f"HTTP/1.1 503 Slow Down\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        connection.sendall(head.encode() + body)

    def reset(self, connection: socket.socket, request: bytes) -> None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")

    def lose(self, connection: socket.socket, request: bytes) -> None:
        self._answer(request)

    def cut(self, connection: socket.socket, request: bytes) -> None:
        answer = self._answer(request)
        head, end, body = answer.partition(b"\r\n\r\n")
        connection.sendall(head + end + body[: len(body) // 2] if body else head[:100])

    def flip(self, connection: socket.socket, request: bytes) -> None:
        answer = bytearray(self._answer(request))
        answer[-1] ^= 1
        connection.sendall(answer)

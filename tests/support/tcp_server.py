"""A TCP server on loopback whose connections a test's own function serves."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable


class TcpServer:
    """Serves each connection in a thread of its own. Its port accepts connections from construction on.

    Use as a context manager, or call `start` and `close`. Open connections are served to their end.
    """

    def __init__(self, serve: Callable[[socket.socket], None]) -> None:
        """serve: serves one connection, which is closed when it returns. An OSError ends only that connection."""
        self._serve = serve
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self.port = int(self._listener.getsockname()[1])

    def __enter__(self) -> TcpServer:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)  # to close it would not wake the thread that accepts
        self._thread.join()
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._handle, args=(connection,), daemon=True).start()

    def _handle(self, connection: socket.socket) -> None:
        with connection:
            try:
                self._serve(connection)
            except OSError:
                return  # the client has disconnected

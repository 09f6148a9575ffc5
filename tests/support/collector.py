"""A collector of traces on this machine: takes OTLP over HTTP, decodes it, and keeps what it received."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest


@dataclass(frozen=True)
class Received:
    """A span as a collector sees it."""

    name: str
    """What it is."""
    trace: str
    """Id of the trace, in hexadecimal digits."""
    id: str
    """Id of the span, in hexadecimal digits."""
    parent: str
    """Id of the parent; empty at the root."""
    started: int
    """Nanoseconds since 1970."""
    ended: int
    """Nanoseconds since 1970."""
    failed: bool
    """Whether its status is an error."""
    attributes: dict[str, Any] = field(hash=False)
    """Attributes by name."""

    def __getitem__(self, name: str) -> Any:
        return self.attributes[name]


class Collector:
    """Use as a context manager."""

    def __init__(self, status: int = 200, hangs: bool = False, address: tuple[str, int] = ("127.0.0.1", 0)) -> None:
        """
        Args:
            status: HTTP status of every answer.
            hangs: whether it takes requests without answering them.
            address: host and port where it listens; port 0 takes a free one.
        """
        self.status, self.hangs, self.address = status, hangs, address
        self.spans: list[Received] = []
        self.requests: list[tuple[str, dict[str, str]]] = []
        self.bytes = 0
        self._free = threading.Event()

    def __enter__(self) -> Collector:
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                collector.requests.append((self.path, {name.lower(): value for name, value in self.headers.items()}))
                collector.bytes += len(body)
                if collector.hangs:
                    collector._free.wait()
                if collector.status == 200:
                    collector.spans += received(body)
                self.send_response(collector.status)
                self.send_header("location", "/elsewhere")
                self.end_headers()

            def log_message(self, *_: Any) -> None: ...

        self._server = ThreadingHTTPServer(self.address, Handler)
        self._server.daemon_threads = True
        self.url = f"http://{self.address[0]}:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._free.set()
        self._server.shutdown()
        self._server.server_close()

    def named(self, name: str) -> list[Received]:
        return [span for span in self.spans if span.name == name]

    def children(self, of: Received) -> list[Received]:
        return sorted((span for span in self.spans if span.parent == of.id), key=lambda span: span.started)


def received(body: bytes) -> Iterator[Received]:
    request = ExportTraceServiceRequest.FromString(body)
    for resource in request.resource_spans:
        for scope in resource.scope_spans:
            for span in scope.spans:
                attributes = {each.key: getattr(each.value, each.value.WhichOneof("value")) for each in span.attributes}
                ids = (span.trace_id.hex(), span.span_id.hex(), span.parent_span_id.hex())
                times = (span.start_time_unix_nano, span.end_time_unix_nano)
                yield Received(span.name, *ids, *times, span.status.code == span.status.STATUS_CODE_ERROR, attributes)

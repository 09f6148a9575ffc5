"""The /metrics page of a process, and its last scrape.

Threads of the process serve the page, so it answers exactly as long as the process lives. The last values of a process
are lost when it exits before a scrape. So a process that has been scraped before may linger at its end for one more
scrape, for a bounded time. Counts of several ranks are added up on the page of rank 0.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import prometheus_client
from prometheus_client import CollectorRegistry
from prometheus_client.core import Metric

CONTENT_TYPE = prometheus_client.CONTENT_TYPE_LATEST
METRICS = "/metrics"
TEXT = "text/plain; charset=utf-8"
PORT, HOST, LINGER = "GOG_METRICS_PORT", "GOG_METRICS_HOST", "GOG_METRICS_LINGER"
"""Environment of a stage: the port of its page, 0 for a free one (without a port there is no page); the host (default: all
interfaces); and the seconds it lingers at its end for one more scrape, if it was ever scraped (default: 0)."""
PORT_FILE = "metrics-port.json"
"""In a stage's work folder: {"port", "pid"} of the process that serves its page, for readers on this machine."""
ADDED = ("counter", "histogram")
"""Types whose samples are added up over processes."""

Counts = dict[tuple[str, tuple[tuple[str, str], ...]], float]
"""Value of each sample by its name and labels."""
Pages = Mapping[str, Callable[[], tuple[str, bytes]]]
"""Functions that make the content type and body of each path."""


class MultiRankRegistry:
    """The registry of this process, with the counts of other processes added."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.registry = registry
        self.others: Sequence[Counts] = ()

    def collect(self) -> Iterator[Metric]:
        for family in self.registry.collect():
            if self.others and family.type in ADDED:
                self._add(family)
            yield family

    def _add(self, family: Metric) -> None:
        total = _counts(family)
        for other in self.others:
            for key, value in other.items():
                if key in total or _belongs(key[0], family):
                    total[key] = total.get(key, 0.0) + value
        family.samples = []
        for (name, labels), value in total.items():
            family.add_sample(name, dict(labels), value)


def counts(registry: CollectorRegistry) -> Counts:
    """The counts of this process, for the process that serves the page."""
    return {
        key: value
        for family in registry.collect()
        if family.type in ADDED and family.name.startswith("gog_")
        for key, value in _counts(family).items()
    }


def _counts(family: Metric) -> Counts:
    return {(each.name, tuple(each.labels.items())): each.value for each in family.samples}


def _belongs(sample: str, family: Metric) -> bool:
    return sample in {f"{family.name}{suffix}" for suffix in ("_total", "_bucket", "_sum", "_count")}


def text(registry: Any) -> tuple[str, bytes]:
    """Content type and body of a registry's page."""
    return CONTENT_TYPE, prometheus_client.generate_latest(registry)


class Unhealthy(Exception):
    """Raised by a page: it is answered with 503 and the exception's text."""


class Server(ThreadingHTTPServer):
    """Serves pages from construction on."""

    def __init__(self, pages: Pages, port: int, host: str) -> None:
        """
        Args:
            pages: what is served, by path.
            port: port to listen on; 0 takes a free one.
            host: address to listen on.

        Raises:
            OSError: the port is taken.
        """
        super().__init__((host, port), Handler)
        self.pages, self.ever_scraped = pages, False
        self.last: threading.Event | None = None
        """Set by the next scrape that starts after this event was assigned."""
        threading.Thread(target=self.serve_forever, daemon=True, name="metrics").start()

    def linger(self, seconds: float) -> bool:
        """Waits for one more scrape, for at most `seconds`. Returns whether there was one."""
        if not self.ever_scraped or seconds <= 0:
            return False
        self.last = threading.Event()
        return self.last.wait(seconds)


class Handler(BaseHTTPRequestHandler):
    """Makes few blocking calls, because after each it waits for the GIL, which a busy step holds: a connection is kept from
    scrape to scrape, and an answer is written at once."""

    server: Server
    protocol_version = "HTTP/1.1"
    wbufsize = 1 << 20
    disable_nagle_algorithm = True
    timeout = 150

    def do_GET(self) -> None:
        path, last = self.path.partition("?")[0], self.server.last
        page = self.server.pages.get(path)
        if page is None:
            self.send_error(404)
            return
        self.server.ever_scraped |= path == METRICS
        status = 200
        try:
            kind, body = page()
        except Unhealthy as error:
            status, kind, body = 503, TEXT, str(error).encode()
        except Exception as error:  # noqa: BLE001  the client gets a 500; the process continues
            logging.getLogger(__name__).warning("%s: %s", path, error)
            self.send_error(500, explain=str(error))
            return
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
        self.wfile.flush()
        if path == METRICS and last is not None:
            last.set()

    def log_message(self, *_: object) -> None:
        """Logs nothing: a scrape every few seconds is not worth a line."""

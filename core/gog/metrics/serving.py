"""A process's page for Prometheus, and its last scrape.

Threads of the process itself serve it: it answers as long as the process does. A process that ends takes its last
figures with it, so one that has been scraped may wait, at its end, for one more scrape, but not longer than it is told
to, and not at all if nobody ever came. What several ranks have counted is put together on the leader's page.
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
PORT, HOST, LINGER = "GOG_METRICS_PORT", "GOG_METRICS_HOST", "GOG_METRICS_LINGER"
"""Environment of a stage: where it serves, 0 for a free port (without a port it does not; without a host, to everybody);
and how many seconds it waits, at its end, for one more scrape, if it was ever scraped (default: 0)."""
PORT_FILE = "metrics-port.json"
"""In a stage's work folder: {"port", "pid"} of one that serves, for whoever looks for it on this machine."""
ADDED = ("counter", "histogram")
"""Types whose samples of several processes may be added up."""

Counts = dict[tuple[str, tuple[tuple[str, str], ...]], float]
"""Value of each sample by its name and labels."""
Pages = Mapping[str, Callable[[], tuple[str, bytes]]]
"""What is served, by path: (content type, body)."""


class MultiRankRegistry:
    """A registry and what other processes have counted besides, as one."""

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
    """What this process has counted, to be told to the one that has the page."""
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
    """Everything of a registry, as Prometheus reads it."""
    return CONTENT_TYPE, prometheus_client.generate_latest(registry)


class Server(ThreadingHTTPServer):
    """Serves pages at once; port 0 takes a free one. Raises OSError when the port is taken."""

    def __init__(self, pages: Pages, port: int, host: str) -> None:
        super().__init__((host, port), Handler)
        self.pages, self.ever_scraped = pages, False
        self.last: threading.Event | None = None
        """Set by a scrape that began after it was put here."""
        threading.Thread(target=self.serve_forever, daemon=True, name="metrics").start()

    def linger(self, seconds: float) -> bool:
        """Waits until everything up to now was scraped; whether it was."""
        if not self.ever_scraped or seconds <= 0:
            return False
        self.last = threading.Event()
        return self.last.wait(seconds)


class Handler(BaseHTTPRequestHandler):
    """Few calls that wait, because after each the interpreter has to be had again from a busy step: a connection is kept
    from scrape to scrape, and an answer is sent at once."""

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
        try:
            kind, body = page()
        except Exception as error:  # noqa: BLE001  said to whoever asked, and no reason to end anything
            logging.getLogger(__name__).warning("%s: %s", path, error)
            self.send_error(500, explain=str(error))
            return
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
        self.wfile.flush()
        if path == METRICS and last is not None:
            last.set()

    def log_message(self, *_: object) -> None:
        """Asked every few seconds: not worth a line."""

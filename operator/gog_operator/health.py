"""Whether this operator does its work, said truthfully: 200 only while it does.

Three things can stop silently: the resync (then lost events stay lost), a worker (then its object stands still), the
thread that keeps the lease (then nothing is written). Each is watched by its age. An operator that waits for another's
lease is well.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from gog import metrics
from gog.metrics import serving
from gog_operator.lease import Lease
from gog_operator.workqueue import WorkQueue

PASS_SECONDS = 180.0
"""More than a pass can take: its requests have deadlines."""
INTERVALS = 3


@dataclass
class Health:
    """What the parts of an operator tell of themselves. interval: of the resync, in seconds."""

    queue: WorkQueue
    lease: Lease
    interval: float
    threads: tuple[threading.Thread, ...] = ()
    clock: Callable[[], float] = time.monotonic
    leading_since: float | None = None
    last_resync: float | None = None

    def problems(self) -> list[str]:
        found = [f"{each.name} has died" for each in self.threads if not each.is_alive()]
        longest = self.queue.longest_pass()
        if longest > PASS_SECONDS:
            found.append(f"a worker has been at one object for {longest:.0f} s")
        if self.lease.held():
            self.leading_since = self.leading_since or self.clock()
            age = self.clock() - max(self.leading_since, self.last_resync or 0.0)
            if age > INTERVALS * self.interval:
                found.append(f"nothing was listed for {age:.0f} s")
        else:
            self.leading_since = None
        return found

    def resynced(self) -> None:
        self.last_resync = self.clock()
        metrics.record_resync(time.time())

    def measure(self) -> None:
        """Brings the gauges up to date."""
        metrics.QUEUE_DEPTH.set(self.queue.depth())
        metrics.QUEUE_AGE.set(self.queue.oldest())
        metrics.WORKING.set(self.queue.working())
        metrics.LEADER.set(self.lease.held())


def serve(health: Health, host: str, port: int) -> ThreadingHTTPServer:
    """/healthz and /metrics, in a thread of their own, until shut down."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path == serving.METRICS:
                health.measure()
                kind, page = serving.text(metrics.OPERATOR.registry)
                self._answer(200, page, kind)
            elif self.path == "/healthz":
                problems = health.problems()
                self._answer(503 if problems else 200, "\n".join(problems or ["ok"]).encode())
            else:
                self._answer(404, b"/healthz and /metrics are here")

        def _answer(self, status: int, body: bytes, kind: str = "text/plain; charset=utf-8") -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Probes are not worth a line each."""

    server = ThreadingHTTPServer((host, port), Handler)
    threading.Thread(target=server.serve_forever, name="health", daemon=True).start()
    return server

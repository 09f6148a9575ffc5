"""Serves a local run's metrics to a Prometheus on this machine: `gog run --metrics-port PORT`.

`/metrics` holds the run's own metrics. `/targets` lists the metrics pages of the run, its stages and its servers in
Prometheus' http_sd format, so that one `http_sd_configs` line covers all processes of a run:

    scrape_configs:
      - job_name: gog
        scrape_interval: 5s
        http_sd_configs: [{url: "http://127.0.0.1:9400/targets", refresh_interval: 5s}]

Pages are not merged, so that a process which dies appears as a target that is down. All pages are on the loopback
interface.
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
from collections.abc import Iterator, Mapping, MutableMapping
from pathlib import Path

from gog import metrics
from gog.errors import UserError
from gog.metrics import serving
from gog_operator import object_metrics
from gog_operator.api.objects import STAGE_KINDS, GoGRun, Object, ToolServer, document
from gog_operator.cluster.files import ObjectFiles

HOST = "127.0.0.1"
LINGER_SECONDS = 15.0
"""Seconds that a process which has been scraped waits for a last scrape before it exits."""
KINDS: tuple[type[Object], ...] = (GoGRun, *STAGE_KINDS.values(), ToolServer)


class Exposition:
    """The metrics pages of one run folder.

    Args:
        folder: The run folder.
        port: Port to listen on; 0 for a free one.

    Raises:
        UserError: the port is taken.
    """

    def __init__(self, folder: Path, port: int) -> None:
        self.folder = folder
        self.objects = ObjectFiles(folder / "objects")
        self._lock = threading.Lock()
        pages: serving.Pages = {serving.METRICS: self.metrics, "/targets": self.targets}
        try:
            self.server = serving.Server(pages, port, HOST)
        except OSError as error:
            raise UserError(
                f"cannot serve metrics at port {port}: {error.strerror}", where="--metrics-port", remedy="use another"
            ) from None
        self.port = self.server.server_port

    def metrics(self) -> tuple[str, bytes]:
        with self._lock:
            object_metrics.record(document(each) for kind in KINDS for each in self.objects.list(kind))
            return serving.text(metrics.RUNS.registry)

    def targets(self) -> tuple[str, bytes]:
        with self._lock:
            found = {"gog": f"{HOST}:{self.port}"} | dict(self._servers()) | dict(self._stages())
        body = [{"targets": [address], "labels": {"pod": name}} for name, address in found.items()]
        return "application/json", json.dumps(body).encode()

    def _servers(self) -> Iterator[tuple[str, str]]:
        for each in self.objects.list(ToolServer):
            if each.status.url and not each.spec.url:
                yield each.name, each.status.url.partition("://")[2].partition("/")[0]

    def _stages(self) -> Iterator[tuple[str, str]]:
        for path in sorted(self.folder.glob(f"work/*/{serving.PORT_FILE}")):
            with contextlib.suppress(OSError, ValueError, KeyError):
                served = json.loads(path.read_text())
                os.kill(served["pid"], 0)
                yield path.parent.name, f"{HOST}:{served['port']}"


@contextlib.contextmanager
def exposed(folder: Path, port: int | None, environment: MutableMapping[str, str]) -> Iterator[Exposition | None]:
    """Serves the pages, and sets the environment so that stages serve theirs; does nothing without a port."""
    if port is None:
        yield None
        return
    metrics.initialise_control()
    exposition = Exposition(folder, port)
    environment.update({serving.PORT: "0", serving.HOST: HOST})
    environment.setdefault(serving.LINGER, f"{LINGER_SECONDS:g}")
    try:
        yield exposition
    finally:
        exposition.server.shutdown()
        exposition.server.server_close()


def linger(exposition: Exposition | None, environment: Mapping[str, str]) -> None:
    """Waits at a run's end until its last metrics have been scraped; Ctrl-C ends the wait."""
    if exposition is not None:
        with contextlib.suppress(KeyboardInterrupt):
            exposition.server.linger(float(environment[serving.LINGER]))

"""A real Prometheus over recorded samples, or one that scrapes, for the time of a block."""

from __future__ import annotations

import math
import subprocess
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from gog import stats
from gog.spec import FailureInjection
from gog_console.dashboards import panels, promql, tools_board
from gog_console.dashboards.panels import Dashboard, Panel, Query
from gog_console.dashboards.prometheus import Prometheus, Series
from support import kube, ports

READY = b"Server is ready to receive web requests"
TRIES = 3
"""A free port may be taken by another before the server has it."""


def blocks(samples: Iterable[str], folder: Path) -> None:
    """Makes a data folder of Prometheus from OpenMetrics text with timestamps."""
    text = folder / "samples.txt"
    with text.open("w", encoding="utf-8") as file:
        file.writelines(samples)
    command = [kube.program("promtool"), "tsdb", "create-blocks-from", "openmetrics", text, folder / "data"]
    subprocess.run(command, check=True, capture_output=True)


@contextmanager
def serving(folder: Path, configuration: str = "{}") -> Iterator[Prometheus]:
    """A Prometheus over `folder`/data; configuration: as in prometheus.yml, by default to scrape nothing."""
    config = folder / "prometheus.yml"
    config.write_text(configuration)
    process, url = start(config, folder / "data")
    drained = threading.Thread(target=process.stderr.read, daemon=True)  # or its log would fill the pipe
    drained.start()
    try:
        yield Prometheus(url)
    finally:
        process.terminate()
        process.wait(30)
        drained.join()
        process.stderr.close()


def start(config: Path, data: Path) -> tuple[subprocess.Popen[bytes], str]:
    """The process, once it answers, and its address."""
    for _ in range(TRIES):
        (port,) = ports.free(1)
        command = [
            kube.program("prometheus"), f"--config.file={config}", f"--storage.tsdb.path={data}",
            "--storage.tsdb.retention.time=20y", f"--web.listen-address=127.0.0.1:{port}",
            "--scrape.discovery-reload-interval=1s",  # a stage may live for less than twenty seconds
        ]  # fmt: skip
        process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL)
        assert process.stderr is not None
        log = []
        for line in process.stderr:
            if READY in line:
                return process, f"http://127.0.0.1:{port}"
            log.append(line)
        process.wait()
        process.stderr.close()
    raise RuntimeError(f"prometheus did not start: {b''.join(log[-3:]).decode()}")


@dataclass(frozen=True)
class Span:
    """What a Prometheus knows of a stretch of time, as a dashboard over it shows it. began, ended: seconds since 1970."""

    source: Prometheus
    began: float
    ended: float
    scrape_seconds: int

    def shown(self, panel: Panel, query: Query, **choice: str) -> list[Series]:
        """Series with a value, each over the whole stretch or, for a panel of one moment, at its end."""
        times = {"rate_interval": f"{4 * self.scrape_seconds}s", "range_": f"{self.ended - self.began:.0f}s"}
        expr = panels.expanded(query.expr, **times, **choice)
        if panel.instant:
            found = self.source.moment(expr, self.ended)
        else:
            found = self.source.curve(expr, self.began, self.ended, self.scrape_seconds)
        return [each for each in found if any(math.isfinite(value) for _, value in each.points)]

    def empty(self, board: Dashboard, **choice: str) -> dict[str, str]:
        """Panels and queries without data, each with its permitted reason; empty for no reason."""
        return {
            f"{panel.title}: {query.legend or query.expr}": panel.absent
            for panel in board.panels()
            for query in panel.queries
            if not self.shown(panel, query, **choice)
        }

    def failed(self, tool: str, outcomes: str, starts: int) -> tuple[float, float, float]:
        """The fraction of attempts with these outcomes by the panel's expression, and its confidence interval
        (z = 3.3, 99.9 %). A server that starts again draws the same sequence of failures again, so the attempts of
        several starts hold at least the information of one start's share of them."""
        window, where = f"{self.ended - self.began:.0f}s", promql.joined(panels.WHERE, f'tool="{tool}"')
        count = self._moment(f"sum(increase({tools_board.ATTEMPTS}{{{where}}}[{window}]))")
        share = self._moment(promql.share(tools_board.ATTEMPTS, outcomes, where, "tool", window=window))
        low, high = stats.wilson(round(share * count / starts), round(count / starts), z=3.3)
        print(f"{tool} {outcomes}: {share:.2%} of {count:.0f} attempts, {low:.2%} to {high:.2%}")
        return share, low, high

    def reads_back(self, tool: str, injection: FailureInjection, *, starts: int = 1) -> bool:
        """Whether the panels show the injected failure rate. With timeouts it is a lower bound, because a busy machine
        causes further timeouts; without timeouts it must match. starts: of the tool's server."""
        _, _, most = self.failed(tool, tools_board.BAD, starts)
        _, low, high = self.failed(tool, f'{tools_board.BAD},outcome!="timeout"', starts)
        kinds = [kind for kind in injection.kinds if kind != "timeout"]
        return injection.rate < most and low < injection.rate * len(kinds) / len(injection.kinds) < high

    def _moment(self, expr: str) -> float:
        (series,) = self.source.moment(panels.expanded(expr), self.ended)
        return series.points[0][1]

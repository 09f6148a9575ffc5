"""Measures the cost of metrics in a rollout, and the duration of a scrape during it, against the goals.

    python benchmarks/metrics.py [--run runs/world] [--steps 4]

Plays the rollouts of `rollout.py` with the SFT policy of a finished run and healthy tools, and counts every call that
records a metric. The cost of such a call is measured afterwards, with the arguments that it had, because two plays differ
by more than the one per cent in question. Meanwhile the trainer's page is scraped over HTTP five times a second, which is
far more often than Prometheus scrapes.
"""

from __future__ import annotations

import argparse
import asyncio
import functools
import http.client
import os
import sys
import threading
import time
import timeit
import types
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import outcome
import rollout
import torch

from gog import metrics, stats, step_metrics
from gog.metrics import serving
from gog_recipes.runtime import monitor

GOALS = {"overhead_percent": 1.0, "scrape_milliseconds": 50.0}
REPEATS = 20_000


class CountedCalls:
    """Counts the calls of every function of gog.metrics, by name, and keeps the newest arguments of each."""

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()
        self.arguments: dict[str, tuple[Any, ...]] = {}
        self.functions = {name: value for name, value in vars(metrics).items() if isinstance(value, types.FunctionType)}
        for name, function in self.functions.items():
            setattr(metrics, name, self._counting(name, function))

    def _counting(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def call(*arguments: Any, **named: Any) -> Any:
            self.calls[name] += 1
            self.arguments[name] = arguments
            return function(*arguments, **named)

        return call

    def microseconds(self, name: str) -> float:
        """Cost of one call."""
        function, arguments = self.functions[name], self.arguments[name]
        return min(timeit.repeat(lambda: function(*arguments), number=REPEATS, repeat=3)) / REPEATS * 1e6


class Scraper(threading.Thread):
    """Scrapes until `stop` is set, and keeps the seconds of each scrape."""

    def __init__(self, port: int) -> None:
        super().__init__(daemon=True)
        self.connection, self.stop = http.client.HTTPConnection("127.0.0.1", port, timeout=10), threading.Event()
        self.seconds: list[float] = []
        self.bytes = 0

    def run(self) -> None:
        while not self.stop.wait(0.2):
            self.once()

    def once(self) -> None:
        """One scrape."""
        begun = time.perf_counter()
        self.connection.request("GET", "/metrics")
        self.bytes = len(self.connection.getresponse().read())
        self.seconds.append(time.perf_counter() - begun)


def page_cpu() -> float:
    """CPU seconds of rendering the page."""
    begun = time.thread_time()
    for _ in range(50):
        serving.text(monitor.page)
    return (time.thread_time() - begun) / 50


def fill() -> None:
    """Records the other metrics of GRPO, so that the page has its full size."""
    metrics.initialise_store()
    metrics.record_step("grpo", "grpo", {row.key: 0.5 for row in step_metrics.METRICS})
    metrics.record_progress("grpo", 3, 120, time.time())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", type=Path, default=rollout.HERE.parent / "runs" / "world")
    parser.add_argument("--steps", type=int, default=4)
    given = parser.parse_args()
    torch.set_num_threads(1)
    policy, pool = rollout.prepare(given.run)
    fill()
    counted = CountedCalls()
    server = monitor.serve(0, dict, "127.0.0.1")
    busy, idle = Scraper(server.server_port), Scraper(server.server_port)
    with rollout.servers(given.run / "data", 0.0) as endpoints:
        busy.start()
        begun = time.process_time()
        played, _, _ = asyncio.run(rollout.play(policy, pool, endpoints, given.steps))
        cpu = time.process_time() - begun
        busy.stop.set()
        busy.join()
    for _ in range(50):
        idle.once()
    emitted = {name: {"calls": n, "microseconds": counted.microseconds(name)} for name, n in counted.calls.items()}
    for name, each in emitted.items():
        print(f"{name:22} {each['calls']:>8} x {each['microseconds']:>6.2f} us")
    spent = sum(each["calls"] * each["microseconds"] for each in emitted.values()) / 1e6
    found = {
        "trajectories": played["trajectories"],
        "rollout_cpu_seconds": round(cpu, 3),
        "emission_cpu_seconds": round(spent, 4),
        "overhead_percent": round(100 * spent / cpu, 3),
        "load_average": round(os.getloadavg()[0], 1),
        "page_bytes": busy.bytes,
        "page_cpu_milliseconds": round(1e3 * page_cpu(), 2),
        "scrapes": len(busy.seconds),
        "scrape_milliseconds_idle_p50": round(1e3 * stats.percentile(idle.seconds, 0.5), 2),
        "scrape_milliseconds_p50": round(1e3 * stats.percentile(busy.seconds, 0.5), 2),
        "scrape_milliseconds_p95": round(1e3 * stats.percentile(busy.seconds, 0.95), 2),
    }
    for key, value in found.items():
        print(f"{key:30} {value:>12}")
    goals = {
        f"overhead <= {GOALS['overhead_percent']:g} %": found["overhead_percent"] <= GOALS["overhead_percent"],
        f"scrape of a busy trainer (p95) <= {GOALS['scrape_milliseconds']:g} ms": found["scrape_milliseconds_p95"]
        <= GOALS["scrape_milliseconds"],
    }
    return outcome.finish("metrics", {**found, "emitted": emitted}, goals)


if __name__ == "__main__":
    sys.exit(main())

"""Measures the cost of traces in a rollout (off, one episode in a hundred, all), against the goals.

    python benchmarks/traces.py [--run runs/world] [--steps 12]

Plays each step of `rollout.py` three times in one process, with the SFT policy of a finished run and healthy tools: the
same questions and the same noise; the order of the three arms rotates. A collector in a process of its own receives
the spans. CPU time is compared, export included, because the machine may be busy with other work. A step's figure is its
ratio to the same step without traces; the median over steps is reported. The first step is a warm-up. Two plays of the
same step differ by more than the one per cent in question, so the cost is also computed: the number of spans times the
measured cost of recording one and of exporting one.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import subprocess
import sys
import time
import timeit
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path

import outcome
import rollout
import torch

from gog import stats, tracing
from gog.spec import ToolsSpec
from gog.tool_client import Toolbox
from gog.tracing import episodes, export_queue, ids, otlp
from gog.tracing import record as recording
from gog_recipes.rollout.rollouts import Rollouts

SHARES = {"off": None, "1 %": 0.01, "100 %": 1.0}
GOALS = {"1 %": 1.02, "100 %": 1.1}
"""CPU time at most, relative to that without traces, as computed."""
COLLECTOR = """
import http.server
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_POST(self):
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(200); self.send_header("content-length", "0"); self.end_headers()
    def log_message(self, *_): ...
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
print(server.server_port, flush=True)
server.serve_forever()
"""


@contextlib.contextmanager
def collector() -> Iterator[str]:
    process = subprocess.Popen([sys.executable, "-c", COLLECTOR], stdout=subprocess.PIPE, text=True)
    try:
        yield f"http://127.0.0.1:{process.stdout.readline().strip()}"
    finally:
        process.terminate()
        process.wait()


class CountingSender:
    """Exports span trees, counts the spans, and keeps the largest request."""

    def __init__(self, url: str) -> None:
        self.send, self.spans, self.refused, self.largest = otlp.sender(url), 0, 0, []

    def __call__(self, trees):
        error, self.largest = self.send(trees), max(self.largest, trees, key=len)
        self.spans += sum(tree.size for tree in trees)
        self.refused += error is not None
        return error


async def play(
    policy, pool, endpoints, url: str, steps: int
) -> tuple[dict[str, list[tuple[float, float]]], CountingSender]:
    """(CPU seconds, seconds) of each step by arm, and the sender."""
    engine = rollout.make_engine(policy)
    limits, sent = ToolsSpec(attempts=1, deadline_seconds=5.0, crop_side=28), CountingSender(url)
    taken, names = defaultdict(list), list(SHARES)
    async with contextlib.AsyncExitStack() as stack:
        tools = {name: await stack.enter_async_context(Toolbox(endpoints, limits)) for name in SHARES}
        for step in range(steps + 1):
            questions = pool.questions[step * rollout.QUESTIONS : (step + 1) * rollout.QUESTIONS]
            for name in names[step % 3 :] + names[: step % 3]:
                share, tracer = SHARES[name], tracing.NOOP
                if share is not None:
                    tracer = episodes.Tracer(export_queue.ExportQueue(sent, print), ids.root("bench"), "bench", share)
                rollouts = Rollouts(engine, tools[name], rollout.SETTINGS, pool, "bench", seed=0, tracer=tracer)
                begun, cpu = time.monotonic(), time.process_time()
                await rollouts.play(questions, rollout.GROUP, step=step, policy="sft")
                seconds = time.monotonic() - begun
                tracer.end()
                taken[name].append((time.process_time() - cpu, seconds))
    return {name: each[1:] for name, each in taken.items()}, sent


def site_microseconds() -> float:
    """CPU time of a call site that opens a span while nothing is traced."""
    return best(lambda: record(1), 20_000)


def span_microseconds(sent: CountingSender) -> tuple[float, float]:
    """CPU time of recording a span, and of exporting one, in requests as large as those of a stage."""
    untraced = best(lambda: record(15), 2_000)

    def traced() -> None:
        with recording.OpenSpan(recording.Span("episode", recording.now())):
            record(15)

    trees = list(sent.largest)
    size = sum(tree.size for tree in trees)
    return (best(traced, 2_000) - untraced) / 16, best(lambda: sent.send(trees), 5) / size


def record(count: int) -> None:
    for _ in range(count):
        with tracing.span("turn"):
            pass


def best(action: Callable[[], object], number: int) -> float:
    """Microseconds of this thread's CPU time, the best of five."""
    return min(timeit.repeat(action, number=number, repeat=5, timer=time.thread_time)) / number * 1e6


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", type=Path, default=rollout.HERE.parent / "runs" / "world")
    parser.add_argument("--steps", type=int, default=12)
    given = parser.parse_args()
    torch.set_num_threads(1)
    policy, pool = rollout.prepare(given.run)
    with rollout.servers(given.run / "data", 0.0) as endpoints, collector() as url:
        taken, sent = asyncio.run(play(policy, pool, endpoints, url, given.steps))
        recording_cost, export_cost = span_microseconds(sent)
    found = {"steps": given.steps, "spans_sent": sent.spans, "requests_refused": sent.refused}
    found |= {
        "site_off_microseconds": round(site_microseconds(), 2),
        "record_microseconds": round(recording_cost, 1),
        "send_microseconds": round(export_cost, 1),
        "load_average": round(os.getloadavg()[0], 1),
    }
    spans = sent.spans / (given.steps + 1) / sum(share or 0 for share in SHARES.values())  # of a step, exported or not
    step = stats.percentile([cpu for cpu, _ in taken["off"]], 0.5)
    for name, steps in taken.items():
        cost = recording_cost + (SHARES[name] or 0) * export_cost
        ratios = [cpu / before for (cpu, _), (before, _) in zip(steps, taken["off"], strict=True)]
        walls = [wall / before for (_, wall), (_, before) in zip(steps, taken["off"], strict=True)]
        found[name] = {
            "cpu_seconds_of_a_step": round(stats.percentile([cpu for cpu, _ in steps], 0.5), 3),
            "cpu_ratio": round(stats.percentile(ratios, 0.5), 4),
            "cpu_ratio_quartiles": [round(stats.percentile(ratios, q), 4) for q in (0.25, 0.75)],
            "cpu_ratio_computed": round(1 + spans * cost / 1e6 / step if SHARES[name] else 1, 4),
            "wall_ratio": round(stats.percentile(walls, 0.5), 4),
        }
        print(f"{name:6}", *(f"{key} {value}" for key, value in found[name].items()), sep="  ")
    print({key: value for key, value in found.items() if key not in SHARES})
    goals = {
        f"{name}: CPU <= {limit:g} of that without": found[name]["cpu_ratio_computed"] <= limit
        for name, limit in GOALS.items()
    }
    return outcome.finish("traces", found, goals)


if __name__ == "__main__":
    sys.exit(main())

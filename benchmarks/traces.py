"""What do traces cost a rollout: off, of one episode in a hundred, of all? Against the goals.

    python benchmarks/traces.py [--run runs/world] [--steps 12]

Plays each step of `rollout.py` three times in one process, with the SFT policy of a finished run and healthy tools: the
same questions, the same noise, in turns as to who is first. A collector in a process of its own takes the spans. What is
compared is the CPU time of a step, sending included, because a machine has other things to do; a step's figure is its
ratio to the same step without traces, and the median over steps is told. The first step is a warm-up. Two plays of a
step differ by more than the per cent that is looked for, so the same is also reckoned: what recording a span costs, and
sending one, times how many there are.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import subprocess
import sys
import time
import timeit
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path

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
"""CPU time over that without traces, at most, as reckoned."""
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


class Counting:
    """Sends, and counts what it sent."""

    def __init__(self, url: str) -> None:
        self.send, self.spans, self.refused, self.last = otlp.sender(url), 0, 0, []

    def __call__(self, trees):
        why, self.last = self.send(trees), max(self.last, trees, key=len)
        self.spans += sum(tree.size for tree in trees)
        self.refused += why is not None
        return why


async def play(policy, pool, endpoints, url: str, steps: int) -> tuple[dict[str, list[tuple[float, float]]], Counting]:
    """(CPU seconds, seconds) of each step by arm, and what was sent."""
    engine = rollout.make_engine(policy)
    limits, sent = ToolsSpec(attempts=1, deadline_seconds=5.0, crop_side=28), Counting(url)
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


def microseconds_of_a_site() -> float:
    """CPU time of a place that would tell, when nothing is told."""
    return best(lambda: record(1), 20_000)


def microseconds_of_a_span(sent: Counting) -> tuple[float, float]:
    """CPU time of one that is recorded, and of one that is sent, in requests as large as a stage's."""
    untold = best(lambda: record(15), 2_000)

    def traced() -> None:
        with recording.OpenSpan(recording.Span("episode", recording.now())):
            record(15)

    trees = list(sent.last)
    size = sum(tree.size for tree in trees)
    return (best(traced, 2_000) - untold) / 16, best(lambda: sent.send(trees), 5) / size


def record(count: int) -> None:
    for _ in range(count):
        with tracing.span("turn"):
            pass


def best(action: Callable[[], object], number: int) -> float:
    """Microseconds of this thread's CPU time, at best."""
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
        told, sending = microseconds_of_a_span(sent)
    found = {"steps": given.steps, "spans_sent": sent.spans, "requests_refused": sent.refused}
    found |= {
        "site_off_microseconds": round(microseconds_of_a_site(), 2),
        "record_microseconds": round(told, 1),
        "send_microseconds": round(sending, 1),
        "load_average": round(os.getloadavg()[0], 1),
    }
    made = sent.spans / (given.steps + 1) / sum(share or 0 for share in SHARES.values())  # in a step, sent or not
    step = stats.percentile([cpu for cpu, _ in taken["off"]], 0.5)
    for name, steps in taken.items():
        ratios = [cpu / before for (cpu, _), (before, _) in zip(steps, taken["off"], strict=True)]
        walls = [wall / before for (_, wall), (_, before) in zip(steps, taken["off"], strict=True)]
        found[name] = {
            "cpu_seconds_of_a_step": round(stats.percentile([cpu for cpu, _ in steps], 0.5), 3),
            "cpu_ratio": round(stats.percentile(ratios, 0.5), 4),
            "cpu_ratio_quartiles": [round(stats.percentile(ratios, q), 4) for q in (0.25, 0.75)],
            "reckoned": round(1 + made * (told + (SHARES[name] or 0) * sending) / 1e6 / step if SHARES[name] else 1, 4),
            "wall_ratio": round(stats.percentile(walls, 0.5), 4),
        }
        print(f"{name:6}", *(f"{key} {value}" for key, value in found[name].items()), sep="  ")
    print({key: value for key, value in found.items() if key not in SHARES})
    goals = {
        f"{name}: CPU <= {limit:g} of that without": found[name]["reckoned"] <= limit for name, limit in GOALS.items()
    }
    results = rollout.HERE / "results" / "traces.json"
    results.write_text(json.dumps({**found, "goals": goals}, indent=1) + "\n")
    print("traces: " + "; ".join(f"{goal}: {'reached' if met else 'MISSED'}" for goal, met in goals.items()))
    return 0 if all(goals.values()) else 1


if __name__ == "__main__":
    sys.exit(main())

"""Do tool calls survive a flaky server, what do cached and replayed calls cost, and is `match` right? Against the goals.

    python benchmarks/tools.py [--calls 1500] [--in-flight 48]

A server in a process of its own answers text searches after 60 to 250 ms. Of its requests 1 % stall for six seconds, 1 %
are answered with 429, and 1 % with HTML and status 200. Three clients make the same calls, one after the other: a plain
one with a deadline of five seconds, gog's call path, and gog's call path with hedging. Then calls that the memory and the
file of the cache answer are timed, through the whole client: its I/O loop, keys, metrics, reading of answers.

The lag of the I/O loop is measured while the longest answers are recorded, and while another process locks the recording;
the memory of a process, while a hostile server answers. The judge without a model gives verdicts on the shipped near misses
and calibration cases (docs/judge.md says which is which). Then grounding.py compares the grounding server with a plain
KServe model.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gzip
import itertools
import json
import logging
import multiprocessing
import random
import resource
import sqlite3
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

import aiohttp
import grounding
import numpy as np
import outcome
from aiohttp import web

from gog import calibration, stats, tool_api, tool_transport
from gog.answers import match
from gog.images import Image
from gog.spec import ToolsSpec
from gog.tool_client import Toolbox

ROW = "tool calls: flaky server, hedging, cache, replay; the judge without a model"
RATE = 0.01
"""Share of each kind of failure."""
STALL_SECONDS = 6.0
HITS = {"hits": [{"title": f"page {n}", "url": f"https://example.org/{n}", "text": "by Ada " * 200} for n in range(5)]}
CACHED_CALLS = 5_000
LONG_ANSWERS, LOCKED_SECONDS, LAG_SECONDS = 12, 2.0, 0.005
HOSTILE, WARM_UP, AT_ONCE = 10_000, 300, 8
ALLOWED_MIB, ALLOWED_LAG_MS = 50, 50
LEAST_WRONG, LEAST_RIGHT = 900, 300
"""Near misses that must be there, wrong and right ones."""


def long_answer() -> bytes:
    """Hits with thumbnails, nearly as long as an answer may be."""
    thumbnail = "QUJD" * (tool_transport.MAX_ANSWER_BYTES // 81)
    return json.dumps({"hits": [{"title": f"page {n}", "thumbnail": thumbnail} for n in range(20)]}).encode()


def response(body: bytes, status: str = "200 OK", **headers: str) -> bytes:
    """A response as it is sent."""
    given = {"content-length": str(len(body)), "content-type": "application/json", "connection": "close", **headers}
    lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in given.items())
    return f"HTTP/1.1 {status}\r\n{lines}\r\n".encode() + body


def hostile_responses() -> list[bytes]:
    """Responses that are long, deep, damaged, of another type, or that promise what does not come."""
    noise = random.Random(0).randbytes(300_000)
    return [
        response(b"x" * 5_000_000, content_length="1000000000"),
        response(b'{"hits": [' + b"[]," * 1_300_000 + b"[]]}"),
        response(b'{"hits": [' + b"[]," * 10_000 + b"[]]}"),
        response(b"{" + b'"a":1,' * 15_000 + b'"b":1}'),
        response(b"[" * 39_000),
        response(b'{"a":' * 30_000),
        response(gzip.compress(bytes(64 << 20)), content_encoding="gzip"),
        response(noise),
        response(noise, content_encoding="deflate"),
        response(b'{"hits": [{"title": "' + b"\\u0041" * 300_000 + b'", "score": NaN}]}'),
        response(json.dumps(HITS).encode()[:-2]),
        response(b"<html>" * 100_000, content_type="text/html"),
        response(b"<html>" * 100_000, "500 Broken", content_type="text/html"),
        response(b"", "302 Found", location="http://169.254.169.254/latest/meta-data/"),
        response(b"", "429 Slow", retry_after="9" * 400),
        b"HTTP/1.1 200 OK\r\n" + b"x-header: value\r\n" * 5_000,
        b"HTTP/1.1 200 OK\r\nx: " + b"y" * 1_000_000,
        b"\x16\x03\x01" + noise[:2_000],
    ]


async def serve_hostile() -> int:
    """Starts a server that sends one hostile response after the other; returns its port."""
    bodies, served = hostile_responses(), itertools.count()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            head = await reader.readuntil(b"\r\n\r\n")
            length = next(int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
            await reader.readexactly(length)
            writer.write(bodies[next(served) % len(bodies)])
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    port: int = server.sockets[0].getsockname()[1]
    return port


def serve(pipe: Connection) -> None:
    """The flaky server, and the hostile one; sends their ports through the pipe."""
    rng = random.Random(0)
    body, long = json.dumps(HITS).encode(), long_answer()

    async def search_image(request: web.Request) -> web.Response:
        await request.read()
        return web.Response(body=long, content_type="application/json")

    async def search(request: web.Request) -> web.Response:
        await request.read()
        kind = rng.random()
        await asyncio.sleep(STALL_SECONDS if kind < RATE else 0.06 + 0.19 * rng.random() ** 4)
        if RATE <= kind < 2 * RATE:
            return web.Response(status=429, body=b"slow down")
        if 2 * RATE <= kind < 3 * RATE:
            return web.Response(body=b"<html>busy</html>", content_type="text/html")
        return web.Response(body=body, content_type="application/json")

    async def main() -> None:
        app = web.Application()
        app.router.add_post(tool_api.TEXT_SEARCH_PATH, search)
        app.router.add_post(tool_api.IMAGE_SEARCH_PATH, search_image)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0, backlog=1024).start()
        pipe.send((runner.addresses[0][1], await serve_hostile()))
        await asyncio.Event().wait()

    asyncio.run(main())


@contextlib.contextmanager
def servers() -> Iterator[list[str]]:
    """Base URLs of the flaky server and of the hostile one."""
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=serve, args=(theirs,), daemon=True)
    process.start()
    try:
        yield [f"http://127.0.0.1:{port}" for port in ours.recv()]
    finally:
        process.terminate()
        process.join()


@dataclass
class Measured:
    """Calls of one client."""

    seconds: list[float]
    """Duration of each call."""
    failed: int
    """Calls without an answer."""

    def figures(self) -> dict[str, float]:
        return {
            "failed %": round(100 * self.failed / len(self.seconds), 3),
            **{f"p{p} ms": round(1e3 * stats.percentile(self.seconds, p / 100)) for p in (50, 95, 99)},
        }


async def measure(call: Callable[[str], Awaitable[bool]], calls: int, in_flight: int) -> Measured:
    """Makes the calls, so many at a time. call: a query -> whether it was answered."""
    queries = iter(range(calls))
    measured = Measured([], 0)

    async def work() -> None:
        for number in queries:
            began = time.perf_counter()
            answered = await call(f"query {number}")
            measured.seconds.append(time.perf_counter() - began)
            measured.failed += not answered

    await asyncio.gather(*(work() for _ in range(in_flight)))
    return measured


async def plain(url: str, calls: int, in_flight: int) -> Measured:
    """A client with a deadline only."""
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=5)) as session:

        async def call(query: str) -> bool:
            try:
                async with session.post(url + tool_api.TEXT_SEARCH_PATH, json={"query": query, "top": 5}) as response:
                    return bool((await response.json())["hits"])
            except (aiohttp.ClientError, TimeoutError, ValueError, KeyError):
                return False

        return await measure(call, calls, in_flight)


async def ours(url: str, calls: int, in_flight: int, **policy: float) -> Measured:
    """gog's client, with a deadline of 2 s and three attempts."""
    limits = ToolsSpec(concurrency=2 * in_flight, deadline_seconds=2, attempts=4, cache={"mode": "off"}, **policy)
    async with Toolbox({"textSearch": url}, limits) as toolbox:

        async def call(query: str) -> bool:
            return (await toolbox.search_text(query)).failure is None

        return await measure(call, calls, in_flight)


async def cached(url: str, folder: Path) -> dict[str, float]:
    """CPU of a call that the memory answers; calls per second that the file of a new process answers."""
    queries = [f"query {number}" for number in range(CACHED_CALLS)]
    path = str(folder / "answers.sqlite")
    cache = {"mode": "replay-or-live", "path": path}
    async with Toolbox({"textSearch": url}, ToolsSpec(concurrency=256, cache=cache, attempts=10)) as toolbox:
        await asyncio.gather(*(toolbox.search_text(query) for query in queries))
        began = time.process_time()
        for query in queries:
            assert (await toolbox.search_text(query)).cached
        cpu = time.process_time() - began
    strict = ToolsSpec(cache={"mode": "replay-strict", "path": path})
    async with Toolbox({"textSearch": url}, strict) as toolbox:
        began, cpu_began = time.perf_counter(), time.process_time()
        for start in range(0, len(queries), 64):
            replies = await asyncio.gather(*(toolbox.search_text(query) for query in queries[start : start + 64]))
            assert all(reply.cached for reply in replies)
        seconds, replay_cpu = time.perf_counter() - began, time.process_time() - cpu_began
    return {
        "cached call, CPU ms": round(1e3 * cpu / CACHED_CALLS, 3),
        "replayed calls/s": round(CACHED_CALLS / seconds),
        "replayed call, CPU ms": round(1e3 * replay_cpu / CACHED_CALLS, 3),
    }


async def lag(url: str, folder: Path) -> dict[str, float]:
    """Lag of the I/O loop while long answers are recorded, and while another process locks the recording."""
    cache = {"mode": "record", "path": str(folder / "long.sqlite")}
    lags: dict[str, list[float]] = {"long answers": [], "locked recording": []}

    async def measure(into: list[float]) -> None:
        while True:
            due = time.perf_counter() + LAG_SECONDS
            await asyncio.sleep(LAG_SECONDS)
            into.append(time.perf_counter() - due)

    async def measured(name: str, work: Awaitable[object]) -> None:
        measuring = asyncio.ensure_future(toolbox.io.run(measure(lags[name])))
        await work
        measuring.cancel()

    async def search_locked() -> None:
        other = sqlite3.connect(cache["path"])
        other.execute("BEGIN IMMEDIATE")
        searches = asyncio.gather(*(toolbox.search_text(f"locked {number}") for number in range(200)))
        await asyncio.sleep(LOCKED_SECONDS)
        assert not searches.done()
        other.rollback()
        assert all(reply.failure is None for reply in await searches)

    endpoints = {"textSearch": url, "imageSearch": url}
    limits = ToolsSpec(concurrency=16, attempts=10, image_search={"concurrency": 2}, cache=cache)
    async with Toolbox(endpoints, limits) as toolbox:
        images = [Image(np.full((8, 8, 3), number, np.uint8)) for number in range(LONG_ANSWERS)]
        await measured("long answers", asyncio.gather(*(toolbox.search_image(each) for each in images)))
        await measured("locked recording", search_locked())
    found = {}
    for name, values in lags.items():
        found[f"loop lag, {name}, p99 ms"] = round(1e3 * stats.percentile(values, 0.99), 1)
        found[f"loop lag, {name}, max ms"] = round(1e3 * max(values), 1)
    return found


def hostile(pipe: Connection, url: str) -> None:
    """Memory of a client of a hostile server; sends outcomes by kind, and how much its peak grew, in MiB."""
    logging.disable()
    policy = {"concurrency": AT_ONCE, "attempts": 1, "deadline_seconds": 20, "breaker_failures": 1_000_000}

    async def main() -> tuple[Counter[str], float]:
        outcomes: Counter[str] = Counter()
        async with Toolbox({"textSearch": url}, ToolsSpec(**policy)) as toolbox:

            async def call(query: str) -> bool:
                reply = await toolbox.search_text(query)
                outcomes[str(reply.failure.kind) if reply.failure is not None else "ok"] += 1
                return True

            await measure(call, WARM_UP, AT_ONCE)
            outcomes.clear()
            before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            await measure(lambda query: call(f"hostile {query}"), HOSTILE, AT_ONCE)
            return outcomes, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024

    pipe.send(asyncio.run(main()))


def hostile_memory(url: str) -> tuple[Counter[str], float]:
    """What `hostile` measures, in a process of its own."""
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=hostile, args=(theirs, url))
    process.start()
    theirs.close()
    found: tuple[Counter[str], float] = ours.recv()
    process.join()
    return found


def judged() -> dict[str, float]:
    """What the judge without a model makes of the shipped cases."""
    found: dict[str, float] = {}
    for name, cases in (("near misses", calibration.near_misses()), ("calibration", calibration.shipped())):
        began = time.process_time()
        verdicts = [match.decide(each.question, each.answers, each.answer) for each in cases]
        spent = time.process_time() - began
        total = calibration.tally(cases, verdicts)[-1]
        found |= {
            f"judge, {name}, right": total.right,
            f"judge, {name}, wrong": total.wrong,
            f"judge, {name}, agreement %": round(100 * total.agreed / total.decided, 2),
            f"judge, {name}, false Yes": total.false_yes,
            f"judge, {name}, CPU ms each": round(1e3 * spent / len(cases), 3),
        }
    return found


def judge_goals(found: Mapping[str, float]) -> dict[str, bool]:
    """Whether `judged` reached its goals. The calibration cases have none for agreement: some need a model."""
    enough = found["judge, near misses, right"] >= LEAST_RIGHT and found["judge, near misses, wrong"] >= LEAST_WRONG
    false_yes = found["judge, near misses, false Yes"] + found["judge, calibration, false Yes"]
    return {
        f"judge: 100 % of >= {LEAST_RIGHT + LEAST_WRONG:,} near misses": enough
        and found["judge, near misses, agreement %"] == 100,
        "judge: 0 false Yes": enough and false_yes == 0,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--calls", type=int, default=1500)
    parser.add_argument("--in-flight", type=int, default=48)
    parser.add_argument("--without-grounding", action="store_true", help="leave out the grounding server")
    given = parser.parse_args()
    with servers() as (url, hostile_url), tempfile.TemporaryDirectory() as folder:
        clients = {
            "plain client, 5 s deadline": asyncio.run(plain(url, given.calls, given.in_flight)).figures(),
            "gog": asyncio.run(ours(url, given.calls, given.in_flight)).figures(),
            "gog, hedged after 250 ms": asyncio.run(
                ours(url, given.calls, given.in_flight, hedge_seconds=0.25)
            ).figures(),
        }
        found = asyncio.run(cached(url, Path(folder))) | asyncio.run(lag(url, Path(folder)))
        outcomes, grown = hostile_memory(hostile_url)
    found[f"{HOSTILE:,} hostile responses, MiB"] = round(grown, 1)
    without, hedged = clients["gog"], clients["gog, hedged after 250 ms"]
    goals = {
        "final failures <= 0.1 %": max(without["failed %"], hedged["failed %"]) <= 0.1,
        "p99 with hedging <= 700 ms": hedged["p99 ms"] <= 700,
        "p99 without <= 2.2 s": without["p99 ms"] <= 2200,
        "cached call <= 0.3 ms CPU": found["cached call, CPU ms"] <= 0.3,
        "replay >= 3,000 calls/s": found["replayed calls/s"] >= 3000,
        f"loop lag p99 <= {ALLOWED_LAG_MS} ms": max(value for key, value in found.items() if "p99" in key)
        <= ALLOWED_LAG_MS,
        f"hostile responses <= +{ALLOWED_MIB} MiB": grown <= ALLOWED_MIB and outcomes["ok"] == 0,
    }
    verdicts = judged()
    found, goals = found | verdicts, goals | judge_goals(verdicts)
    if not given.without_grounding:
        grounded = grounding.figures(grounding.SECONDS, grounding.ROUNDS, grounding.CLIENTS)
        found, goals = found | grounded, goals | grounding.goals(grounded)
    for name, figures in clients.items():
        print(f"{name:28}" + "".join(f"{key:>10} {value:>6}" for key, value in figures.items()))
    for name, value in found.items():
        print(f"{name:40}{value:>10}")
    print(f"{'hostile responses':28}" + "".join(f"{kind:>14} {count}" for kind, count in outcomes.most_common()))
    return outcome.finish("tools", {"row": ROW, **clients, **found}, goals)


if __name__ == "__main__":
    sys.exit(main())

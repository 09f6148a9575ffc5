"""The grounding server beside a plain KServe model of the same network: throughput, health under load, SIGTERM.

    python benchmarks/grounding.py [--seconds 5] [--rounds 3] [--clients 24]

Both serve one small Grounding DINO with random weights on this machine's CPU. The plain one is what KServe's documentation
shows: `predict` decodes the image, runs processor, network and post-processing, and returns. The same clients send the same
photographs (three shapes) with expressions that never repeat, to one server and then to the other, several times: in groups
of five requests for an image, as the samples of GRPO look at one, and with an image for each request. Throughput is compared
in wall time and in the servers' CPU time, which other work on the machine disturbs less. A process of its own asks for
health meanwhile, also of an idle server, which shows what the machine's other work costs. Then SIGTERM arrives under full
load: a request counts as lost if it was sent whole on an open connection and got no answer.
"""

from __future__ import annotations

import argparse
import asyncio
import http.client
import itertools
import json
import multiprocessing
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp
import outcome

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from gog import stats, tool_api
from gog.images import Image

ROW = "grounding server: batches beside a plain KServe model"
SECONDS, ROUNDS, CLIENTS = 5.0, 3, 24
"""Of each round; of both servers; requests in flight."""
READY_SECONDS = 300
PROBE_SECONDS = 0.02
"""Between two probes of health."""
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}
"""One thread of torch in both servers: more of them spin while they wait, which measures the machine's other work."""
SHAPES = ((400, 600), (300, 451), (512, 512))
"""Height and width of the photographs."""
GROUP = 5
"""Samples of a group, which look at one image."""
IMAGES = 48
"""Different images; twice as many as there are requests in flight, so that only a group shares one."""
TICKS = os.sysconf("SC_CLK_TCK")


def plain(folder: str, port: int) -> None:
    """The plain server, which does not return."""
    import kserve
    import torch
    import transformers

    class Plain(kserve.Model):
        def __init__(self) -> None:
            super().__init__("grounding")
            self.processor = transformers.AutoProcessor.from_pretrained(folder)
            self.network = transformers.AutoModelForZeroShotObjectDetection.from_pretrained(folder).eval()
            self.ready = True

        def predict(self, payload: dict, headers: dict[str, str] | None = None) -> dict:
            predictions = []
            for instance in payload["instances"]:
                image = tool_api.decode_image(instance["image"]).pixels
                inputs = self.processor(images=image, text=[[instance["expression"]]], return_tensors="pt")
                with torch.inference_mode():
                    outputs = self.network(**inputs)
                (found,) = self.processor.post_process_grounded_object_detection(
                    outputs, inputs.input_ids, threshold=0.35, text_threshold=0.25, target_sizes=[image.shape[:2]]
                )
                boxes = [
                    {"box": box.tolist(), "score": float(score), "label": label}
                    for box, score, label in zip(found["boxes"], found["scores"], found["text_labels"], strict=True)
                ]
                predictions.append({"detections": boxes[:20]})
            return {"predictions": predictions}

    server = kserve.ModelServer(http_port=port, enable_grpc=False, enable_latency_logging=False)
    server.start([Plain()])


def free_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def started(*line: str) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(
        [sys.executable, *line], env=ENVIRONMENT, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def wait_for(url: str, path: str, process: subprocess.Popen[bytes]) -> None:
    """Until a server answers with 200."""
    end = time.monotonic() + READY_SECONDS
    while time.monotonic() < end and process.poll() is None:
        try:
            if get(url, path) == 200:
                return
        except OSError:
            pass
        time.sleep(0.2)
    raise SystemExit(f"{url} is not ready (exit code {process.poll()})")


def get(url: str, path: str) -> int:
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=30)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        response.read()
        return response.status
    finally:
        connection.close()


def probe(url: str, path: str, pipe: Connection) -> None:
    """Reports that it began, asks for health until the pipe says so, and sends the seconds of each answer."""
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=120)
    seconds = []
    pipe.send(None)
    while not pipe.poll(PROBE_SECONDS):
        began = time.perf_counter()
        connection.request("GET", path)
        connection.getresponse().read()
        seconds.append(time.perf_counter() - began)
    pipe.send(seconds)


@dataclass
class Load:
    """Requests of many clients."""

    answered: int = 0
    """Answers with status 200."""
    refused: int = 0
    """Requests for which no connection was made, or that a closing connection did not take."""
    lost: int = 0
    """Requests that were sent whole and not answered."""
    statuses: list[int] = field(default_factory=list)
    """Other statuses."""


def photographs() -> list[str]:
    """Images in base64: three photographs, each shifted by another number of pixels."""
    import numpy as np
    import skimage.data
    import skimage.transform

    made = []
    for name, shape in zip(("coffee", "chelsea", "astronaut"), SHAPES, strict=True):
        pixels = skimage.transform.resize(getattr(skimage.data, name)(), shape, preserve_range=True).astype("uint8")
        made.append([tool_api.encode_image(Image(np.roll(pixels, shift, 1))) for shift in range(IMAGES // len(SHAPES))])
    return [each for images in zip(*made, strict=True) for each in images]


def bodies(images: list[str], group: int) -> Iterator[bytes]:
    """Requests, `group` in a row for each image, each with an expression of its own."""
    for number in itertools.count():
        image = images[number // group % len(images)]
        yield json.dumps({"instances": [{"image": image, "expression": f"the thing of number {number}"}]}).encode()


def cpu_seconds(process: subprocess.Popen[bytes]) -> float:
    """CPU time that a process has used."""
    fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


@dataclass(frozen=True)
class Rate:
    """Throughput of one round."""

    per_second: float
    """Answers per second of wall time."""
    per_cpu_second: float
    """Answers per second of the server's CPU time."""


async def load(url: str, clients: int, seconds: float, requests: Iterator[bytes], found: Load) -> None:
    """Sends requests one after the other on `clients` connections until the time is over or the server is gone."""
    end = time.monotonic() + seconds
    whole = 0

    async def sent(session: object, context: object, params: aiohttp.TraceRequestChunkSentParams) -> None:
        nonlocal whole
        whole += 1

    trace = aiohttp.TraceConfig()
    trace.on_request_chunk_sent.append(sent)

    async def work(session: aiohttp.ClientSession) -> None:
        while time.monotonic() < end:
            before = whole
            try:
                async with session.post(
                    url + tool_api.GROUNDING_PATH, data=next(requests), headers={"content-type": "application/json"}
                ) as response:
                    await response.read()
                    if response.status == 200:
                        found.answered += 1
                    else:
                        found.statuses.append(response.status)
            except aiohttp.ClientConnectorError:
                found.refused += 1
                return
            except aiohttp.ClientError:
                if whole > before:
                    found.lost += 1
                else:
                    found.refused += 1
                return

    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=120)) as session:
        await asyncio.gather(*(work(session) for _ in range(clients)))


@contextmanager
def probed(url: str, path: str, seconds: list[float]) -> Iterator[None]:
    """Adds the seconds of health probes, which a process of their own makes meanwhile."""
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=probe, args=(url, path, theirs), daemon=True)
    process.start()
    ours.recv()
    try:
        yield
    finally:
        ours.send(None)
        seconds.extend(ours.recv())
        process.join()


def measured(
    url: str, process: subprocess.Popen[bytes], clients: int, seconds: float, requests: Iterator[bytes]
) -> Rate:
    """Throughput under full load."""
    found = Load()
    began, used = time.monotonic(), cpu_seconds(process)
    asyncio.run(load(url, clients, seconds, requests, found))
    if found.statuses or found.lost:
        raise SystemExit(f"{url} failed: {found}")
    return Rate(found.answered / (time.monotonic() - began), found.answered / (cpu_seconds(process) - used))


def terminated(url: str, process: subprocess.Popen[bytes], clients: int, requests: Iterator[bytes]) -> Load:
    """What became of the requests of a server that gets SIGTERM under full load."""
    found = Load()

    async def scenario() -> None:
        running = asyncio.create_task(load(url, clients, 60, requests, found))
        await asyncio.sleep(2)
        process.send_signal(signal.SIGTERM)
        await running

    asyncio.run(scenario())
    process.wait(60)
    return found


def figures(seconds: float, rounds: int, clients: int) -> dict[str, float]:
    """Throughput of both servers in alternating rounds, health of both, and what SIGTERM lost."""
    from support import detector_folders

    images = photographs()
    with tempfile.TemporaryDirectory() as root:
        folder = detector_folders.grounding_dino(Path(root) / "dino")
        ports = free_port(), free_port(), free_port()
        urls = [f"http://127.0.0.1:{port}" for port in ports]
        options = ("--backend", "grounding-dino", "--weights", str(folder), "--device", "cpu")
        with (
            started(__file__, "--plain", str(folder), str(ports[0])) as plain_server,
            started("-m", "gog_tools.grounding.server", "--port", str(ports[1]), *options) as own_server,
            started("-m", "gog_tools.judge.server", "--port", str(ports[2]), "--backend", "match") as idle_server,
        ):
            wait_for(urls[0], "/v2/health/ready", plain_server)
            wait_for(urls[1], "/readyz", own_server)
            wait_for(urls[2], "/readyz", idle_server)
            rates: dict[int, tuple[list[Rate], list[Rate]]] = {GROUP: ([], []), 1: ([], [])}
            health: tuple[list[float], list[float], list[float]] = [], [], []
            for _ in range(rounds):
                for group, (plain_rates, own_rates) in rates.items():
                    requests = bodies(images, group)
                    with probed(urls[0], "/v2/health/live", health[0]):
                        plain_rates.append(measured(urls[0], plain_server, clients, seconds, requests))
                    with probed(urls[1], "/healthz", health[1]), probed(urls[2], "/healthz", health[2]):
                        own_rates.append(measured(urls[1], own_server, clients, seconds, requests))
            ended = terminated(urls[1], own_server, clients, bodies(images, GROUP))
    return {
        **compared("groups of 5", *rates[GROUP]),
        **compared("an image each", *rates[1]),
        "plain KServe, health p99 ms": round(1e3 * stats.percentile(health[0], 0.99), 1),
        "gog, health p99 ms": round(1e3 * stats.percentile(health[1], 0.99), 1),
        "gog, health p50 ms": round(1e3 * stats.percentile(health[1], 0.5), 1),
        "idle server meanwhile, health p99 ms": round(1e3 * stats.percentile(health[2], 0.99), 1),
        "answered before the end": ended.answered,
        "lost at SIGTERM": ended.lost + len(ended.statuses),
    }


def compared(name: str, plain_rates: list[Rate], own_rates: list[Rate]) -> dict[str, float]:
    """Medians of both servers, and of the ratios of neighbouring rounds."""
    pairs = list(zip(plain_rates, own_rates, strict=True))
    return {
        f"{name}: plain KServe, requests/s": round(statistics.median(each.per_second for each in plain_rates), 1),
        f"{name}: gog, requests/s": round(statistics.median(each.per_second for each in own_rates), 1),
        f"{name}: ratio": round(statistics.median(own.per_second / other.per_second for other, own in pairs), 2),
        f"{name}: ratio of CPU time": round(
            statistics.median(own.per_cpu_second / other.per_cpu_second for other, own in pairs), 2
        ),
    }


def goals(found: dict[str, float]) -> dict[str, bool]:
    return {
        "grounding >= 2 x plain KServe": found["groups of 5: ratio"] >= 2,
        "health p99 < 20 ms under load": found["gog, health p99 ms"] < 20,
        "nothing lost at SIGTERM": found["lost at SIGTERM"] == 0,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=SECONDS, help="of each round")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--clients", type=int, default=CLIENTS)
    parser.add_argument("--plain", nargs=2, metavar=("FOLDER", "PORT"), help="run the plain server")
    given = parser.parse_args()
    if given.plain:
        plain(given.plain[0], int(given.plain[1]))
        return 0
    found = figures(given.seconds, given.rounds, given.clients)
    for name, value in found.items():
        print(f"{name:40}{value:>10}")
    return outcome.finish("grounding", {"row": ROW, **found}, goals(found))


if __name__ == "__main__":
    sys.exit(main())

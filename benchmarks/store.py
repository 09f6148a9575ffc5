"""Measures the time to publish and fetch a checkpoint of 1 GiB, relative to the raw bytes over loopback.

    python benchmarks/store.py [--mib 1024] [--repeats 3]

Measured interleaved in one run, median of the repeats: the bytes raw (one connection that reads the file and discards
what it receives, 128 KiB at a time as iperf3 and cat do, and 1 MiB at a time); publish and fetch (hashed, checked,
committed); boto3's upload_file and download_file with defaults. Plain HTTP. The goals hold against a server in memory
(memory_s3.py), which leaves the client's time; versitygw, a real server over a folder, is measured as well.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import boto3
from botocore.config import Config

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "tests"))

from support import ports, s3  # noqa: E402

from gog import store  # noqa: E402
from gog.spec import StoreSpec  # noqa: E402

GOALS = {"publish": 1.2, "fetch": 0.6}
CHUNK = 1 << 20
WRITTEN = "from memory into a new file"
RAW = {"raw loopback": 1 << 17, "raw loopback, 1 MiB at a time": 1 << 20}


def raw(path: Path, chunk: int) -> float:
    """Seconds to send a file over one loopback connection between two processes. chunk: bytes at a time."""
    listener = socket.create_server(("127.0.0.1", 0))
    child = os.fork()
    if child == 0:
        with socket.create_connection(listener.getsockname()) as connection, path.open("rb", buffering=0) as stream:
            buffer = memoryview(bytearray(chunk))
            while got := stream.readinto(buffer):
                connection.sendall(buffer[:got])
        os._exit(0)
    started = time.perf_counter()
    connection, _ = listener.accept()
    buffer, total = bytearray(chunk), 0
    while got := connection.recv_into(buffer):
        total += got
    seconds = time.perf_counter() - started
    connection.close()
    listener.close()
    os.waitpid(child, 0)
    assert total == path.stat().st_size
    return seconds


def written(path: Path, target: Path) -> float:
    """Seconds to write a file's bytes from memory to a new file, a lower bound for a fetch."""
    data = memoryview(path.read_bytes())
    started = time.perf_counter()
    with target.open("wb", buffering=0) as out:
        os.posix_fallocate(out.fileno(), 0, len(data))
        for start in range(0, len(data), 1 << 18):
            out.write(data[start : start + (1 << 18)])
    seconds = time.perf_counter() - started
    target.unlink()
    return seconds


class Server:
    """An S3 server and two clients."""

    def __init__(self, url: str, folder: Path) -> None:
        self.url, self.folder, self.count = url, folder, 0
        self.boto = boto3.client(
            "s3", endpoint_url=url, region_name="us-east-1", config=Config(s3={"addressing_style": "path"})
        )

    def measure(self, path: Path) -> dict[str, float]:
        """Seconds of each operation; everything written is deleted."""
        self.count += 1
        spec = StoreSpec(uri=f"s3://{s3.BUCKET}/run{self.count}", endpoint_url=self.url, path_style=True)
        kept, copy, plain = store.open_store(spec), self.folder / "copy", f"plain{self.count}"
        found = {"publish": timed(lambda: kept.publish("sft", 1, {"model.safetensors": path}))}
        manifest = kept.manifest("sft", 1)
        found["fetch"] = timed(lambda: kept.fetch(manifest, copy))
        assert (copy / "model.safetensors").stat().st_size == path.stat().st_size
        shutil.rmtree(copy)
        kept.backend.delete(manifest.files["model.safetensors"].key)
        found["boto3 up"] = timed(lambda: self.boto.upload_file(str(path), s3.BUCKET, plain))
        found["boto3 down"] = timed(lambda: self.boto.download_file(s3.BUCKET, plain, str(copy)))
        copy.unlink()
        self.boto.delete_object(Bucket=s3.BUCKET, Key=plain)
        return found


def timed(action: Callable[[], object]) -> float:
    started = time.perf_counter()
    action()
    return time.perf_counter() - started


def run(folder: Path, mib: int, repeats: int) -> dict:
    path = folder / "model.safetensors"
    with path.open("wb") as stream:
        for _ in range(mib):
            stream.write(os.urandom(CHUNK))
    port = ports.free(1)[0]
    memory = subprocess.Popen([sys.executable, HERE / "memory_s3.py", str(port), str(mib + 64)], stdout=subprocess.PIPE)
    assert memory.stdout is not None
    memory.stdout.readline()
    gateway = s3.Gateway(folder / "buckets").start()
    servers = {"memory": Server(f"http://127.0.0.1:{port}", folder), "versitygw": Server(gateway.url, folder)}
    try:
        baseline, seconds = {name: [] for name in (*RAW, WRITTEN)}, {name: [] for name in servers}
        for _ in range(repeats):
            for name, server in servers.items():
                for way, chunk in RAW.items():
                    baseline[way].append(raw(path, chunk))
                baseline[WRITTEN].append(written(path, folder / "written"))
                seconds[name].append(server.measure(path))
    finally:
        memory.kill()
        gateway.stop()
    ways = {f"{name}: {way}": [each[way] for each in got] for name, got in seconds.items() for way in got[0]}
    return {**baseline, **ways}


def medians(seconds: dict) -> dict:
    """Medians in seconds, and their ratio to that of the raw loopback."""
    middle = {way: statistics.median(values) for way, values in seconds.items()}
    return {way: {"seconds": value, "ratio": value / middle["raw loopback"]} for way, value in middle.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mib", type=int, default=1024)
    parser.add_argument("--repeats", type=int, default=3)
    given = parser.parse_args()
    os.environ.update(s3.CREDENTIALS)
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder:
        seconds = run(Path(folder), given.mib, given.repeats)
    rows = medians(seconds)
    print(f"{'':32}{'s':>8}{'x raw':>8}")
    for name, row in rows.items():
        print(f"{name:32}{row['seconds']:8.2f}{row['ratio']:8.2f}")
    result = {"mib": given.mib, "load": load, "cores": os.cpu_count(), "rows": rows, "seconds": seconds}
    (HERE / "results" / "store.json").write_text(json.dumps(result, indent=1) + "\n")
    reached = [f"{way} {rows[f'memory: {way}']['ratio']:.2f} x (goal <= {goal})" for way, goal in GOALS.items()]
    print(f"figures against goals: {', '.join(reached)}; load average {load:.1f} on {os.cpu_count()} cores")


if __name__ == "__main__":
    main()

"""A real Prometheus over recorded samples, for the time of a block. Loopback only."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import kube

from gog.observe.prometheus import Prometheus

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
def serving(folder: Path) -> Iterator[Prometheus]:
    """A Prometheus over `folder`/data; scrapes nothing."""
    config = folder / "prometheus.yml"
    config.write_text("{}")
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
        (port,) = kube.free_ports(1)
        command = [
            kube.program("prometheus"), f"--config.file={config}", f"--storage.tsdb.path={data}",
            "--storage.tsdb.retention.time=20y", f"--web.listen-address=127.0.0.1:{port}",
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

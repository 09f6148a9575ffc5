"""A `gog operator` process as the benchmarks start it, and what it uses."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Sequence
from pathlib import Path

import support.kube as kit
from support import ports

SUPPORT = Path(__file__).parents[1] / "tests"


class Operator:
    """A `gog operator` process.

    Args:
        server: API server.
        namespaces: Namespaces that it manages; the first one has its lease.
        trainers: Port on which the trainers of these namespaces answer (`support.trainers`); None where none runs.
    """

    def __init__(self, server: kit.ApiServer, namespaces: Sequence[str], trainers: int | None = None) -> None:
        self.port = ports.free(1)[0]
        where = [word for each in namespaces for word in ("--namespace", each)]
        gog = ["-m", "gog_console"] if trainers is None else ["-m", "support.gog_with_trainers", str(trainers)]
        line = [sys.executable, *gog, "operator", *where, "--port", str(self.port), "--lease-namespace", namespaces[0]]
        path = os.pathsep.join(filter(None, (str(SUPPORT), os.environ.get("PYTHONPATH"))))
        self.started = time.monotonic()
        self.process = subprocess.Popen(
            line,
            env=os.environ | {"KUBECONFIG": str(server.kubeconfig), "PYTHONPATH": path},
            stderr=subprocess.DEVNULL,
        )

    def metrics(self) -> dict[str, float]:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=5) as answer:
                lines = answer.read().decode().splitlines()
        except OSError:
            return {}
        return {name: float(value) for name, _, value in (each.rpartition(" ") for each in lines if each[0] != "#")}

    def settled(self) -> float:
        """Seconds from its start until everything was listed and nothing was left to do."""
        while self.process.poll() is None:
            metrics = self.metrics()
            listed = metrics.get("gog_operator_last_resync_timestamp_seconds", 0) > 0
            if listed and metrics["gog_operator_queue_depth"] == 0 and metrics["gog_operator_working"] == 0:
                return time.monotonic() - self.started
            time.sleep(0.1)
        raise SystemExit(f"the operator ended: {self.process.returncode}")

    def peak(self) -> float:
        """Peak memory in MiB."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0]) / 1024

    def cpu(self) -> float:
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def leads(self) -> bool:
        return self.metrics().get("gog_operator_leader") == 1

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def end(self) -> float:
        begun = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(30)
        return time.monotonic() - begun


def writes(metrics: dict[str, float]) -> int:
    """Requests that change something; those that keep the lease are not counted."""
    return int(
        sum(value for name, value in metrics.items() if "api_requests_total" in name and 'method="GET"' not in name)
    )


def requests(metrics: dict[str, float]) -> int:
    """All requests; those that keep the lease are not counted."""
    return int(sum(value for name, value in metrics.items() if "api_requests_total" in name))

"""Health of the operator: /healthz returns 200 only while the operator makes progress.

Three parts can stop silently: the resync (lost events stay lost), a worker (its object makes no progress), and the
thread that renews the lease (nothing is written). Each is checked by the age of its last activity. An operator that
waits for the lease is healthy.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from gog import metrics
from gog.metrics import serving
from gog_operator.lease import Lease
from gog_operator.workqueue import WorkQueue

PASS_SECONDS = 180.0
"""Maximum duration of a healthy pass; longer than any pass takes, because its requests have deadlines."""
INTERVALS = 3
"""Resync intervals without a resync after which the operator is unhealthy."""


@dataclass
class Health:
    """The state of an operator's parts."""

    queue: WorkQueue
    """Queue whose passes are checked."""
    lease: Lease
    """Lease; resyncs are due only while it is held."""
    interval: float
    """Seconds between two resyncs."""
    threads: tuple[threading.Thread, ...] = ()
    """Threads that must be alive."""
    clock: Callable[[], float] = time.monotonic
    """Monotonic time in seconds."""
    leading_since: float | None = None
    """Reading of the clock when the lease was first seen held; None while it is not."""
    last_resync: float | None = None
    """Reading of the clock at the end of the last resync that succeeded or was refused."""

    def problems(self) -> list[str]:
        """What is wrong; empty when healthy."""
        found = [f"{each.name} has died" for each in self.threads if not each.is_alive()]
        longest = self.queue.longest_pass()
        if longest > PASS_SECONDS:
            found.append(f"a pass over one object has taken {longest:.0f} s")
        if self.lease.held():
            self.leading_since = self.leading_since or self.clock()
            age = self.clock() - max(self.leading_since, self.last_resync or 0.0)
            if age > INTERVALS * self.interval:
                found.append(f"no resync for {age:.0f} s")
        else:
            self.leading_since = None
        return found

    def record_resync(self) -> None:
        self.last_resync = self.clock()
        metrics.record_resync(time.time())

    def record_refusal(self) -> None:
        """The API server answered a resync, and forbade it: a restart of the operator gives it no permission."""
        self.last_resync = self.clock()

    def update_gauges(self) -> None:
        metrics.QUEUE_DEPTH.set(self.queue.depth())
        metrics.QUEUE_AGE.set(self.queue.oldest())
        metrics.WORKING.set(self.queue.working())
        metrics.LEADER.set(self.lease.held())


def serve(health: Health, host: str, port: int, metrics_port: int | None = None) -> tuple[serving.Server, ...]:
    """Serves /healthz and /metrics in threads until shut down.

    Args:
        health: The state of the operator's parts.
        host: Address to listen on.
        port: Port of /healthz.
        metrics_port: Port of /metrics, so that a network policy can tell them apart; None for the same one.

    Raises:
        OSError: a port is in use.
    """

    def healthz() -> tuple[str, bytes]:
        problems = health.problems()
        if problems:
            raise serving.Unhealthy("\n".join(problems))
        return serving.TEXT, b"ok"

    def page() -> tuple[str, bytes]:
        health.update_gauges()
        return serving.text(metrics.OPERATOR.registry)

    if metrics_port is None:
        return (serving.Server({"/healthz": healthz, serving.METRICS: page}, port, host),)
    return (
        serving.Server({"/healthz": healthz}, port, host),
        serving.Server({serving.METRICS: page}, metrics_port, host),
    )

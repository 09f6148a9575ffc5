"""The operator's process: workers on a queue, fed by watches and a resync, gated by a lease.

    main thread   kopf's event loop                     lease     takes and renews
    workers       one pass over one object at a time    resync    lists everything now and then
    health        /healthz, /metrics

It may be killed at any time; SIGTERM ends it after the passes under way, and gives the lease back.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from gog_operator import health, lease, reconcile, resync, telemetry, watch
from gog_operator.api import conditions
from gog_operator.api.meta import Condition, Reason
from gog_operator.build.platform import Platform
from gog_operator.cluster import paths
from gog_operator.cluster.documents import Unreadable
from gog_operator.cluster.interface import Refused, Unavailable
from gog_operator.cluster.kube import Api, ApiError
from gog_operator.cluster.refusals import Explained
from gog_operator.cluster.remote import RemoteCluster
from gog_operator.workqueue import Key, WorkQueue

UNREADABLE_SECONDS = 300.0
END_SECONDS = 10.0
LEASE = "gog-operator"

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Settings:
    """namespaces: (None,) for all. home: the namespace of the lease. port: of /healthz and /metrics."""

    namespaces: tuple[str | None, ...]
    home: str
    platform: Platform
    workers: int = 4
    resync: float = 60.0
    host: str = "0.0.0.0"
    port: int = 8080


def utc_now() -> datetime:
    """To the second, as Kubernetes writes times."""
    return datetime.now(UTC).replace(microsecond=0)


class Workers:
    """Passes over what is on the queue."""

    def __init__(self, api: Api, platform: Platform, queue: WorkQueue, now: Callable[[], datetime] = utc_now) -> None:
        self.api, self.platform, self.queue, self.now = api, platform, queue, now

    def run(self) -> None:
        while (key := self.queue.wait()) is not None:
            self.one(key)

    def one(self, key: Key) -> None:
        """One pass, whatever comes of it. An error of ours must not take the other objects with it."""
        begun = time.monotonic()
        try:
            cluster = RemoteCluster(self.api, key.namespace, self.platform)
            again = reconcile.reconcile(cluster, key.kind, key.name, self.now())
            outcome = "ok"
            self.queue.done(key, again)
        except Unavailable as error:
            outcome = "unavailable"
            log.info("%s: %s; again in %.1f s", "/".join(key), error, self.queue.failed(key, error.after))
        except Unreadable as error:
            outcome = "unreadable"
            self._unreadable(key, error)
        except Exception:
            outcome = "error"
            log.exception("%s: again in %.1f s", "/".join(key), self.queue.failed(key))
        telemetry.OUTCOME.labels(outcome).inc()
        telemetry.PASSES.labels(key.kind).observe(time.monotonic() - begun)

    def _unreadable(self, key: Key, error: Unreadable) -> None:
        """Says on the object itself what is wrong with it; a change by whoever mends it brings it back at once."""
        log.warning("%s: %s", "/".join(key), error.sentence)
        if resync.told_unreadable(error):
            self.queue.done(key, UNREADABLE_SECONDS)
            return
        path = paths.OURS[error.kind].path(key.namespace, error.name, "status")
        body = {
            "metadata": {"resourceVersion": error.body["metadata"].get("resourceVersion")},
            "status": {"conditions": with_unreadable(error, self.now())},
        }
        try:
            Explained(self.api).merge(path, body)
            self.queue.done(key, UNREADABLE_SECONDS)
        except (ApiError, Refused, Unavailable) as failure:
            log.info("%s: %s", "/".join(key), failure)
            self.queue.failed(key)


def with_unreadable(error: Unreadable, now: datetime) -> list[dict[str, Any]]:
    """The object's conditions, as they are, with one that names field and remedy."""
    generation = int(error.body["metadata"].get("generation") or 1)
    (told,) = conditions.put((), "Ready", False, Reason.INVALID_INPUT, error.sentence, now=now, generation=generation)
    kept = [each for each in error.body.get("status", {}).get("conditions") or () if each.get("type") != "Ready"]
    return [*kept, plain(told)]


def plain(condition: Condition) -> dict[str, Any]:
    return condition.model_dump(mode="json", by_alias=True)


class Operator:
    """All of it, over one API server."""

    def __init__(self, api: Api, settings: Settings) -> None:
        self.settings = settings
        counted = telemetry.Counted(api)
        identity = f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:6]}"
        self.queue = WorkQueue()
        self.lease = lease.Lease(api, settings.home, LEASE, identity)
        gated = lease.Gated(counted, self.lease)
        self.workers = Workers(gated, settings.platform, self.queue)
        self.resync = resync.Resync(gated, settings.namespaces, settings.platform, self.queue, utc_now)
        self.health = health.Health(self.queue, self.lease, settings.resync)
        self.watcher = watch.Watcher(self.queue, self.resync.seen)
        self.stop, self.leading, self.listed = threading.Event(), threading.Event(), threading.Event()

    def run(self) -> None:
        """Until SIGTERM or SIGINT."""
        threads = self._threads()
        self.health.threads = threads
        server = health.serve(self.health, self.settings.host, self.settings.port)
        for each in threads:
            each.start()
        try:
            watch.watch(self.watcher, self.settings.namespaces, self.listed)
        finally:
            self.stop.set()
            self.queue.close()
            deadline = time.monotonic() + END_SECONDS
            for each in threads:
                each.join(max(0.0, deadline - time.monotonic()))
            self._release()
            server.shutdown()

    def _threads(self) -> tuple[threading.Thread, ...]:
        keepers: Mapping[str, Callable[[], None]] = {
            "lease": lambda: lease.keep(self.lease, self.stop, self.leading),
            "resync": lambda: resync.keep(
                self.resync, self.lease, self.health, self.settings.resync, self.stop, self.listed
            ),
            **{f"worker {number}": self.workers.run for number in range(self.settings.workers)},
        }
        return tuple(threading.Thread(target=each, name=name, daemon=True) for name, each in keepers.items())

    def _release(self) -> None:
        try:
            self.lease.release()
        except ApiError as error:
            log.info("lease not given back: %s", error)

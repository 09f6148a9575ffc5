"""The operator's process: workers on a queue, fed by watches and a resync, gated by a lease.

    main thread   kopf's event loop                     lease     takes and renews
    workers       one pass over one object at a time    resync    lists everything now and then
    health        /healthz, /metrics

It may be killed at any time; SIGTERM ends it after the passes under way, and gives the lease back.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from gog import metrics
from gog.errors import UserError
from gog_operator import health, lease, reconcile, resync, telemetry, watch
from gog_operator.build.platform import Platform
from gog_operator.cluster import invalid_object, paths
from gog_operator.cluster.api_errors import Explained
from gog_operator.cluster.documents import Unreadable
from gog_operator.cluster.interface import Refused, Unavailable
from gog_operator.cluster.kube import Api, ApiError
from gog_operator.workqueue import Key, WorkQueue

MENDING_SECONDS = 300.0
"""Until an object is looked at again that nobody has mended."""
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
            cluster = telemetry.Watched(self.api, key.namespace, self.platform)
            again = reconcile.reconcile(cluster, key.kind, key.name, self.now())
            outcome = "ok"
            self.queue.done(key, again)
        except Unavailable as error:
            outcome = "unavailable"
            log.info("%s: %s; again in %.1f s", "/".join(key), error, self.queue.failed(key, error.after))
        except Refused as refusal:  # of what it takes to look, or to say so
            outcome = "unavailable"
            log.warning("%s: %s; again in %.1f s", "/".join(key), refusal, self.queue.failed(key))
        except Unreadable as error:
            outcome = "unreadable"
            self._say(key._replace(kind=error.kind, name=error.name), key, error.sentence)
        except UserError as error:
            outcome = "unreadable"
            self._say(key, key, error.sentence())
        except Exception:
            outcome = "error"
            log.exception("%s: again in %.1f s", "/".join(key), self.queue.failed(key))
        metrics.record_reconcile(key.kind, outcome, time.monotonic() - begun)

    def _say(self, about: Key, key: Key, sentence: str) -> None:
        """Says on the object itself what is wrong with it; a change by whoever mends it brings it back at once."""
        log.warning("%s: %s", "/".join(about), sentence)
        api, path = Explained(self.api), paths.OURS[about.kind].path(about.namespace, about.name)
        try:
            body = api.find(path)
            if body is not None and not invalid_object.told(body, sentence):
                patch = invalid_object.patch(body, sentence, self.now())
                api.merge(f"{path}/status", patch)
            self.queue.done(key, MENDING_SECONDS)
        except (ApiError, Refused, Unavailable) as failure:
            log.info("%s: %s", "/".join(about), failure)
            self.queue.failed(key)


def end() -> None:
    """Ends this process as whoever runs it would."""
    os.kill(os.getpid(), signal.SIGTERM)


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
                self.resync, self.lease, self.health, self.settings.resync, self.stop, self.listed, end
            ),
            **{f"worker {number}": self.workers.run for number in range(self.settings.workers)},
        }
        return tuple(threading.Thread(target=each, name=name, daemon=True) for name, each in keepers.items())

    def _release(self) -> None:
        try:
            self.lease.release()
        except ApiError as error:
            log.info("lease not given back: %s", error)

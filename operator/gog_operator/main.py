"""The operator's process: workers process a queue that watches and a resync fill. Only the lease's holder writes.

    main thread   kopf's event loop                     lease     acquires and renews
    workers       one pass over one object at a time    resync    lists everything at intervals
    polls         progress of trainers                  metrics   /healthz, /metrics
    policies      pods of served policies

It may be killed at any time. On SIGTERM it completes the passes in progress, releases the lease and exits.
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
from gog_operator.cluster import invalid_object, paths, policy_polls, polls, trainer_client
from gog_operator.cluster.api_errors import TranslatedApi
from gog_operator.cluster.documents import Unreadable
from gog_operator.cluster.interface import Conflict, Refused, Unavailable
from gog_operator.cluster.kube import Api, ApiError
from gog_operator.cluster.object_cache import CachedApi, ObjectCache
from gog_operator.workqueue import Key, WorkQueue

INVALID_SECONDS = 300.0
"""Seconds until the next pass over an invalid object; a change of it triggers a pass at once."""
END_SECONDS = 10.0
"""Seconds for the passes in progress when the operator exits."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Settings:
    """Settings of an operator."""

    namespaces: tuple[str | None, ...]
    """Namespaces that it manages; (None,) for all."""
    home: str
    """Namespace of the lease."""
    platform: Platform
    """The installation's images and ports."""
    lease: str = "gog-operator"
    """Name of the lease. Operators that watch other namespaces need another one."""
    workers: int = 4
    """Number of concurrent passes."""
    resync: float = 60.0
    """Seconds between two resyncs."""
    host: str = "0.0.0.0"
    """Address of /healthz and /metrics."""
    port: int = 8080
    """Port of /healthz, and of /metrics without a port of its own."""
    metrics_port: int | None = None
    """Port of /metrics; None for that of /healthz."""


def utc_now() -> datetime:
    """The current time, truncated to seconds as in Kubernetes."""
    return datetime.now(UTC).replace(microsecond=0)


class Workers:
    """Makes passes over the objects on the queue.

    Args:
        api: Client of the API server.
        platform: The installation's images and ports.
        queue: Queue of the objects that need a pass.
        now: Time for conditions.
        request: Sends an HTTP request to a trainer or a policy's pod.
        clock: Monotonic time in seconds.
    """

    def __init__(
        self,
        api: Api,
        platform: Platform,
        queue: WorkQueue,
        now: Callable[[], datetime] = utc_now,
        request: trainer_client.Request = trainer_client.request,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.api, self.platform, self.queue, self.now, self.request = api, platform, queue, now, request
        self.cache = ObjectCache()
        self.polls = polls.SharedPolls(request, clock, queue.add)
        self.policies = policy_polls.PolicyPolls(request, clock, queue.add)

    def run(self) -> None:
        while (key := self.queue.wait()) is not None:
            self.process(key)

    def process(self, key: Key) -> None:
        """Makes one pass. Never raises, because an error of one object must not affect the others."""
        begun = time.monotonic()
        try:
            again = self._pass(key)
            outcome = "ok"
            self.queue.done(key, again)
        except Conflict:
            outcome = "unavailable"
            log.info("%s: changed meanwhile; again in %.1f s", "/".join(key), self.queue.failed(key))
        except Unavailable as error:
            outcome = "unavailable"
            log.info("%s: %s; again in %.1f s", "/".join(key), error, self.queue.failed(key, error.after))
        except Refused as refusal:  # to read the object, or to write its condition
            outcome = "unavailable"
            log.warning("%s: %s; again in %.1f s", "/".join(key), refusal, self.queue.failed(key))
        except Unreadable as error:
            outcome = "unreadable"
            self._report(key._replace(kind=error.kind, name=error.name), key, error.sentence)
        except UserError as error:
            outcome = "unreadable"
            self._report(key, key, error.sentence())
        except Exception:
            outcome = "error"
            log.exception("%s: again in %.1f s", "/".join(key), self.queue.failed(key))
        metrics.record_reconcile(key.kind, outcome, time.monotonic() - begun)

    def _pass(self, key: Key) -> float | None:
        """Looks at the object, and makes a pass where that does not suffice. Returns the seconds until the next one."""
        try:
            return reconcile.look(self._cluster(key, fresh=False), key.kind, key.name, self.now())
        except reconcile.Outdated:
            return reconcile.reconcile(self._cluster(key, fresh=True), key.kind, key.name, self.now())

    def _cluster(self, key: Key, *, fresh: bool) -> telemetry.CountedCluster:
        api = CachedApi(self.api, self.cache, fresh=fresh)
        return telemetry.CountedCluster(api, key.namespace, self.platform, self.request, self.polls, self.policies)

    def _report(self, about: Key, key: Key, sentence: str) -> None:
        """Reports an invalid object in its Ready condition. about: the object; key: the object of the pass."""
        log.warning("%s: %s", "/".join(about), sentence)
        api, path = TranslatedApi(self.api), paths.OURS[about.kind].path(about.namespace, about.name)
        try:
            body = api.find(path)
            if body is not None and (released := invalid_object.release_patch(body)) is not None:
                log.warning("%s is deleted, and its artifacts are kept, because it cannot be read", "/".join(about))
                api.merge(path, released)
            elif body is not None and not invalid_object.is_reported(body, sentence):
                api.merge(f"{path}/status", invalid_object.report_patch(body, sentence, self.now()))
            self.queue.done(key, INVALID_SECONDS)
        except (ApiError, Refused, Unavailable) as failure:
            log.info("%s: %s", "/".join(about), failure)
            self.queue.failed(key)


def terminate() -> None:
    """Ends this process by SIGTERM, like a kubelet."""
    os.kill(os.getpid(), signal.SIGTERM)


class Operator:
    """The parts of an operator, over one API server."""

    def __init__(self, api: Api, settings: Settings) -> None:
        self.settings = settings
        counted = telemetry.CountedApi(api)
        identity = f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:6]}"
        self.queue = WorkQueue(workers=settings.workers)
        self.lease = lease.Lease(api, settings.home, settings.lease, identity)
        gated = lease.GatedApi(counted, self.lease)
        self.workers = Workers(gated, settings.platform, self.queue)
        self.resync = resync.Resync(
            gated, settings.namespaces, settings.platform, self.queue, utc_now, self.workers.cache, self.workers.polls
        )
        self.health = health.Health(self.queue, self.lease, settings.resync)
        self.watcher = watch.Watcher(self.queue, self.resync.seen, self.workers.cache)
        self.stop, self.leading, self.listed = threading.Event(), threading.Event(), threading.Event()

    def run(self) -> None:
        """Runs until SIGTERM or SIGINT."""
        threads = self._threads()
        self.health.threads = threads
        settings = self.settings
        servers = health.serve(self.health, settings.host, settings.port, settings.metrics_port)
        for each in threads:
            each.start()
        try:
            watch.watch(self.watcher, self.resync.readable, self.listed)
        finally:
            self.stop.set()
            self.queue.close()
            self.workers.polls.queue.close()
            self.workers.policies.queue.close()
            deadline = time.monotonic() + END_SECONDS
            for each in threads:
                each.join(max(0.0, deadline - time.monotonic()))
            self._release()
            for server in servers:
                server.shutdown()

    def _threads(self) -> tuple[threading.Thread, ...]:
        keepers: Mapping[str, Callable[[], None]] = {
            "lease": lambda: lease.run(self.lease, self.stop, self.leading),
            "resync": lambda: resync.run(
                self.resync, self.lease, self.health, self.settings.resync, self.stop, self.listed, terminate
            ),
            **{f"worker {number}": self.workers.run for number in range(self.settings.workers)},
            **{f"poll {number}": self.workers.polls.run for number in range(self.workers.polls.threads)},
            **{f"policy {number}": self.workers.policies.run for number in range(policy_polls.THREADS)},
        }
        return tuple(threading.Thread(target=each, name=name, daemon=True) for name, each in keepers.items())

    def _release(self) -> None:
        try:
            self.lease.release()
        except ApiError as error:
            log.info("lease not released: %s", error)

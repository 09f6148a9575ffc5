"""Lists everything at intervals and queues the objects that need a pass.

Events may be lost, watches may break, and operators restart. The resync compensates for this: it repeats the decision
for every listed object, without acting. An object that needs no action costs no request and no write. An object that
waits for a point in time is queued for that time.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from typing import Any

from gog import metrics
from gog_operator import object_metrics, reconcile
from gog_operator.api.objects import KINDS, Object
from gog_operator.build.platform import Platform
from gog_operator.cluster import invalid_object, paths
from gog_operator.cluster.documents import Unreadable
from gog_operator.cluster.interface import Refused, Unavailable
from gog_operator.cluster.kube import Api, ApiError
from gog_operator.cluster.object_cache import ObjectCache
from gog_operator.cluster.polls import ListedPolls, SharedPolls
from gog_operator.cluster.remote import RemoteCluster
from gog_operator.cluster.snapshot import Snapshot
from gog_operator.health import Health
from gog_operator.lease import WATCH, Lease
from gog_operator.plan import kstatus
from gog_operator.plan.actions import Decision
from gog_operator.workqueue import Key, WorkQueue

SCATTER = 0.1
"""Fraction by which intervals vary at random, so that operators do not list at the same time."""
AGAIN = 5.0
"""Seconds until the next resync after one that failed."""

log = logging.getLogger(__name__)


class Resync:
    """Lists everything and queues the objects that need a pass.

    Args:
        api: Client of the API server.
        namespaces: Namespaces to list; (None,) for the whole cluster.
        platform: The installation's images and ports.
        queue: Queue for the objects.
        now: Time for decisions.
        cache: Keeps what is listed.
        looks: Polls the trainers of running stages.
    """

    def __init__(
        self,
        api: Api,
        namespaces: tuple[str | None, ...],
        platform: Platform,
        queue: WorkQueue,
        now: Callable[[], datetime],
        cache: ObjectCache,
        looks: SharedPolls,
    ) -> None:
        self.cache, self.looks = cache, looks
        self.api, self.namespaces, self.platform, self.queue, self.now = api, namespaces, platform, queue, now
        self.unknown: tuple[paths.Resource, ...] | None = None
        """Resources that the server does not have; None before the first resync."""
        self.unreadable: frozenset[str | None] = frozenset()
        """Namespaces that the operator is forbidden to list, as when the operator's Role in one was deleted."""
        self.seen: dict[Key, str] = {}
        """Listed resource versions. The kind of a key is the resource's name (`gogruns.gog.dev`). Shared with the
        watcher's thread."""

    def readable(self) -> tuple[str | None, ...]:
        """The namespaces that may be listed; all of them if none may."""
        return tuple(each for each in self.namespaces if each not in self.unreadable) or self.namespaces

    def once(self) -> int:
        """Lists and decides. A namespace that cannot be listed does not affect the others.

        Returns:
            The number of queued objects.

        Raises:
            ApiError: no namespace could be listed.
        """
        begun = time.monotonic()
        self.cache.begin()
        snapshot = Snapshot()
        listed: list[str | None] = []
        forbidden: list[str | None] = []
        for namespace in self.namespaces:
            part = Snapshot()
            try:
                part.take(self.api, namespace)
            except ApiError as error:
                if error.status == 403:
                    forbidden.append(namespace)
                if not listed and namespace == self.namespaces[-1]:
                    self._record(listed, forbidden)
                    raise
                log.warning("resync: namespace %s: %s", namespace, error)
            else:
                snapshot.add(part)
                listed.append(namespace)
        self._record(listed, forbidden)
        self.unknown = tuple(dict.fromkeys(snapshot.unknown))
        self._remember(snapshot, listed)
        self.cache.replace(snapshot, listed)
        queued = sum(self._queue_kind(snapshot, kind) for kind in KINDS)
        object_metrics.record(self._documents(snapshot))
        metrics.RESYNC_SECONDS.set(time.monotonic() - begun)
        return queued

    def _record(self, listed: Sequence[str | None], forbidden: Sequence[str | None]) -> None:
        """Records which namespaces may be listed. One without an answer keeps what is known of it."""
        self.unreadable = (self.unreadable - set(listed)) | set(forbidden)
        for each in (*listed, *forbidden):
            if each is not None:
                metrics.record_readable(each, each not in self.unreadable)

    def _remember(self, snapshot: Snapshot, namespaces: Sequence[str | None]) -> None:
        """Updates `seen`: adds what was listed, and removes what these namespaces no longer contain."""
        listed = {Key(*each): version for each, version in snapshot.versions.items()}
        for key in self.seen.copy():  # a copy, because the watcher's thread adds entries
            if key not in listed and (None in namespaces or key.namespace in namespaces):
                self.seen.pop(key, None)
        self.seen.update(listed)

    def _documents(self, snapshot: Snapshot) -> Iterator[dict[str, Any]]:
        """Our objects, one at a time, because all of them at once would take ten times the snapshot's memory."""
        for kind in KINDS:
            resource = paths.OURS[kind]
            for namespace, name in snapshot.names(resource):
                yield {**snapshot.call("GET", resource.path(namespace, name)), "kind": kind}

    def _queue_kind(self, snapshot: Snapshot, kind: str) -> int:
        """Queues the objects of a kind that need a pass. Returns their number."""
        listed, queued = 0, 0
        for namespace, name in snapshot.names(paths.OURS[kind]):
            key = Key(kind, namespace, name)
            listed += 1
            if self.looks.is_waiting(key):  # for pods, which are not listed
                continue
            cluster = RemoteCluster(snapshot, namespace, self.platform, _no_answer, ListedPolls(self.looks))
            after = due(cluster, kind, name, self.now())
            if after is not None:
                self.queue.add(key, after)
                queued += 1
        metrics.record_listed_objects(kind, listed)
        return queued


def due(cluster: RemoteCluster, kind: str, name: str, now: datetime) -> float | None:
    """Seconds until an object needs a pass; None if it needs none and waits for no point in time."""
    thing = None
    try:
        thing = cluster.get(KINDS[kind], name)
        if thing is None or not reconcile.is_ours(thing):
            return None
        left = None if thing.is_terminating else reconcile.seconds_to_live(thing, now)
        decision = reconcile.decide(cluster, thing, now)
    except Refused as refusal:
        if thing is None:
            return 0.0
        decision = reconcile.refused(thing, refusal, now)
        return 0.0 if is_new(thing, decision, now) else decision.requeue_after
    except Unreadable as error:
        return None if invalid_object.is_reported(error.body, error.sentence) else 0.0
    except Unavailable:
        return 0.0
    except Exception:
        log.exception("%s %s", kind, name)  # the pass reports it; other objects must not be affected
        return 0.0
    if decision.actions or decision.events or is_new(thing, decision, now):
        return 0.0
    return min((each for each in (left, decision.requeue_after) if each is not None), default=None)


def is_new(thing: Object, decision: Decision[Any], now: datetime) -> bool:
    """Whether a pass would change the object's status."""
    status: bool = kstatus.summarized(thing, decision.status, now) != thing.status
    return status


def _no_answer(url: str, timeout: float) -> None:
    """Sends no request, because a resync contacts no pods."""


def run(
    resync: Resync,
    lease: Lease,
    health: Health,
    interval: float,
    stop: threading.Event,
    first: threading.Event,
    restart: Callable[[], None],
) -> None:
    """Resyncs while the lease is held, until `stop` is set.

    Args:
        resync: The resync to repeat.
        lease: Lease that must be held.
        health: Records every resync that succeeded or was refused.
        interval: Seconds between two resyncs.
        stop: Ends the loop.
        first: Set after the first successful resync.
        restart: Called when the server has a resource that it lacked at first, because watches start only once.
    """
    missing: tuple[paths.Resource, ...] | None = None
    while not stop.is_set():
        wait = WATCH
        if lease.held():
            wait = _attempt(resync, health, interval, first)
            missing = resync.unknown if missing is None else missing
            if missing is not None and set(missing) - set(resync.unknown or ()):
                log.warning("restarting to watch new resources: %s", ", ".join(each.name for each in missing))
                restart()
                return
        stop.wait(wait)


def _attempt(resync: Resync, health: Health, interval: float, first: threading.Event) -> float:
    """One resync. Returns the seconds until the next."""
    try:
        queued = resync.once()
    except ApiError as error:
        log.warning("resync: %s", error)
        if error.status == 403:
            health.record_refusal()
        return min(error.retry_after or AGAIN, interval)
    except Exception:
        log.exception("resync")  # keep the thread alive, because without it lost events stay lost
        return min(AGAIN, interval)
    health.record_resync()
    first.set()
    log.info("resync: queued %d objects", queued)
    return interval * (1 + SCATTER * (2 * random.random() - 1))

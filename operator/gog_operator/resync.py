"""The safety net: everything is listed now and then, and what has something left to do is put on the queue.

Watches lose events, streams die, an operator starts over: none of that matters, because here every object's decision is
taken again from what is listed, without acting on it. An object with nothing to do costs no request and no write. What
time alone will make worthwhile is queued for that time.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any

from gog import metrics
from gog_operator import object_metrics, reconcile
from gog_operator.api.objects import KINDS
from gog_operator.build.platform import Platform
from gog_operator.cluster import invalid_object, paths
from gog_operator.cluster.documents import Unreadable
from gog_operator.cluster.interface import Refused, Unavailable
from gog_operator.cluster.kube import Api, ApiError
from gog_operator.cluster.remote import RemoteCluster
from gog_operator.cluster.snapshot import Snapshot
from gog_operator.health import Health
from gog_operator.lease import Lease
from gog_operator.workqueue import Key, WorkQueue

SCATTER = 0.1
AGAIN = 5.0
"""Seconds after a resync that failed."""

log = logging.getLogger(__name__)


class Resync:
    """namespaces: (None,) for all of the cluster. seen: resource versions as they were listed; a Key's kind is the name of
    the resource here (`gogruns.gog.dev`)."""

    def __init__(
        self,
        api: Api,
        namespaces: tuple[str | None, ...],
        platform: Platform,
        queue: WorkQueue,
        now: Callable[[], datetime],
    ) -> None:
        self.api, self.namespaces, self.platform, self.queue, self.now = api, namespaces, platform, queue, now
        self.unknown: tuple[paths.Resource, ...] | None = None
        self.seen: dict[Key, str] = {}

    def once(self) -> int:
        """Lists and decides; how many objects were queued. Raises ApiError."""
        begun = time.monotonic()
        snapshot = Snapshot()
        for namespace in self.namespaces:
            snapshot.take(self.api, namespace)
        self.unknown = tuple(dict.fromkeys(snapshot.unknown))
        self._note(snapshot)
        queued = sum(self._kind(snapshot, kind) for kind in KINDS)
        object_metrics.take(self._documents(snapshot))
        metrics.RESYNC_SECONDS.set(time.monotonic() - begun)
        return queued

    def _note(self, snapshot: Snapshot) -> None:
        """What was listed is seen; what was not is gone."""
        listed = {Key(*each): version for each, version in snapshot.versions.items()}
        for key in [each for each in self.seen if each not in listed]:
            self.seen.pop(key, None)
        self.seen.update(listed)

    def _documents(self, snapshot: Snapshot) -> Iterator[dict[str, Any]]:
        """Ours, one at a time: all of them at once would take ten times the snapshot's memory."""
        for kind in KINDS:
            resource = paths.OURS[kind]
            for namespace, name in snapshot.names(resource):
                yield {**snapshot.call("GET", resource.path(namespace, name)), "kind": kind}

    def _kind(self, snapshot: Snapshot, kind: str) -> int:
        """Puts on the queue what has something to do, of one kind."""
        listed, queued = 0, 0
        for namespace, name in snapshot.names(paths.OURS[kind]):
            after = due(RemoteCluster(snapshot, namespace, self.platform, _silence), kind, name, self.now())
            listed += 1
            if after is not None:
                self.queue.add(Key(kind, namespace, name), after)
                queued += 1
        metrics.record_listed_objects(kind, listed)
        return queued


def due(cluster: RemoteCluster, kind: str, name: str, now: datetime) -> float | None:
    """In how many seconds an object wants a pass; None when nothing is to be done and time will not change that."""
    try:
        thing = cluster.get(KINDS[kind], name)
        if thing is None or not reconcile.ours(thing):
            return None
        left = reconcile.seconds_to_live(thing, now)
        decision = reconcile.decide(cluster, thing, now)
    except Refused as refusal:
        told = reconcile.refused(thing, refusal, now)  # type: ignore[arg-type]
        return told.requeue_after if told.status == thing.status else 0.0  # type: ignore[union-attr]
    except Unreadable as error:
        return None if invalid_object.told(error.body, error.sentence) else 0.0
    except Unavailable:
        return 0.0
    except Exception:
        log.exception("%s %s", kind, name)  # the pass says it on the object; the others must not suffer
        return 0.0
    if decision.actions or decision.events or decision.status != thing.status:
        return 0.0
    return min((each for each in (left, decision.requeue_after) if each is not None), default=None)


def _silence(url: str, timeout: float) -> None:
    """Nobody is asked anything in a resync."""


def keep(
    resync: Resync,
    lease: Lease,
    health: Health,
    interval: float,
    stop: threading.Event,
    first: threading.Event,
    restart: Callable[[], None],
) -> None:
    """Resyncs while the lease is held, until told to stop. first: set after the first one. restart: called when the
    server has a resource that it had not at first, because watching begins at the start only."""
    missing: tuple[paths.Resource, ...] | None = None
    while not stop.is_set():
        wait = 1.0
        if lease.held():
            try:
                queued = resync.once()
                health.resynced()
                first.set()
                log.info("resync: %d objects have something to do", queued)
                wait = interval * (1 + SCATTER * (2 * random.random() - 1))
            except ApiError as error:
                log.warning("resync: %s", error)
                wait = min(error.retry_after or AGAIN, interval)
            missing = resync.unknown if missing is None else missing
            if missing is not None and set(missing) - set(resync.unknown or ()):
                log.warning("starts anew: %s can be watched now", ", ".join(each.name for each in missing))
                restart()
                return
        stop.wait(wait)

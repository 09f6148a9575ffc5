"""The control loop of one machine: a pass over every object, again and again, until the root is settled.

The root first, so that an end or a halt reaches a stage before that does anything more; servers before stages, so that
none relies on a server of an earlier life. There are ten objects or so, and a look at them costs a millisecond: polling
needs no watch that could be missed. On a cluster events and a queue take this file's place; nothing else changes.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

from gog_operator import reconcile
from gog_operator.api.objects import KINDS, Endpoint, Object
from gog_operator.cluster.local import LocalCluster

TICK = 0.2
"""Seconds between looks."""


def utc_now() -> datetime:
    """To the millisecond: enough for a person, short in a file."""
    now = datetime.now(UTC)
    return now.replace(microsecond=now.microsecond // 1000 * 1000)


def drive(
    cluster: LocalCluster,
    root: tuple[str, str],
    *,
    wait: Callable[[float], None],
    interrupted: Callable[[], bool] = lambda: False,
    on_pass: Callable[[], None] = lambda: None,
    clock: Callable[[], datetime] = utc_now,
) -> None:
    """Returns when the root is finished or suspended and nothing of it runs, or when interrupted."""
    while not interrupted():
        hurried = sweep(cluster, root, clock())
        on_pass()
        if settled(cluster, root):
            return
        if not hurried:
            wait(TICK)


def sweep(cluster: LocalCluster, root: tuple[str, str], now: datetime) -> bool:
    """One pass over everything; whether something asked to be looked at again at once."""
    again = [reconcile.reconcile(cluster, *root, now)]
    names = {each.name for each in cluster.list(Endpoint)} | set(cluster.servers.names())
    keys = [("Endpoint", name) for name in sorted(names)] + [each.key for each in reconcile.stages(cluster)]
    again += [reconcile.reconcile(cluster, *key, now) for key in keys if key != root]
    return any(after == 0 for after in again)


def settled(cluster: LocalCluster, root: tuple[str, str]) -> bool:
    thing: Object | None = cluster.get(KINDS[root[0]], root[1])
    if thing is None:
        return True
    if not (thing.finished or thing.holds("Suspended")):
        return False
    return not cluster.jobs.running() and not cluster.servers.names() and not cluster.list(Endpoint)

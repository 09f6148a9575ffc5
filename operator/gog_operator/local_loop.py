"""The control loop of one machine: a pass over every object, repeated until the root is finished or suspended.

The root is first, so that a cancellation or a suspension reaches a stage before the stage takes further action. Servers
precede stages, so that no stage relies on a server of an earlier control loop. Reading the ten or so objects takes a
millisecond, so polling is enough. On a cluster, events and a queue replace this module; nothing else changes.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

from gog_operator import reconcile
from gog_operator.api.objects import KINDS, GoGRun, Object, ToolServer
from gog_operator.cluster.interface import Conflict
from gog_operator.cluster.local import LocalCluster
from gog_operator.plan import serving

TICK = 0.2
"""Seconds between two sweeps."""


def utc_now() -> datetime:
    """The current time, truncated to milliseconds."""
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
    """Sweeps until the root is finished or suspended and none of its processes runs, or until interrupted.

    Args:
        cluster: Cluster of the run folder.
        root: Kind and name of the run, or of a single stage or ToolServer.
        wait: Sleeps for a number of seconds.
        interrupted: Whether to return early.
        on_pass: Called after every sweep.
        clock: Returns the current time.
    """
    while not interrupted():
        again = sweep(cluster, root, clock())
        on_pass()
        if settled(cluster, root):
            return
        if not again:
            wait(TICK)


def sweep(cluster: LocalCluster, root: tuple[str, str], now: datetime) -> bool:
    """Makes one pass over every object. Returns whether another pass is due at once."""
    waits = [_pass(cluster, *root, now)]
    names = {each.name for each in cluster.list(ToolServer)} | set(cluster.servers.names())
    keys = [("ToolServer", name) for name in sorted(names)] + [each.key for each in reconcile.stages(cluster)]
    waits += [_pass(cluster, *key, now) for key in keys if key != root]
    return any(after == 0 for after in waits)


def _pass(cluster: LocalCluster, kind: str, name: str, now: datetime) -> float | None:
    """One pass, which is repeated at once where a user has changed the object meanwhile."""
    try:
        return reconcile.reconcile(cluster, kind, name, now)
    except Conflict:
        return 0


def settled(cluster: LocalCluster, root: tuple[str, str]) -> bool:
    """Whether the root is finished, suspended or deleted, and none of its processes runs."""
    thing: Object | None = cluster.get(KINDS[root[0]], root[1])
    if thing is None:
        return True
    if not (thing.finished or thing.holds("Suspended")):
        return False
    if isinstance(thing, GoGRun) and not serving.is_handed_over(thing):
        return False
    return not cluster.jobs.running() and not cluster.servers.names() and not cluster.list(ToolServer)

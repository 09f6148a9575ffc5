"""One pass over one object: look, decide, act, write the status once. The same on a laptop and on a cluster.

Looking and acting go through a Cluster, deciding is `plan/`. Events are recorded after the status that they tell of has
landed: a pass that loses the race for the status repeats everything, and would tell twice. A kill between an act and
the status costs a repetition of the act, and every act bears it.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any, Protocol

from gog import spec as settings
from gog.errors import UserError
from gog_operator.api.objects import KINDS, STAGE_KINDS, Endpoint, GoGRun, Object, Stage
from gog_operator.cluster.interface import AlreadyExists, Cluster, Conflict
from gog_operator.plan import actions, endpoint, run, stage
from gog_operator.plan.actions import Decision


def reconcile(cluster: Cluster, kind: str, name: str, now: datetime) -> float | None:
    """One pass. Returns seconds until another is worthwhile without anything else happening; None: unknown."""
    thing = cluster.get(KINDS[kind], name)
    if thing is None:
        if kind == "Endpoint":
            cluster.stop_server(name)
        return None
    decision = decide(cluster, thing, now)
    for action in decision.actions:
        act(cluster, thing, action, now)
    if decision.status != thing.status:
        try:
            cluster.patch_status(thing, decision.status)
        except Conflict:
            return 0
    for event in decision.events:
        cluster.record(thing, event, now)
    return decision.requeue_after


def decide(cluster: Cluster, thing: Object, now: datetime) -> Decision[Any]:
    """Gathers the facts for an object and asks its plan."""
    if isinstance(thing, GoGRun):
        return run.plan(thing, run_facts(cluster, thing), now)
    if isinstance(thing, Endpoint):
        return endpoint.plan(thing, endpoint.Facts(cluster.server(thing), cluster.data(thing)), now)
    if isinstance(thing, Stage):
        return stage.plan(thing, stage_facts(cluster, thing), now)
    raise TypeError(thing.kind)


def run_facts(cluster: Cluster, thing: GoGRun) -> run.Facts:
    store = thing.spec.store or cluster.default_store()
    if store is None:
        raise UserError("missing", where="spec.store", remedy="a cluster needs to be told where checkpoints go")
    committed: dict[str, str] = {}
    for key in thing.spec.stages.skip:
        found = cluster.checkpoint(store, key)
        if found is not None:
            committed[key] = found.ref
    return run.Facts(
        stages={each.name: each for each in owned(thing, stages(cluster))},
        endpoints={each.name: each for each in owned(thing, cluster.list(Endpoint))},
        data=cluster.data(thing),
        store=store,
        committed=committed,
    )


def stage_facts(cluster: Cluster, thing: Stage) -> stage.Facts:
    named = [value for value in thing.spec.endpoints.values() if "://" not in value]
    found = {name: cluster.get(Endpoint, name) for name in named}
    return stage.Facts(
        job=cluster.job(thing),
        checkpoint=cluster.checkpoint(thing.spec.store, thing.store_key) if thing.status.attempt else None,
        progress=cluster.progress(thing) if thing.status.attempt else None,
        data=cluster.data(thing),
        endpoints={name: each for name, each in found.items() if each is not None},
    )


def act(cluster: Cluster, thing: Any, action: actions.Action, now: datetime) -> None:
    match action:
        case actions.CreateObject(child):
            create(cluster, thing, child)
        case actions.PatchObject(kind, name, spec, annotations):
            cluster.patch(kind, name, spec=spec, annotations=annotations)
        case actions.DeleteObject(kind, name):
            cluster.delete(kind, name)
        case actions.CreateJob(endpoints):
            cluster.create_job(thing, endpoints)
        case actions.CancelJob():
            cluster.cancel_job(thing)
        case actions.StartServer(port):
            cluster.start_server(thing, port, now)
        case actions.StopServer():
            cluster.stop_server(thing.name)
        case actions.PrepareData():
            cluster.prepare_data(thing)


def create(cluster: Cluster, owner: Object, child: Object) -> None:
    """Creates a child. One that is there counts when it is ours; somebody else's is an error a person must mend."""
    try:
        cluster.create(child)
    except AlreadyExists:
        there = cluster.get(KINDS[child.kind], child.name)
        if there is not None and not there.owned_by(owner):
            raise UserError(
                f"{child.kind} {child.name} exists and is not {owner.name}'s",
                remedy=f"delete it, or call the run otherwise than {owner.name}",
            ) from None


def owned(owner: Object, things: Iterable[Any]) -> list[Any]:
    return [each for each in things if each.owned_by(owner)]


class Lister(Protocol):
    def list(self, kind: type[Any]) -> tuple[Any, ...]: ...


def stages(cluster: Lister) -> list[Stage]:
    """Every stage object, in the order of the stages."""
    return [each for name in settings.STAGES for each in cluster.list(STAGE_KINDS[name])]

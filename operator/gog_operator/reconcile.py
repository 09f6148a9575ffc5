"""One pass over one object: look, decide, act, write the status once. The same on a laptop and on a cluster.

Looking and acting go through a Cluster, deciding is `plan/`. Events are recorded after the status that they tell of has
landed: a pass that loses the race for the status repeats everything, and would tell twice. A kill between an act and
the status costs a repetition of the act, and every act bears it.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, Protocol

from gog import spec as settings
from gog.errors import UserError
from gog_operator.api import conditions
from gog_operator.api.meta import CONTROLLER, Reason
from gog_operator.api.objects import KINDS, STAGE_KINDS, Endpoint, GoGRun, Object, Stage
from gog_operator.cluster.interface import AlreadyExists, Cluster, Conflict, Refused
from gog_operator.plan import actions, endpoint, run, stage
from gog_operator.plan.actions import Decision, Event

REFUSED_SECONDS = 30.0
"""After a refusal that a person may have to mend."""


def reconcile(cluster: Cluster, kind: str, name: str, now: datetime) -> float | None:
    """One pass. Returns seconds until another is worthwhile without anything else happening; None: unknown."""
    thing = cluster.get(KINDS[kind], name)
    if thing is None:
        if kind == "Endpoint":
            cluster.stop_server(name)
        return None
    if not ours(thing):
        return None
    left = seconds_to_live(thing, now) if cluster.is_persistent else None
    if left is not None and left <= 0:
        cluster.delete(kind, name, thing.metadata.uid)
        return None
    decision = attempt(cluster, thing, now)
    if decision.status != thing.status:
        try:
            cluster.patch_status(thing, decision.status)
        except Conflict:
            return 0
    for event in decision.events:
        cluster.record(thing, event, now)
    return left if decision.requeue_after is None else decision.requeue_after


def ours(thing: Object) -> bool:
    return getattr(thing.spec, "managed_by", None) in (None, CONTROLLER)


def seconds_to_live(thing: Object, now: datetime) -> float | None:
    """How long a finished object is kept yet; None for ever."""
    ttl, ended = getattr(thing.spec, "ttl_seconds_after_finished", None), getattr(thing.status, "completion_time", None)
    if ttl is None or ended is None or not thing.finished:
        return None
    return ttl - (now - ended).total_seconds()


def attempt(cluster: Cluster, thing: Object, now: datetime) -> Decision[Any]:
    """Decides and acts. What the cluster refuses becomes a condition of the object instead of its status, where somebody
    will look for it; on one machine, the error of the command that somebody is looking at."""
    try:
        decision = decide(cluster, thing, now)
        for action in decision.actions:
            act(cluster, thing, action, now)
    except Refused as refusal:
        if not cluster.is_persistent:
            raise UserError(refusal.message) from None
        return refused(thing, refusal, now)
    return decision


def refused(thing: Object, refusal: Refused, now: datetime) -> Decision[Any]:
    """The object with the refusal as its Ready condition; told as an event once. What is finished says so and no more."""
    if thing.finished:
        return Decision(thing.status, requeue_after=REFUSED_SECONDS)
    told = thing.condition("Ready")
    kept = conditions.put(
        thing.status.conditions, "Ready", False, refusal.reason, refusal.message, now=now,
        generation=thing.metadata.generation,
    )  # fmt: skip
    known = told is not None and (told.reason, told.message) == (refusal.reason, refusal.message)
    events = () if known else (Event(str(refusal.reason), refusal.message, warning=True),)
    return Decision(thing.status.model_copy(update={"conditions": kept}), events=events, requeue_after=REFUSED_SECONDS)


def decide(cluster: Cluster, thing: Object, now: datetime) -> Decision[Any]:
    """Gathers the facts for an object and asks its plan. Raises Refused."""
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
        raise Refused(Reason.STORE_MISSING, "spec.store: missing (a cluster needs to be told where checkpoints go)")
    owned = cluster.children(thing)
    working = any(isinstance(each, Stage) and not each.finished for each in owned)
    return run.Facts(
        stages={each.name: each for each in owned if isinstance(each, Stage)},
        endpoints={each.name: each for each in owned if isinstance(each, Endpoint)},
        data=cluster.data(thing),
        store=store,
        store_state=cluster.store_state(thing) if thing.spec.stages.skip else run.KNOWN,
        report=cluster.report(thing) if owned and not working else run.REPORTED,
        is_persistent=cluster.is_persistent,
    )


def stage_facts(cluster: Cluster, thing: Stage) -> stage.Facts:
    named = [value for value in thing.spec.endpoints.values() if "://" not in value]
    found = {name: cluster.get(Endpoint, name) for name in named}
    job = cluster.job(thing)
    return stage.Facts(
        job=job,
        store=cluster.store_state(thing) if stage.needs_store(thing, job) else actions.StoreView("unknown"),
        progress=cluster.progress(thing, job) if thing.status.attempt else None,
        data=cluster.data(thing),
        endpoints={name: each for name, each in found.items() if each is not None},
    )


def act(cluster: Cluster, thing: Any, action: actions.Action, now: datetime) -> None:
    match action:
        case actions.CreateObject(child):
            create(cluster, thing, child)
        case actions.PatchObject(kind, name, spec, annotations):
            cluster.patch(kind, name, spec=spec, annotations=annotations)
        case actions.DeleteObject(kind, name, uid):
            cluster.delete(kind, name, uid)
        case actions.CreateJob(endpoints, judge_model):
            cluster.create_job(thing, endpoints, judge_model)
        case actions.CancelJob():
            cluster.cancel_job(thing)
        case actions.StartServer(port):
            cluster.start_server(thing, port, now)
        case actions.StopServer():
            cluster.stop_server(thing.name)
        case actions.LoadVersion(version):
            cluster.load_version(thing, version)
        case actions.PrepareData():
            cluster.prepare_data(thing)
        case actions.CheckStore():
            cluster.check_store(thing)
        case actions.WriteReport(finished, children):
            cluster.write_report(finished, children)


def create(cluster: Cluster, owner: Object, child: Object) -> None:
    """Creates a child. One that is there counts when it is ours. Raises Refused for somebody else's."""
    try:
        cluster.create(child)
    except AlreadyExists:
        there = cluster.get(KINDS[child.kind], child.name)
        if there is not None and not there.owned_by(owner):
            message = f"{child.kind} {child.name} exists and is not {owner.name}'s (delete it, or give {owner.name} another name)"
            raise Refused(Reason.NAME_TAKEN, message) from None


class Lister(Protocol):
    def list(self, kind: type[Any]) -> tuple[Any, ...]: ...


def stages(cluster: Lister) -> list[Stage]:
    """Every stage object, in the order of the stages."""
    return [each for name in settings.STAGES for each in cluster.list(STAGE_KINDS[name])]

"""One pass over one object: observe, decide, act, write the status once. The same on one machine and on a cluster.

A Cluster observes and acts; `plan/` decides. Events are recorded after the status that they refer to is written,
because a pass that loses a conflict over the status is repeated and would record them twice. A crash between an action
and the status update repeats the action, so every action is idempotent.
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
from gog_operator.plan import actions, endpoint, run, stage, tool_check
from gog_operator.plan.actions import Decision, Event

REFUSED_SECONDS = 30.0
"""Seconds until the next pass after a refusal, which may need a human to resolve."""


def reconcile(cluster: Cluster, kind: str, name: str, now: datetime) -> float | None:
    """Makes one pass over an object.

    Args:
        cluster: Cluster of the object.
        kind: Kind of the object.
        name: Name of the object, which may no longer exist.
        now: Time of the pass.

    Returns:
        Seconds until another pass is due even without an event; None for no such time.

    Raises:
        Unavailable, Refused, Unreadable: the object could not be read, or its status could not be written.
        UserError: an action was refused on one machine.
    """
    thing = cluster.get(KINDS[kind], name)
    if thing is None:
        if kind == "Endpoint":
            cluster.stop_server(name)
        return None
    if not is_ours(thing):
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


def is_ours(thing: Object) -> bool:
    """Whether no other controller manages the object."""
    return getattr(thing.spec, "managed_by", None) in (None, CONTROLLER)


def seconds_to_live(thing: Object, now: datetime) -> float | None:
    """Seconds until a finished object is deleted; None for never."""
    ttl, ended = getattr(thing.spec, "ttl_seconds_after_finished", None), getattr(thing.status, "completion_time", None)
    if ttl is None or ended is None or not thing.finished:
        return None
    return ttl - (now - ended).total_seconds()


def attempt(cluster: Cluster, thing: Object, now: datetime) -> Decision[Any]:
    """Decides and acts. A refusal becomes a condition of the object; on one machine the command fails with it."""
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
    """Reports a refusal in the Ready condition, and by an event the first time. A finished object is unchanged."""
    if thing.finished:
        return Decision(thing.status, requeue_after=REFUSED_SECONDS)
    ready = thing.condition("Ready")
    changed = conditions.put(
        thing.status.conditions, "Ready", False, refusal.reason, refusal.message, now=now,
        generation=thing.metadata.generation,
    )  # fmt: skip
    known = ready is not None and (ready.reason, ready.message) == (refusal.reason, refusal.message)
    events = () if known else (Event(str(refusal.reason), refusal.message, warning=True),)
    return Decision(
        thing.status.model_copy(update={"conditions": changed}), events=events, requeue_after=REFUSED_SECONDS
    )


def decide(cluster: Cluster, thing: Object, now: datetime) -> Decision[Any]:
    """Collects the facts about an object and plans. Raises Refused."""
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
        raise Refused(Reason.STORE_MISSING, "spec.store: missing (on a cluster, checkpoints are written to it)")
    owned = cluster.children(thing)
    working = any(isinstance(each, Stage) and not each.finished for each in owned)
    return run.Facts(
        stages={each.name: each for each in owned if isinstance(each, Stage)},
        endpoints={each.name: each for each in owned if isinstance(each, Endpoint)},
        data=cluster.data(thing),
        store=store,
        store_state=cluster.store_state(thing) if thing.spec.stages.skip else run.KNOWN,
        report=cluster.report(thing) if owned and not working else run.REPORTED,
        tool_check=tool_check_view(cluster, thing, has_stages=any(isinstance(each, Stage) for each in owned)),
        is_persistent=cluster.is_persistent,
    )


def tool_check_view(cluster: Cluster, thing: GoGRun, *, has_stages: bool) -> actions.ToolCheckView:
    """The check of a run's tools, which precedes its first stage."""
    if has_stages or thing.finished or not tool_check.is_due(thing):
        return actions.ToolCheckView("skipped")
    return cluster.tool_check(thing) if thing.status.tool_check.number else actions.ToolCheckView("absent")


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
        case actions.CheckTools(urls):
            cluster.check_tools(thing, urls)
        case actions.WriteReport(finished, children):
            cluster.write_report(finished, children)


def create(cluster: Cluster, owner: Object, child: Object) -> None:
    """Creates a child; accepts an existing one of the same owner. Raises Refused if another owner's has the name."""
    try:
        cluster.create(child)
    except AlreadyExists:
        existing = cluster.get(KINDS[child.kind], child.name)
        if existing is not None and not existing.owned_by(owner):
            message = f"{child.kind} {child.name} exists and is not {owner.name}'s (delete it, or give {owner.name} another name)"
            raise Refused(Reason.NAME_TAKEN, message) from None


class Lister(Protocol):
    """The part of a Cluster that `stages` needs."""

    def list(self, kind: type[Any]) -> tuple[Any, ...]: ...


def stages(cluster: Lister) -> list[Stage]:
    """Every stage object, in the order in which stages run."""
    return [each for name in settings.STAGES for each in cluster.list(STAGE_KINDS[name])]

"""One pass over one object: observe, decide, act, write the status once. The same on one machine and on a cluster.

A Cluster observes and acts; `plan/` decides. Events are recorded after the status that they refer to is written,
because a pass that loses a conflict over the status is repeated and would record them twice. A crash between an action
and the status update repeats the action, so every action is idempotent.

A look is a pass over objects that may be outdated (`cluster/object_cache.py`). Most passes over a running stage and its run
only write new figures, and need no more. Whatever else a look finds, a pass over current objects decides: it acts, counts
attempts, changes conditions.
"""

from __future__ import annotations

import dataclasses
from datetime import datetime
from typing import Any, Protocol

from gog import spec as settings
from gog.errors import UserError
from gog_operator.api import conditions, presets
from gog_operator.api.meta import ARTIFACTS, CONTROLLER, Reason
from gog_operator.api.objects import KINDS, STAGE_KINDS, GoGRun, Object, Stage, Status, ToolServer
from gog_operator.build import agents
from gog_operator.cluster.documents import Unreadable
from gog_operator.cluster.interface import AlreadyExists, Cluster, Conflict, Refused, Unavailable
from gog_operator.plan import actions, agent, erasure, kstatus, run, serving, stage, tool_check, tool_server
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
        Conflict: the status was changed by another control plane.
        UserError: an action was refused on one machine.
    """
    thing = cluster.get(KINDS[kind], name)
    if thing is None:
        if kind == "ToolServer":
            cluster.stop_server(name)
        return None
    if not is_ours(thing):
        return None
    left = seconds_to_live(thing, now) if cluster.is_persistent and not thing.is_terminating else None
    if left is not None and left <= 0:
        cluster.delete(kind, name, thing.metadata.uid)
        return None
    decision = attempt(cluster, thing, now)
    unchanged = write_status(cluster, thing, kstatus.summarized(thing, decision.status, now))
    for event in decision.events:
        cluster.record(thing, event, now)
    if not unchanged:
        return 0
    return min((each for each in (left, decision.requeue_after) if each is not None), default=None)


def write_status(cluster: Cluster, thing: Object, status: Status) -> bool:
    """Writes a status, also if something else of the object has changed: its actions were done, and its events follow.

    Returns:
        Whether the object was unchanged; otherwise the decision was about an earlier one.

    Raises:
        Conflict: the status has changed, or the object was deleted.
    """
    if status == thing.status:
        return True
    try:
        cluster.patch_status(thing, status)
    except Conflict:
        current = cluster.get(type(thing), thing.name)
        if current is None or current.metadata.uid != thing.metadata.uid or current.status != thing.status:
            raise
        cluster.patch_status(current, status)
        return False
    return True


class Outdated(Exception):
    """A look does not suffice: a pass over current objects is due."""


FIGURES = ("progress", "summary", "checkpoint")
"""Fields of a status that a look may write."""


def look(cluster: Cluster, kind: str, name: str, now: datetime) -> float | None:
    """Makes a pass over objects that may be outdated. It writes figures at most.

    Args:
        cluster: Cluster of the object, whose reads may be outdated.
        kind: Kind of the object.
        name: Name of the object.
        now: Time of the pass.

    Returns:
        Seconds until another pass is due even without an event; None for no such time.

    Raises:
        Outdated: there is more to do.
    """
    try:
        thing = cluster.get(KINDS[kind], name)
        if thing is None:
            raise Outdated
        if not is_ours(thing):
            return None
        left = seconds_to_live(thing, now) if not thing.is_terminating else None
        decision = decide(cluster, thing, now)
        status = kstatus.summarized(thing, decision.status, now)
        expired = left is not None and left <= 0
        if expired or decision.actions or decision.events or not _only_figures(thing.status, status):
            raise Outdated
        if status != thing.status:
            cluster.patch_status(thing, status)
    except (Conflict, Refused, Unavailable, Unreadable):
        raise Outdated from None
    return min((each for each in (left, decision.requeue_after) if each is not None), default=None)


def _only_figures(old: Status, new: Status) -> bool:
    """Whether a status changes nothing but figures."""
    figures = {each: getattr(new, each) for each in FIGURES if each in type(old).model_fields}
    return old.model_copy(update=figures) == new


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
    if isinstance(thing, GoGRun) and thing.is_terminating:
        return erasure.plan(thing, erasure_facts(cluster, thing), now)
    if thing.is_terminating:
        return Decision(thing.status)  # its children are being collected, and it would wait for new ones for ever
    if isinstance(thing, GoGRun):
        decision = run.plan(thing, run_facts(cluster, thing), now)
        held = erasure.finalizer(thing) if cluster.is_persistent else ()
        return dataclasses.replace(decision, actions=(*held, *decision.actions))
    if isinstance(thing, ToolServer) and thing.spec.role == "agent":
        return agent.plan(thing, agent_facts(cluster, thing), now)
    if isinstance(thing, ToolServer):
        return tool_server.plan(
            thing, tool_server.Facts(cluster.server(thing), cluster.data(thing), cluster.wakes), now
        )
    if isinstance(thing, Stage):
        return stage.plan(thing, stage_facts(cluster, thing), now)
    raise TypeError(thing.kind)


def erasure_facts(cluster: Cluster, thing: GoGRun) -> erasure.Facts:
    """Facts about a run that is being deleted. A refusal by the cluster is one, because the deletion must not wait forever."""
    if ARTIFACTS not in thing.metadata.finalizers:
        return erasure.Facts((), erasure.ErasureView("done"))
    try:
        children = cluster.children(thing)
        return erasure.Facts(children, erasure.ErasureView("waiting") if children else cluster.erasure(thing))
    except Refused as refusal:
        forbidden = refusal.reason == Reason.NAMESPACE_ENDING
        return erasure.Facts((), erasure.ErasureView("forbidden" if forbidden else "failed", refusal.message))


def run_facts(cluster: Cluster, thing: GoGRun) -> run.Facts:
    store = thing.spec.store or cluster.default_store()
    if store is None:
        raise Refused(Reason.STORE_MISSING, "spec.store: missing (on a cluster, checkpoints are written to it)")
    owned = cluster.children(thing)
    working = any(isinstance(each, Stage) and not each.finished for each in owned)
    return run.Facts(
        stages={each.name: each for each in owned if isinstance(each, Stage)},
        tool_servers={each.name: each for each in owned if isinstance(each, ToolServer)},
        data=cluster.data(thing),
        store=store,
        sources=run.FETCHED if thing.finished or thing.holds("ModelFetched") else cluster.sources(thing),
        store_state=cluster.store_state(thing) if thing.spec.stages.skip else run.KNOWN,
        report=cluster.report(thing) if owned and not working else run.REPORTED,
        tool_check=tool_check_view(cluster, thing, has_stages=any(isinstance(each, Stage) for each in owned)),
        is_persistent=cluster.is_persistent,
        serving=serving_facts(cluster, thing, store) if serving.is_due(thing) else run.NO_AGENT,
        job_ttl_seconds=cluster.job_ttl_seconds,
    )


def serving_facts(cluster: Cluster, thing: GoGRun, store: settings.StoreSpec) -> serving.Facts:
    name = agents.name_of(thing)
    given = thing.spec.serve.store if thing.spec.serve is not None else None
    return serving.Facts(
        agent=cluster.get(ToolServer, name),
        publication=cluster.publication(thing),
        store=given or cluster.agent_store(thing, name) or store,
    )


def agent_facts(cluster: Cluster, thing: ToolServer) -> agent.Facts:
    owned = {each.name: each for each in cluster.children(thing) if isinstance(each, ToolServer)}
    tries = bool(thing.status.canary.version and thing.status.url)
    return agent.Facts(cluster.server(thing), owned, cluster.chats(thing) if tries else None, cluster.wakes)


def tool_check_view(cluster: Cluster, thing: GoGRun, *, has_stages: bool) -> actions.ToolCheckView:
    """The check of a run's tools, which precedes its first stage."""
    if has_stages or thing.finished or not tool_check.is_due(thing):
        return actions.ToolCheckView("skipped")
    return cluster.tool_check(thing) if thing.status.tool_check.number else actions.ToolCheckView("absent")


def stage_facts(cluster: Cluster, thing: Stage) -> stage.Facts:
    named = [value for value in thing.spec.endpoints.values() if "://" not in value]
    found = {name: cluster.get(ToolServer, name) for name in named}
    job = cluster.job(thing)
    return stage.Facts(
        job=job,
        store=cluster.store_state(thing) if stage.needs_store(thing, job) else actions.StoreView("unknown"),
        progress=cluster.progress(thing, job) if thing.status.attempt else None,
        data=cluster.data(thing),
        tool_servers={name: each for name, each in found.items() if each is not None},
        wakes=cluster.wakes,
        launcher=cluster.launcher(thing),
        job_ttl_seconds=cluster.job_ttl_seconds,
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
        case actions.FetchSources():
            cluster.fetch_sources(thing)
        case actions.CheckStore():
            cluster.check_store(thing)
        case actions.CheckTools(urls):
            cluster.check_tools(thing, urls)
        case actions.EraseArtifacts():
            cluster.erase_artifacts(thing)
        case actions.RemoveJobs():
            cluster.remove_jobs(thing)
        case actions.SetFinalizer(name, present):
            others = tuple(each for each in thing.metadata.finalizers if each != name)
            cluster.set_finalizers(thing, (*others, name) if present else others)
        case actions.Publish(asked, store):
            cluster.publish(thing, asked, store)
        case actions.SetRoutes(routes):
            cluster.set_routes(thing, routes)
        case actions.WriteReport(finished, children):
            cluster.write_report(finished, children)


def create(cluster: Cluster, owner: Object, child: Object) -> None:
    """Creates a child; accepts an existing one of the same owner. Raises Refused if another owner's has the name."""
    child = with_preset(cluster, owner, child)
    try:
        cluster.create(child)
    except AlreadyExists:
        existing = cluster.get(KINDS[child.kind], child.name)
        if existing is not None and not existing.owned_by(owner):
            message = f"{child.kind} {child.name} exists and is not {owner.name}'s (delete it, or give {owner.name} another name)"
            raise Refused(Reason.NAME_TAKEN, message) from None


def with_preset(cluster: Cluster, owner: Object, child: Object) -> Object:
    """A child with the content of the preset that its run names, if it names one. Raises Refused if there is none."""
    name = owner.spec.runtime if isinstance(owner, GoGRun) else None
    preset = cluster.preset(name) if name is not None else None
    return presets.applied(child, preset) if preset is not None else child


class Lister(Protocol):
    """The part of a Cluster that `stages` needs."""

    def list(self, kind: type[Any]) -> tuple[Any, ...]: ...


def stages(cluster: Lister) -> list[Stage]:
    """Every stage object, in the order in which stages run."""
    return [each for name in settings.STAGES for each in cluster.list(STAGE_KINDS[name])]

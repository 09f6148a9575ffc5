"""A run: its servers, then its stages, one after the other.

A stage is created once the one before it is complete, with the checkpoints it starts from written into it. The servers
live from the first stage to the last, because starting them costs more than keeping them. When anything fails for
good, or a person cancels, what still runs is ended first and the run is Failed afterwards: a finished run has no
processes. The run reads its children's conditions and nothing below them.

Where things go on when a run is over (a cluster), the last of a run is to have its policy served, when it asks for
that, and its report written.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from gog import catalog
from gog import spec as settings
from gog_operator.api import sequence
from gog_operator.api.meta import CANCEL, Reason
from gog_operator.api.objects import Endpoint, GoGRun, RunStatus, Stage
from gog_operator.build import children
from gog_operator.plan import changes, data, endpoint, summary
from gog_operator.plan.actions import (
    Action,
    CheckStore,
    CreateObject,
    DataView,
    Decision,
    DeleteObject,
    Event,
    PatchObject,
    ReportView,
    StoreView,
    WriteReport,
)

WORKING = {stage.name: Reason(stage.reason) for stage in catalog.STAGES}


KNOWN, REPORTED = StoreView("known"), ReportView("done")


@dataclass(frozen=True)
class Facts:
    """stages, endpoints: those that the run owns, by name. store_state: what the store holds of skipped stages. store: the
    manifest's, or the cluster's default. is_persistent: whether things go on here when the run is over."""

    stages: Mapping[str, Stage]
    endpoints: Mapping[str, Endpoint]
    data: DataView
    store: settings.StoreSpec
    store_state: StoreView = KNOWN
    report: ReportView = REPORTED
    is_persistent: bool = False


def plan(run: GoGRun, facts: Facts, now: datetime) -> Decision[RunStatus]:
    """One rule after the other; the first that applies decides."""
    if run.finished:
        return Decision(run.status, _wind_down(facts, keep=_served(run, facts) if run.holds("Complete") else ""))
    run = changes.update(run, start_time=run.status.start_time or now, observed_generation=run.metadata.generation)
    ending = _reason_to_end(run, facts)
    if ending:
        return _end(run, facts, *ending, now)
    if run.spec.suspend:
        return _suspend(run, facts, now)
    if run.holds("Suspended"):
        run = changes.with_conditions(run, Suspended=(False, Reason.RESUMED, ""), now=now)
    if run.spec.stages.skip and facts.store_state.state != "known":
        return _wait_for_store_check(run, facts, now)
    if not data.ready(run.spec.data, facts.data):
        waits, events = changes.waiting(run, False, Reason.PREPARING, "makes the dataset", facts.data.blocked, now)
        return Decision(waits.status, data.preparation(run.spec.data, facts.data), events)
    return _advance(run, facts, now)


def _reason_to_end(run: GoGRun, facts: Facts) -> tuple[Reason, str] | None:
    """Why the run cannot or shall not go on. Stages come last: they end when something else ends the run."""
    if run.cancelled:
        return Reason.CANCELLED, "cancelled"
    if data_failure := data.failure(facts.data):
        return Reason.DATA_FAILED, data_failure
    if run.spec.stages.skip and facts.store_state.state == "failed":
        return Reason.STORE_FAILED, f"the store cannot be looked into: {facts.store_state.message}"
    for each in facts.endpoints.values():
        if endpoint.failed(each):
            progressing = each.condition("Progressing")
            return Reason.SERVER_FAILED, progressing.message if progressing else ""
    for stage in facts.stages.values():
        failed = stage.condition("Failed")
        if failed is not None and failed.status == "True":
            return Reason.STAGE_FAILED, f"{stage.store_key}: {failed.message}"
    return None


def _wait_for_store_check(run: GoGRun, facts: Facts, now: datetime) -> Decision[RunStatus]:
    """Skipped stages' checkpoints are looked for first: what comes after starts from them."""
    looks, events = changes.waiting(run, False, Reason.CHECKING, "looks into the store", facts.store_state.blocked, now)
    return Decision(looks.status, (CheckStore(),) if facts.store_state.state == "unknown" else (), events)


def _end(run: GoGRun, facts: Facts, reason: Reason, message: str, now: datetime) -> Decision[RunStatus]:
    """Ends what runs; once nothing does, the run is Failed."""
    actions = _wind_down(facts)
    if any(not stage.finished for stage in facts.stages.values()):
        return Decision(changes.with_conditions(run, Ready=(False, reason, message), now=now).status, actions)
    failed = changes.with_conditions(run, Failed=(True, reason, message), Ready=(False, reason, message), now=now)
    event = Event(str(reason), f"{run.name} failed: {message}", warning=True)
    return Decision(changes.update(failed, completion_time=now).status, actions, (event,))


def _wind_down(facts: Facts, keep: str = "") -> tuple[Action, ...]:
    """Cancels unfinished stages; takes the servers away when there are none. keep: name of one that stays."""
    unfinished = [stage for stage in facts.stages.values() if not stage.finished]
    if unfinished:
        return tuple(
            PatchObject(stage.kind, stage.name, annotations={CANCEL: "run"})
            for stage in unfinished
            if not stage.cancelled
        )
    return _without_servers(facts, keep)


def _without_servers(facts: Facts, keep: str = "") -> tuple[Action, ...]:
    return tuple(
        DeleteObject("Endpoint", name, each.metadata.uid) for name, each in facts.endpoints.items() if name != keep
    )


def _suspend(run: GoGRun, facts: Facts, now: datetime) -> Decision[RunStatus]:
    """Hands the wish down; the servers go once no stage works any more."""
    working = [stage for stage in facts.stages.values() if not stage.finished and not stage.holds("Suspended")]
    if working:
        patches = _set_suspend(working, True)
        return Decision(changes.with_conditions(run, Ready=(False, Reason.SUSPENDED, "stops"), now=now).status, patches)
    held = changes.with_conditions(
        run, Suspended=(True, Reason.SUSPENDED, ""), Ready=(False, Reason.SUSPENDED, ""), now=now
    )
    events = () if run.holds("Suspended") else (Event("Suspended", f"{run.name} is suspended"),)
    return Decision(held.status, _without_servers(facts), events)


def _set_suspend(stages: list[Stage], wanted: bool) -> tuple[Action, ...]:
    return tuple(
        PatchObject(stage.kind, stage.name, spec={"suspend": wanted})
        for stage in stages
        if stage.spec.suspend != wanted
    )


def _advance(run: GoGRun, facts: Facts, now: datetime) -> Decision[RunStatus]:
    """Creates what is missing: endpoints, and the first stage that is not complete."""
    planned = sequence.steps(run)
    actions: list[Action] = list(_set_suspend([s for s in facts.stages.values() if not s.finished], False))
    if sequence.tools_needed(planned):
        actions += [
            CreateObject(each) for each in children.endpoints(run, facts.store) if each.name not in facts.endpoints
        ]
    for step in planned:
        stage = facts.stages.get(step.name)
        if stage is None:
            inputs = _inputs(step, planned, facts)
            actions.append(CreateObject(children.stage(run, step, inputs, facts.store)))
            return Decision(_current(run, step, None, now), tuple(actions), (_starts(step, inputs),))
        if not stage.finished:
            return Decision(_current(run, step, stage, now), tuple(actions), _retries(run, step, stage))
    return _finish(run, facts, now)


def _starts(step: sequence.Step, inputs: Mapping[str, str]) -> Event:
    where = f" from {' and '.join(inputs.values())}" if inputs else ""
    return Event("StageStarted", f"{step.key} starts{where}")


def _retries(run: GoGRun, step: sequence.Step, stage: Stage) -> tuple[Event, ...]:
    """A stage's failed attempt, told of the run, too, once."""
    ready, told = stage.condition("Ready"), run.condition("Ready")
    if ready is None or ready.reason != Reason.RETRYING or (told is not None and told.message == ready.message):
        return ()
    where = f"; goes on from {stage.status.checkpoint}" if stage.status.checkpoint else "; starts again"
    return (Event("Retrying", f"{step.key}: {ready.message}{where}", warning=True),)


def _inputs(step: sequence.Step, planned: tuple[sequence.Step, ...], facts: Facts) -> dict[str, str]:
    """The checkpoints that a stage starts from: of stages that ran, or that the store held already."""
    names = {each.key: each.name for each in planned}
    found = {}
    for kind, key in step.needs.items():
        stage = facts.stages.get(names.get(key, ""))
        kept = facts.store_state.checkpoints.get(key)
        ref = stage.status.checkpoint if stage is not None else kept.ref if kept is not None else ""
        if ref:
            found[kind] = ref
    return found


def _current(run: GoGRun, step: sequence.Step, stage: Stage | None, now: datetime) -> RunStatus:
    """The run's status while a stage is current; stage: None before it is seen."""
    ready = stage.condition("Ready") if stage is not None else None
    message = ready.message if ready is not None else ""
    working = changes.with_conditions(run, Ready=(True, WORKING[step.stage], message), now=now)
    figures = summary.of_run(step.key, stage, run.status.summary)
    return changes.update(working, stage=step.name, summary=figures).status


def _finish(run: GoGRun, facts: Facts, now: datetime) -> Decision[RunStatus]:
    """All stages are complete: serve the policy, write the report, be complete."""
    done = changes.with_conditions(
        run, Complete=(True, Reason.COMPLETE, ""), Ready=(False, Reason.COMPLETE, ""), now=now
    )
    last = facts.stages.get(run.status.stage)
    figures = summary.of_run(last.store_key, last, run.status.summary) if last is not None else run.status.summary
    done = changes.update(done, completion_time=now, summary=figures)
    if facts.is_persistent:
        serving = _serve(run, facts)
        if serving is not None:
            waiting = changes.with_conditions(run, Ready=(True, Reason.SERVING, "loads the policy"), now=now)
            return Decision(waiting.status, serving)
        if facts.report.state in ("absent", "writing"):
            waits, told = changes.waiting(run, True, Reason.REPORTING, "writes the report", facts.report.blocked, now)
            report = WriteReport(done, (*facts.stages.values(), *facts.endpoints.values()))
            return Decision(waits.status, (report,) if facts.report.state == "absent" else (), told)
    events = [Event("Complete", f"{run.name} is complete")]
    if facts.report.state == "failed":
        events.insert(0, Event("ReportFailed", f"no report: {facts.report.message}", warning=True))
    return Decision(done.status, _without_servers(facts, keep=_served(run, facts)), tuple(events))


def _served(run: GoGRun, facts: Facts) -> str:
    """Name of the endpoint that goes on serving the policy when the run is complete; "" for none."""
    return children.policy_name(run) if facts.is_persistent and run.spec.endpoints.policy is not None else ""


def _serve(run: GoGRun, facts: Facts) -> tuple[Action, ...] | None:
    """What brings the policy's endpoint to the newest trained checkpoint; None when it serves that, or none is asked
    for, or nothing was trained."""
    name, version = _served(run, facts), _trained(run, facts)
    if not name or not version:
        return None
    there = facts.endpoints.get(name)
    if there is None:
        return (CreateObject(children.policy(run, facts.store, version)),)
    if there.spec.version != version:
        return (PatchObject(there.kind, name, spec={"version": version}),)
    ready = there.holds("Ready") and (there.status.version == version or there.spec.url is not None)
    return None if ready else ()


def _trained(run: GoGRun, facts: Facts) -> str:
    """The checkpoint that the run was made for: of GRPO, or of SFT where that was left out."""
    for kind in ("grpo", "sft"):
        stage = next((each for each in facts.stages.values() if each.store_key == kind), None)
        if stage is not None and stage.status.checkpoint:
            return stage.status.checkpoint
    return ""

"""A run: its servers, then its stages, one after the other. Pure.

A stage is created when the one before it is complete, with the checkpoints that it starts from written into its spec.
The servers live from the first stage to the last, because a restart costs more than keeping them. A stage that fails for
good ends the stages that start from its checkpoints; those of other arms go on, and the run is Failed after them. When a
server fails or the run is cancelled, running stages are ended first and the run is Failed afterwards: a finished run has
no processes. A run reads the conditions of its children and nothing below them.

On a persistent cluster a run ends with its report, also when it fails. Where its spec asks for that, its policy is served
then. Whether that succeeds is the condition Served, and changes nothing about the run: it is Complete once it is trained.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from gog import catalog
from gog import spec as settings
from gog_operator.api import sequence
from gog_operator.api.meta import CANCEL, Reason
from gog_operator.api.objects import GoGRun, RunStatus, Stage, ToolServer
from gog_operator.build import children
from gog_operator.plan import (
    attempts,
    changes,
    data,
    images,
    job_ttl,
    preparation,
    served_policy,
    serving,
    sources,
    summary,
    tool_check,
    tool_server,
)
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
    SourcesView,
    StoreView,
    ToolCheckView,
    WriteReport,
)

WORKING = {stage.name: Reason(stage.reason) for stage in catalog.STAGES}
"""Reason of a run's Ready condition while a stage works."""
UNBLOCKED = (Reason.PREPARING, Reason.WAITING, Reason.CHECKING, Reason.RETRYING, Reason.SUSPENDED)
"""Reasons of a stage that is not ready and yet not blocked."""
KNOWN, REPORTED, SKIPPED = StoreView("known"), ReportView("done"), ToolCheckView("skipped")
FETCHED = SourcesView("skipped")
NO_AGENT = serving.Facts()


@dataclass(frozen=True)
class Facts:
    """What was observed of a run."""

    stages: Mapping[str, Stage]
    """Stages that the run owns, by name."""
    tool_servers: Mapping[str, ToolServer]
    """ToolServers that the run owns, by name."""
    data: DataView
    """The dataset."""
    store: settings.StoreSpec
    """The manifest's store, or the cluster's default."""
    store_state: StoreView = KNOWN
    """What the store holds of skipped stages."""
    report: ReportView = REPORTED
    """The report."""
    is_persistent: bool = False
    """Whether the cluster outlives the run, so that a policy can be served afterwards."""
    sources: SourcesView = FETCHED
    """The fetch of its sources into the model cache."""
    tool_check: ToolCheckView = SKIPPED
    """The check of its tools."""
    serving: serving.Facts = NO_AGENT
    """Its agent."""
    job_ttl_seconds: int | None = None
    """Seconds that ended jobs are kept where the spec does not say; None for ever."""


def plan(run: GoGRun, facts: Facts, now: datetime) -> Decision[RunStatus]:
    """What to do about a run. The first rule that applies decides."""
    if run.finished:
        ended = _serve(run, facts, now) if run.holds("Complete") else Decision(run.status, _wind_down(facts))
        return ended if serving.is_due(run) else job_ttl.plan(run, ended, facts.job_ttl_seconds, now)
    run = changes.update(
        run,
        start_time=run.status.start_time or now,
        observed_generation=run.metadata.generation,
        images=images.of_run(run, facts.stages.values()),
    )
    failed_check = None if run.spec.suspend else tool_check.failure(run, facts.tool_check)
    if failed_check is not None:
        unchecked = (False, failed_check.reason, failed_check.message)
        run = changes.with_conditions(run, ToolsChecked=unchecked, now=now)
    failure = _failure(run, facts)
    if failure is None and failed_check is not None:
        failure = (failed_check.reason, failed_check.message)
    if failure is not None:
        return _end(run, facts, *failure, now)
    if run.spec.suspend:
        return _suspend(run, facts, now)
    if run.holds("Suspended"):
        run = changes.with_conditions(run, Suspended=(False, Reason.RESUMED, ""), now=now)
    if run.spec.stages.skip and facts.store_state.state != "known":
        return _wait_for_store_check(run, facts, now)
    if not sources.ready(run, facts.sources):
        return sources.plan(run, facts.sources, now)
    if not data.ready(run.spec.data, facts.data):
        return data.plan(run, facts.data, "preparing the dataset", now)
    return _advance(preparation.over(run), facts, now)


def _failure(run: GoGRun, facts: Facts) -> tuple[Reason, str] | None:
    """Why the run is ended before its stages are; None if it is not."""
    if run.cancelled:
        return Reason.CANCELLED, "cancelled"
    if data_failure := data.failure(facts.data):
        return Reason.DATA_FAILED, data_failure
    if source_failure := sources.failure(run, facts.sources):
        return Reason.FETCH_FAILED, source_failure
    if run.spec.stages.skip and facts.store_state.state == "failed":
        return Reason.STORE_FAILED, f"the store cannot be checked: {facts.store_state.message}"
    if _is_trained(run, facts):
        return None
    for each in facts.tool_servers.values():
        server_failure = tool_server.failure(each)
        if server_failure is not None:
            return Reason.SERVER_FAILED, server_failure
    return None


def _is_trained(run: GoGRun, facts: Facts) -> bool:
    """Whether every stage is complete, so that a server which fails takes nothing away."""
    names = {each.name for each in facts.stages.values() if each.holds("Complete")}
    return bool(names) and all(step.name in names for step in sequence.steps(run))


def _wait_for_store_check(run: GoGRun, facts: Facts, now: datetime) -> Decision[RunStatus]:
    """The checkpoints of skipped stages are looked up first, because later stages start from them."""
    ready = (False, Reason.CHECKING, "checking the store for the checkpoints of skipped stages")
    run, events = changes.with_ready(run, ready, facts.store_state.blocked, now)
    return Decision(run.status, (CheckStore(),) if facts.store_state.state == "unknown" else (), events)


def _end(run: GoGRun, facts: Facts, reason: Reason, message: str, now: datetime) -> Decision[RunStatus]:
    """Ends running stages; when none is left, writes the report, and then the run is Failed. The ToolServers are kept until
    then, because one that failed is why the run ends."""
    ready = (False, reason, message)
    if any(not stage.finished for stage in facts.stages.values()):
        return Decision(changes.with_conditions(run, Ready=ready, now=now).status, _wind_down(facts))
    failed = changes.with_conditions(run, Failed=(True, reason, message), Ready=ready, now=now)
    failed = changes.update(failed, completion_time=now)
    if (reporting := _report(run, failed, facts, ready, now)) is not None:
        return reporting
    event = Event(str(reason), f"{run.name} failed: {message}", warning=True)
    return Decision(failed.status, _wind_down(facts), (*_report_event(facts), event))


def _report(
    run: GoGRun, ended: GoGRun, facts: Facts, ready: tuple[bool, Reason, str], now: datetime
) -> Decision[RunStatus] | None:
    """What to do until the report is written; None once it is, or cannot be.

    Args:
        run: The run as it is.
        ended: The run as it will be.
        facts: What was observed.
        ready: Its Ready condition meanwhile.
        now: The time.
    """
    if not facts.is_persistent or facts.report.state not in ("absent", "writing"):
        return None
    waiting, blocked = changes.with_ready(run, ready, facts.report.blocked, now)
    report = WriteReport(ended, (*facts.stages.values(), *facts.tool_servers.values()))
    return Decision(waiting.status, (report,) if facts.report.state == "absent" else (), blocked)


def _report_event(facts: Facts) -> tuple[Event, ...]:
    """The event that the report could not be written."""
    if facts.report.state != "failed":
        return ()
    return (Event("ReportFailed", f"the report could not be written: {facts.report.message}", warning=True),)


def _wind_down(facts: Facts, keep: str = "") -> tuple[Action, ...]:
    """Cancels unfinished stages; when there are none, deletes the ToolServers but the one called `keep`."""
    unfinished = [stage for stage in facts.stages.values() if not stage.finished]
    if unfinished:
        return tuple(
            PatchObject(stage.kind, stage.name, annotations={CANCEL: "yes"})
            for stage in unfinished
            if not stage.cancelled
        )
    return _without_servers(facts, keep)


def _without_servers(facts: Facts, keep: str = "") -> tuple[Action, ...]:
    return tuple(
        DeleteObject("ToolServer", name, each.metadata.uid) for name, each in facts.tool_servers.items() if name != keep
    )


def _suspend(run: GoGRun, facts: Facts, now: datetime) -> Decision[RunStatus]:
    """Suspends the stages; when none works, deletes the ToolServers."""
    working = [stage for stage in facts.stages.values() if not stage.finished and not stage.holds("Suspended")]
    if working:
        patches = tuple(
            PatchObject(each.kind, each.name, spec={"suspend": True}) for each in working if not each.spec.suspend
        )
        return Decision(
            changes.with_conditions(run, Ready=(False, Reason.SUSPENDED, "suspending"), now=now).status, patches
        )
    held = changes.with_conditions(
        run, Suspended=(True, Reason.SUSPENDED, ""), Ready=(False, Reason.SUSPENDED, ""), now=now
    )
    # The patience with tools that are down begins anew when the run resumes: it may be suspended to repair them.
    held = changes.update(held, tool_check=run.status.tool_check.model_copy(update={"waited_seconds": 0.0}))
    events = () if run.holds("Suspended") else (Event("Suspended", f"{run.name} is suspended"),)
    return Decision(held.status, _without_servers(facts), events)


def _is_held(stage: Stage) -> bool:
    return stage.spec.suspend and not stage.finished


def _resume(run: GoGRun, stage: Stage, step: sequence.Step) -> Action:
    """Resumes a stage, in the present place and size of the run, which may have changed meanwhile."""
    moved, (resized, noted) = children.scheduling_patch(stage, run), children.resizing(stage, step, run)
    changed = {name: each for name, each in (("scheduling", moved), ("workers", resized)) if each}
    return PatchObject(stage.kind, stage.name, spec={"suspend": False} | changed, annotations=noted)


def _advance(run: GoGRun, facts: Facts, now: datetime) -> Decision[RunStatus]:
    """Creates what is missing: ToolServers, and the first stage that is not complete."""
    planned = sequence.steps(run)
    held = {name: each for name, each in facts.stages.items() if _is_held(each)}
    actions: list[Action] = [_resume(run, held[step.name], step) for step in planned if step.name in held]
    if sequence.tools_needed(planned):
        actions += [
            CreateObject(each)
            for each in children.tool_servers(run, facts.store)
            if each.name not in facts.tool_servers
        ]
    if facts.tool_check.state == "passed":
        return tool_check.passed(run, facts.tool_check, tuple(actions), now)
    if facts.tool_check.state != "skipped":
        return tool_check.plan(run, facts.tool_servers, facts.tool_check, tuple(actions), now)
    failures = _failures(planned, facts)
    for step in planned:
        stage = facts.stages.get(step.name)
        if step.key in failures:
            continue
        if stage is None or not stage.finished:
            actions += _start_vllm(run, step, facts)
        inputs = _inputs(step, planned, facts)
        # By the status, not by the stage's creation: the stage exists where an earlier pass lost a conflict over the status.
        started = () if run.status.stage == step.name else (_start_event(step, inputs),)
        if stage is None:
            actions.append(CreateObject(children.stage(run, step, inputs, facts.store)))
            return Decision(_current(run, step, None, now), tuple(actions), started)
        if not stage.finished:
            events = (*started, *_retry_event(run, step, stage))
            return Decision(_current(run, step, stage, now), tuple(actions), events)
    if failures:
        return _end(run, facts, Reason.STAGE_FAILED, _failed_message(failures), now)
    return _finish(run, facts, planned, now)


def _failures(planned: tuple[sequence.Step, ...], facts: Facts) -> dict[str, str]:
    """Keys of the steps that failed, each with the cause, and of those that start from one that failed, with ""."""
    found: dict[str, str] = {}
    for step in planned:
        stage = facts.stages.get(step.name)
        failed = stage.condition("Failed") if stage is not None else None
        if failed is not None and failed.status == "True":
            found[step.key] = failed.message
        elif stage is None and any(key in found for key in step.needs.values()):
            found[step.key] = ""
    return found


def _failed_message(failures: Mapping[str, str]) -> str:
    return "; ".join(f"{key}: {cause}" for key, cause in failures.items() if cause)


def _start_vllm(run: GoGRun, step: sequence.Step, facts: Facts) -> list[Action]:
    """Creates the ToolServer of a vLLM for the first stage that samples from it, because it takes memory that the stages
    before it may need."""
    if not children.starts_vllm(run, step) or children.policy_name(run) in facts.tool_servers:
        return []
    return [CreateObject(children.vllm(run, facts.store))]


def _start_event(step: sequence.Step, inputs: Mapping[str, str]) -> Event:
    where = f" from {' and '.join(inputs.values())}" if inputs else ""
    return Event("StageStarted", f"{step.key} starts{where}")


def _retry_event(run: GoGRun, step: sequence.Step, stage: Stage) -> tuple[Event, ...]:
    """The event that an attempt of the stage failed, on the run, too, once."""
    ready, known = stage.condition("Ready"), run.condition("Ready")
    if ready is None or ready.reason != Reason.RETRYING or (known is not None and known.message == ready.message):
        return ()
    follows = attempts.resumption(stage.stage, stage.status.checkpoint)
    return (Event("Retrying", f"{step.key}: {ready.message}; the next attempt {follows}", warning=True),)


def _inputs(step: sequence.Step, planned: tuple[sequence.Step, ...], facts: Facts) -> dict[str, str]:
    """The checkpoints that a stage starts from: those of stages that ran, or those that the store held before."""
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
    """The run's status while a stage is current. It is ready while the stage works or retries, and not while the stage
    is blocked. stage: None before it exists."""
    ready = stage.condition("Ready") if stage is not None else None
    message = ready.message if ready is not None else ""
    if ready is not None and ready.status == "False" and ready.reason not in UNBLOCKED:
        state = (False, ready.reason, f"{step.key}: {message}")
    else:
        state = (True, WORKING[step.stage], message)
    working = changes.with_conditions(run, Ready=state, now=now)
    figures = summary.of_run(step.key, stage, run.status.summary)
    return changes.update(working, stage=step.name, summary=figures).status


def _finish(run: GoGRun, facts: Facts, planned: tuple[sequence.Step, ...], now: datetime) -> Decision[RunStatus]:
    """All stages are complete: writes the report, completes the run, and begins to serve the policy."""
    done = changes.with_conditions(
        run, Complete=(True, Reason.COMPLETE, ""), Ready=(True, Reason.COMPLETE, ""), now=now
    )
    if planned:  # no status may have been written while the last one worked
        last = facts.stages[planned[-1].name]
        done = changes.update(done, stage=last.name, summary=summary.of_run(last.store_key, last, run.status.summary))
    done = changes.update(done, completion_time=now)
    ready = (True, Reason.REPORTING, "writing the report")
    if (reporting := _report(run, done, facts, ready, now)) is not None:
        return reporting
    events = (*_report_event(facts), Event("Complete", f"{run.name} is complete"))
    served = _serve(done, facts, now)
    return Decision(served.status, served.actions, (*events, *served.events), served.requeue_after)


def _serve(run: GoGRun, facts: Facts, now: datetime) -> Decision[RunStatus]:
    """Makes the policy's ToolServer serve the newest trained checkpoint, where the spec asks for that and something was
    trained; deletes the other ToolServers. Serving is reported in the condition Served."""
    if run.spec.serve is not None and facts.serving is NO_AGENT:  # which is observed from the next pass on
        return Decision(run.status, _without_servers(facts), requeue_after=0 if serving.is_due(run) else None)
    if run.spec.serve is not None:
        evaluated = next((each.status.checkpoint for each in facts.stages.values() if each.store_key == "evaluate"), "")
        checkpoints = (_trained(run, facts), evaluated)
        return serving.plan(run, facts.serving, facts.data, checkpoints, _without_servers(facts), now)
    name = _served(run, facts)
    server, actions = facts.tool_servers.get(name), _without_servers(facts, keep=name)
    version = served_policy.served_version(server, _trained(run, facts), facts.stages.values())
    if not name or not version:
        return Decision(run.status, actions)
    return served_policy.plan(run, server, version, facts.store, actions, now)


def _served(run: GoGRun, facts: Facts) -> str:
    """Name of the ToolServer that serves the policy after the run is complete; empty for none."""
    return children.policy_name(run) if facts.is_persistent and run.spec.endpoints.policy is not None else ""


def _trained(run: GoGRun, facts: Facts) -> str:
    """The run's trained checkpoint: of GRPO, or of SFT where GRPO was skipped. Empty without one."""
    key = next((each for each in ("grpo", "sft") if each not in run.spec.stages.skip), "")
    return next((each.status.checkpoint for each in facts.stages.values() if each.store_key == key), "")

"""One stage: attempts, one after the other, until its last checkpoint is in the store.

The number of an attempt is written to status in one pass and its job is created in a later one, so a control plane
that dies in between finds the number and creates the same job, never a second one. What counts as success is the
checkpoint in the store, not the exit code alone. An attempt that was interrupted (suspended, or lost with the machine)
is followed by the next without being counted as a failure: whatever it committed is where the next one starts. Where
looking into the store takes a job of its own, that look follows every attempt, and nothing is decided before it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from gog import spec as settings
from gog_operator.api.meta import Reason
from gog_operator.api.objects import Endpoint, Progress, Stage, StageStatus
from gog_operator.plan import attempts, changes, data, summary
from gog_operator.plan.actions import (
    CancelJob,
    Checkpoint,
    CheckStore,
    CreateJob,
    DataView,
    Decision,
    Event,
    JobView,
    StoreView,
)

LOOK_SECONDS = 5.0
"""How often a running job is asked how far it has come."""


@dataclass(frozen=True)
class Facts:
    """job: of the current attempt, None when it was never created. store: what it holds of the stage's key, where
    that is needed. endpoints: those that the spec names, by name."""

    job: JobView | None
    store: StoreView
    progress: Progress | None
    data: DataView
    endpoints: Mapping[str, Endpoint] = field(default_factory=dict)

    def checkpoint(self, stage: Stage) -> Checkpoint | None:
        return self.store.checkpoints.get(stage.store_key)


def needs_store(stage: Stage, job: JobView | None) -> bool:
    """Whether it matters what the store holds: once the attempt's job has ended. Until then the job tells of it."""
    return job is not None and job.state != "running" and not stage.finished


def plan(stage: Stage, facts: Facts, now: datetime) -> Decision[StageStatus]:
    """One rule after the other; the first that applies decides."""
    running = facts.job is not None and facts.job.state == "running"
    if stage.finished:
        return Decision(stage.status, (CancelJob(),) if running else ())
    stage = _with_observations(stage, facts)
    if stage.cancelled or stage.spec.suspend:
        return Decision(stage.status, (CancelJob(),)) if running else _stopped(stage, facts, now)
    if stage.holds("Suspended"):
        stage = changes.with_conditions(stage, Suspended=(False, Reason.RESUMED, ""), now=now)
    if facts.job is None:
        return _begin(stage, facts, now)
    if facts.job.state == "running":
        return _watch(stage, facts, now)
    return _handle_job_end(stage, facts, facts.job, now)


def _with_observations(stage: Stage, facts: Facts) -> Stage:
    """The stage with what its process and the store tell of it."""
    update: dict[str, Any] = {"observed_generation": stage.metadata.generation}
    if facts.job is not None:
        update["seen_attempt"] = stage.status.attempt
    if facts.progress is not None:
        update["progress"] = facts.progress
        update["summary"] = summary.of_stage(facts.progress, stage.status.summary)
        if facts.progress.checkpoint is not None:
            update["checkpoint"] = facts.progress.checkpoint.ref
    found = facts.checkpoint(stage)
    if found is not None:
        update["checkpoint"] = found.ref
    return changes.update(stage, **update)


def _begin(stage: Stage, facts: Facts, now: datetime) -> Decision[StageStatus]:
    """No job yet: wait for what it needs, number the attempt, then create the job."""
    if not data.ready(stage.spec.data, facts.data):
        if failure := data.failure(facts.data):
            return _failed(stage, Reason.DATA_FAILED, failure, now)
        waits, events = changes.waiting(
            stage, False, Reason.PREPARING, "waits for the dataset", facts.data.blocked, now
        )
        return Decision(waits.status, data.preparation(stage.spec.data, facts.data), events)
    missing = unready(stage, facts)
    if missing:
        message = f"waits for {', '.join(missing)}"
        return Decision(changes.with_conditions(stage, Ready=(False, Reason.WAITING, message), now=now).status)
    if stage.status.attempt == 0:
        return _number(stage, 1, now)
    creating = changes.with_conditions(stage, Ready=(True, Reason.RUNNING, f"attempt {stage.status.attempt}"), now=now)
    creating = changes.update(creating, seen_attempt=stage.status.attempt)
    return Decision(creating.status, (_job(stage, facts),))


def _number(stage: Stage, attempt: int, now: datetime) -> Decision[StageStatus]:
    """Writes the attempt's number ahead; its job is the next pass's business."""
    start = stage.status.start_time or now
    return Decision(
        changes.update(stage, attempt=attempt, attempt_time=now, start_time=start, retry_time=None).status,
        requeue_after=0,
    )


def unready(stage: Stage, facts: Facts) -> list[str]:
    """Names of the endpoints that the stage needs and that do not answer yet."""
    if not settings.NEEDS_TOOLS[stage.stage]:
        return []
    names = [value for value in stage.spec.endpoints.values() if "://" not in value]
    return [name for name in names if name not in facts.endpoints or not facts.endpoints[name].holds("Ready")]


def _job(stage: Stage, facts: Facts) -> CreateJob:
    judge = facts.endpoints.get(stage.spec.endpoints.get("judge", ""))
    model = stage.spec.judge_model or (judge.spec.model if judge is not None else "")
    return CreateJob(urls(stage, facts), model)


def urls(stage: Stage, facts: Facts) -> dict[str, str]:
    """URL of each tool: given in the spec, or told by the endpoint that the spec names."""
    known = {name: endpoint.status.url for name, endpoint in facts.endpoints.items()}
    given = {
        role: known.get(value, "") if "://" not in value else value for role, value in stage.spec.endpoints.items()
    }
    return {role: url for role, url in given.items() if url}


def _watch(stage: Stage, facts: Facts, now: datetime) -> Decision[StageStatus]:
    if facts.job is not None and not facts.job.intact:
        return Decision(stage.status, (_job(stage, facts),), requeue_after=LOOK_SECONDS)
    blocked = facts.job.blocked if facts.job else None
    stage, events = changes.waiting(stage, True, Reason.RUNNING, f"attempt {stage.status.attempt}", blocked, now)
    overdue = attempts.overdue(stage.status.attempt_time, stage.spec.active_deadline_seconds, now)
    return Decision(stage.status, (CancelJob(),) if overdue else (), events, requeue_after=LOOK_SECONDS)


def _wait_for_store_check(stage: Stage, facts: Facts, now: datetime) -> Decision[StageStatus] | None:
    """What to do until the store has been looked into; None when it has."""
    if facts.store.state in ("known", "failed"):
        return None
    looks, events = changes.waiting(stage, False, Reason.CHECKING, "looks into the store", facts.store.blocked, now)
    return Decision(looks.status, (CheckStore(),) if facts.store.state == "unknown" else (), events)


def _handle_job_end(stage: Stage, facts: Facts, job: JobView, now: datetime) -> Decision[StageStatus]:
    """The job is over: complete, interrupted, or failed."""
    if stage.status.retry_time is not None and not _complete(stage, facts, job):
        return _wait_to_retry(stage, stage.status.retry_time, now)
    if (looking := _wait_for_store_check(stage, facts, now)) is not None:
        return looking
    if _complete(stage, facts, job):
        return _completed(stage, now)
    if facts.store.state == "failed":
        return _failure(stage, f"the store cannot be looked into: {facts.store.message}", now)
    limit = stage.spec.active_deadline_seconds
    if job.state == "cancelled" and attempts.overdue(stage.status.attempt_time, limit, now):
        return _failure(stage, f"ran longer than activeDeadlineSeconds: {limit}", now)
    if job.state in ("cancelled", "lost"):
        return _interrupted(stage, job, now)
    if job.state == "succeeded":
        return _failure(stage, _incomplete(stage, facts), now)
    if job.exit_code == attempts.INVALID_INPUT:
        why = f"invalid input, not tried again: {attempts.last_telling_line(job.lines) or 'exit 2'}"
        return _failed(stage, Reason.INVALID_INPUT, why, now)
    return _failure(stage, attempts.why(job.exit_code, job.lines, job.cause), now)


def _complete(stage: Stage, facts: Facts, job: JobView) -> bool:
    """Whether the stage's last checkpoint is committed. A checkpoint that does not say whether it is the last one is,
    when the job ended well. A job that refused its input says that what is there is not its own."""
    found = facts.checkpoint(stage)
    if found is None or (job.state == "failed" and job.exit_code == attempts.INVALID_INPUT):
        return False
    return found.complete is True or (job.state == "succeeded" and found.complete is None)


def _incomplete(stage: Stage, facts: Facts) -> str:
    found = facts.checkpoint(stage)
    if found is None:
        return f"exit 0, but the store holds no checkpoint {stage.store_key!r}"
    return f"exit 0, but checkpoint {found.ref} says that the stage is not complete"


def _completed(stage: Stage, now: datetime) -> Decision[StageStatus]:
    """Its last word may not have been heard: what is complete is all done."""
    message = f"checkpoint {stage.status.checkpoint}"
    told = stage.status.progress
    if told is not None and told.step < told.total:
        told = told.model_copy(update={"step": told.total})
        stage = changes.update(stage, progress=told, summary=summary.of_stage(told, stage.status.summary))
    done = changes.with_conditions(
        stage, Complete=(True, Reason.COMPLETE, message), Ready=(False, Reason.COMPLETE, message), now=now
    )
    return Decision(
        changes.update(done, completion_time=now, retry_time=None).status,
        events=(Event("Complete", f"{stage.name}: {message}"),),
    )


def _interrupted(stage: Stage, job: JobView, now: datetime) -> Decision[StageStatus]:
    """The next attempt goes on at once, or, where the platform took the pods, after a breath: it may take them again."""
    attempt = stage.status.attempt
    where = f"from {stage.status.checkpoint}" if stage.status.checkpoint else "from the start"
    message = f"attempt {attempt} was interrupted" + (f": {job.cause}" if job.cause else "")
    event = Event("Interrupted", f"{stage.name}: {message}; attempt {attempt + 1} goes on {where}")
    if not job.cause:
        return Decision(_number(stage, attempt + 1, now).status, events=(event,), requeue_after=0)
    again = attempts.retry_time(1, now)
    waits = changes.with_conditions(stage, Ready=(False, Reason.RETRYING, message), now=now)
    return Decision(
        changes.update(waits, retry_time=again).status, events=(event,), requeue_after=(again - now).total_seconds()
    )


def _failure(stage: Stage, why: str, now: datetime) -> Decision[StageStatus]:
    """Counts a failed attempt, once; the last one allowed ends the stage."""
    failures = stage.status.failures + 1
    stage = changes.update(stage, failures=failures)
    message = f"attempt {stage.status.attempt} failed: {why}"
    if failures > stage.spec.backoff_limit:
        return _failed(stage, Reason.BACKOFF_LIMIT, message, now)
    again = attempts.retry_time(failures, now)
    retries = changes.with_conditions(stage, Ready=(False, Reason.RETRYING, message), now=now)
    event = Event(
        "Retrying",
        f"{stage.name}: {message}; tried again in {attempts.wait(failures):.0f} s{_from(stage)} ({failures} of {stage.spec.backoff_limit})",
        warning=True,
    )
    return Decision(
        changes.update(retries, retry_time=again).status, events=(event,), requeue_after=(again - now).total_seconds()
    )


def _from(stage: Stage) -> str:
    return f" from {stage.status.checkpoint}" if stage.status.checkpoint else ""


def _wait_to_retry(stage: Stage, again: datetime, now: datetime) -> Decision[StageStatus]:
    if now < again:
        return Decision(stage.status, requeue_after=(again - now).total_seconds())
    return _number(stage, stage.status.attempt + 1, now)


def _failed(stage: Stage, reason: Reason, message: str, now: datetime) -> Decision[StageStatus]:
    failed = changes.with_conditions(stage, Failed=(True, reason, message), Ready=(False, reason, message), now=now)
    return Decision(
        changes.update(failed, completion_time=now, retry_time=None).status,
        events=(Event(str(reason), f"{stage.name}: {message}", warning=True),),
    )


def _stopped(stage: Stage, facts: Facts, now: datetime) -> Decision[StageStatus]:
    """Suspended or cancelled, and no job runs (any more)."""
    if (
        facts.job is not None
        and not stage.cancelled
        and (looking := _wait_for_store_check(stage, facts, now)) is not None
    ):
        return looking
    if facts.job is not None and _complete(stage, facts, facts.job):
        return _completed(stage, now)
    if stage.cancelled:
        return _failed(stage, Reason.CANCELLED, "cancelled", now)
    where = f"at checkpoint {stage.status.checkpoint}" if stage.status.checkpoint else "before its first checkpoint"
    message = f"suspended {where}"
    events = () if stage.holds("Suspended") else (Event("Suspended", f"{stage.name}: {message}"),)
    return Decision(
        changes.with_conditions(
            stage, Suspended=(True, Reason.SUSPENDED, message), Ready=(False, Reason.SUSPENDED, message), now=now
        ).status,
        events=events,
    )

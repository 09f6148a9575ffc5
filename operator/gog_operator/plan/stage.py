"""One stage: attempt after attempt, until its last checkpoint is in the store. Pure.

The number of an attempt is written to the status in one pass and its job is created in a later one, so a control plane
that dies in between finds the number and creates the same job, never a second one. Success is the checkpoint in the
store, not the exit code alone. An attempt that was interrupted (suspended, or lost with its machine) does not count as
failed; the next one resumes from whatever it committed. Where a check of the store takes a job of its own, that check
follows every attempt, and nothing is decided before it.

A stage that waits for a service that is down keeps its attempt: Ready is False with the reason of the outage, until the
service answers or the stage fails. An attempt that waits for GPUs or in a queue is not ready, and uses up nothing of its
deadline. When the store cannot be read after an attempt, the look is repeated, because it may hold what was trained.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from gog import spec as settings
from gog_operator.api.meta import Reason
from gog_operator.api.objects import Progress, Stage, StageStatus, ToolServer
from gog_operator.api.records import AttemptEnd, StoreCheck
from gog_operator.plan import attempts, changes, data, images, job_ttl, preparation, summary
from gog_operator.plan.actions import (
    Blocked,
    CancelJob,
    Checkpoint,
    CheckStore,
    CreateJob,
    DataView,
    Decision,
    Event,
    JobView,
    Launcher,
    StoreView,
)

POLL_SECONDS = 5.0
"""Between passes over a stage whose job runs, to read its progress where nothing else does."""
OUTAGES = (Reason.JUDGE_DOWN, Reason.TOOL_DOWN)
"""Reasons of the Ready condition while the stage waits for a service."""


@dataclass(frozen=True)
class Facts:
    """What was observed of a stage."""

    job: JobView | None
    """Job of the current attempt; None when it was never created."""
    store: StoreView
    """What the store holds under the stage's key, where that matters."""
    progress: Progress | None
    """What the job reports."""
    data: DataView
    """The dataset."""
    tool_servers: Mapping[str, ToolServer] = field(default_factory=dict)
    """The ToolServers that the spec refers to, by name."""
    wakes: bool = False
    """Whether a pass follows by itself when the job reports something new or its pods start."""
    launcher: Launcher | None = None
    """How an attempt is started; None on one machine."""
    job_ttl_seconds: int | None = None
    """Seconds that ended jobs are kept where the spec does not say; None for ever."""

    def checkpoint(self, stage: Stage) -> Checkpoint | None:
        """The stage's newest checkpoint in the store."""
        return self.store.checkpoints.get(stage.store_key)


def needs_store(stage: Stage, job: JobView | None) -> bool:
    """Whether the contents of the store matter: after the attempt's job has ended. Before that the job reports."""
    return job is not None and job.state != "running" and not stage.finished


def plan(stage: Stage, facts: Facts, now: datetime) -> Decision[StageStatus]:
    """What to do about a stage. The first rule that applies decides."""
    running = facts.job is not None and facts.job.state == "running"
    if stage.finished:
        return job_ttl.plan(
            stage, Decision(stage.status, (CancelJob(),) if running else ()), facts.job_ttl_seconds, now
        )
    stage = _with_observations(stage, facts)
    if (pinned := images.pinned(stage.status.image)) is not None:
        stage = changes.with_conditions(stage, ImagePinned=pinned, now=now)
    if stage.cancelled or stage.spec.suspend:
        return Decision(stage.status, (CancelJob(),)) if running else _stop(stage, facts, now)
    if stage.holds("Suspended"):
        stage = changes.with_conditions(stage, Suspended=(False, Reason.RESUMED, ""), now=now)
    if facts.job is None:
        return _begin(stage, facts, now)
    if facts.job.state == "running":
        return _watch_job(stage, facts, facts.job, now)
    return _handle_job_end(stage, facts, facts.job, now)


def _with_observations(stage: Stage, facts: Facts) -> Stage:
    """The stage with what its job and the store report."""
    update: dict[str, Any] = {"observed_generation": stage.metadata.generation}
    if facts.job is not None:
        update["observed_attempt"] = stage.status.attempt
    if facts.progress is not None:
        update["progress"] = facts.progress
        update["summary"] = summary.of_stage(facts.progress, stage.status.summary)
        if facts.progress.checkpoint is not None:
            update["checkpoint"] = facts.progress.checkpoint.ref
    found = facts.checkpoint(stage)
    if found is not None:
        update["checkpoint"] = found.ref
    if facts.job is not None and facts.job.pods:
        update["pods"] = facts.job.pods
    if facts.job is not None:
        update["image"] = images.observed(stage.status.image, facts.job.images)
    return changes.update(stage, **update)


def _begin(stage: Stage, facts: Facts, now: datetime) -> Decision[StageStatus]:
    """No job yet: waits for what the stage needs, numbers the attempt, then creates the job."""
    if not data.ready(stage.spec.data, facts.data):
        if failure := data.failure(facts.data):
            return _fail(stage, Reason.DATA_FAILED, failure, now)
        return data.plan(stage, facts.data, "waiting for the dataset", now)
    stage = preparation.over(stage)
    missing = unready(stage, facts)
    if missing:
        message = f"waiting for {', '.join(missing)}"
        return Decision(changes.with_conditions(stage, Ready=(False, Reason.WAITING, message), now=now).status)
    if stage.status.attempt == 0:
        return _number(stage, facts, 1, now)
    creating = changes.with_conditions(stage, Ready=(True, Reason.RUNNING, f"attempt {stage.status.attempt}"), now=now)
    creating = changes.update(creating, observed_attempt=stage.status.attempt)
    return Decision(creating.status, (_job(stage, facts),))


def _number(stage: Stage, facts: Facts, attempt: int, now: datetime) -> Decision[StageStatus]:
    """Writes the attempt's number first; a later pass creates its job."""
    progress = stage.status.progress
    numbered = changes.update(
        stage,
        attempt=attempt,
        attempt_time=now,
        start_time=stage.status.start_time or now,
        retry_time=None,
        ended=None,
        running_time=None,
        store_check=StoreCheck(),
        progress=progress.model_copy(update={"waiting": None}) if progress is not None else None,
        **images.numbered(stage, attempt, facts.launcher),
    )
    return Decision(numbered.status, requeue_after=0)


def unready(stage: Stage, facts: Facts) -> list[str]:
    """Names of the ToolServers that the stage needs and that are not ready."""
    if not settings.NEEDS_TOOLS[stage.stage]:
        return []
    names = [value for value in stage.spec.endpoints.values() if "://" not in value]
    return [name for name in names if name not in facts.tool_servers or not facts.tool_servers[name].holds("Ready")]


def _job(stage: Stage, facts: Facts) -> CreateJob:
    judge = facts.tool_servers.get(stage.spec.endpoints.get("judge", ""))
    model = stage.spec.judge_model or (judge.spec.model if judge is not None else "")
    return CreateJob(urls(stage, facts), model)


def urls(stage: Stage, facts: Facts) -> dict[str, str]:
    """URL of each tool: as the spec gives it, or that of the ToolServer that the spec names."""
    known = {name: tool_server.status.url for name, tool_server in facts.tool_servers.items()}
    given = {
        role: known.get(value, "") if "://" not in value else value for role, value in stage.spec.endpoints.items()
    }
    return {role: url for role, url in given.items() if url}


def _watch_job(stage: Stage, facts: Facts, job: JobView, now: datetime) -> Decision[StageStatus]:
    """The job runs: restores it where something is missing, reports what blocks it, enforces the deadlines."""
    if not job.intact:
        return Decision(stage.status, (_job(stage, facts),), requeue_after=POLL_SECONDS)
    if job.started and stage.status.running_time is None:
        stage = changes.update(stage, running_time=now)
    blocked = job.blocked or _outage(stage)
    ready = (True, Reason.RUNNING, f"attempt {stage.status.attempt}")
    recovered = _recovery(stage) if blocked is None else ()
    stage, events = changes.with_ready(stage, ready, blocked, now)
    actions = (CancelJob(),) if _overdue(stage, now) else ()
    again = _seconds_left(stage, now) if facts.wakes and not actions else POLL_SECONDS
    return Decision(stage.status, actions, (*events, *recovered), requeue_after=again)


def _overdue(stage: Stage, now: datetime) -> str:
    """Which deadline the attempt has exceeded; empty for none."""
    status, running, waiting = stage.status, stage.spec.active_deadline_seconds, stage.spec.queue_deadline_seconds
    if status.running_time is None:
        late = attempts.overdue(status.attempt_time, waiting, now)
        return f"no pod ran within queueDeadlineSeconds: {waiting}" if late else ""
    return f"exceeded activeDeadlineSeconds: {running}" if attempts.overdue(status.running_time, running, now) else ""


def _seconds_left(stage: Stage, now: datetime) -> float | None:
    """Seconds until the attempt exceeds the deadline that counts now; None for no deadline."""
    since, limit = stage.status.running_time, stage.spec.active_deadline_seconds
    if since is None:
        since, limit = stage.status.attempt_time, stage.spec.queue_deadline_seconds
    return None if since is None or limit is None else limit - (now - since).total_seconds()


def _outage(stage: Stage) -> Blocked | None:
    """The service that the stage reports to wait for, until an absolute time: the status must not change every second."""
    waiting = stage.status.progress.waiting if stage.status.progress is not None else None
    if waiting is None:
        return None
    reason = next((each for each in OUTAGES if each == waiting.reason), Reason.TOOL_DOWN)
    message = waiting.message or "a service is down"
    if waiting.until is not None:
        until = waiting.until.astimezone(UTC)
        message += f"; attempt {stage.status.attempt} fails at {until:%H:%M:%S} UTC unless it recovers"
    return Blocked(reason, message)


def _recovery(stage: Stage) -> tuple[Event, ...]:
    """The event that the service which the stage waited for answers again."""
    ready = stage.condition("Ready")
    if ready is None or ready.reason not in OUTAGES:
        return ()
    service = "the judge" if ready.reason == Reason.JUDGE_DOWN else "the tool"
    return (Event("Recovered", f"{stage.name}: {service} answers again; attempt {stage.status.attempt} continues"),)


def _wait_for_store_check(stage: Stage, facts: Facts, now: datetime) -> Decision[StageStatus] | None:
    """What to do until the store has been checked; None when it has."""
    if facts.store.state in ("known", "failed"):
        return None
    if stage.status.store_check.retry_time is not None:  # the look that was due has started
        stage = changes.update(stage, store_check=stage.status.store_check.model_copy(update={"retry_time": None}))
    ready = (False, Reason.CHECKING, "checking the store")
    if stage.status.store_check.failures and facts.store.blocked is None:
        ready = (False, Reason.STORE_FAILED, _look_message(stage))
    stage, events = changes.with_ready(stage, ready, facts.store.blocked, now)
    return Decision(stage.status, (CheckStore(),) if facts.store.state == "unknown" else (), events)


def _handle_job_end(stage: Stage, facts: Facts, job: JobView, now: datetime) -> Decision[StageStatus]:
    """The job has ended: the stage is complete, or the attempt was interrupted, or it failed."""
    if stage.status.retry_time is not None and not _is_complete(stage, facts, job):
        return _wait_to_retry(stage, facts, stage.status.retry_time, now)
    if (checking := _wait_for_store_check(stage, facts, now)) is not None:
        return checking
    if _is_complete(stage, facts, job):
        return _complete(stage, now)
    if facts.store.state == "failed":
        return _look_again(stage, facts.store.message, now)
    if job.state == "cancelled" and not attempts.has_ended(stage.status) and (deadline := _overdue(stage, now)):
        return _handle_failure(stage, deadline, now)
    if job.state in ("cancelled", "lost"):
        return _continue(stage, facts, job, now)
    if job.state == "succeeded":
        return _handle_failure(stage, _missing_checkpoint(stage, facts), now)
    if job.exit_code == attempts.INVALID_INPUT:
        cause = attempts.last_line(job.lines) or f"exit {attempts.INVALID_INPUT}"
        return _fail(
            stage, Reason.INVALID_INPUT, f"invalid input, not retried: {cause}", now, f"invalid input: {cause}"
        )
    return _handle_failure(stage, attempts.describe(job.exit_code, job.lines, job.cause), now)


def _look_again(stage: Stage, cause: str, now: datetime) -> Decision[StageStatus]:
    """The store could not be read: looks again after a delay, however often. The attempt's fate is in the store."""
    check = stage.status.store_check
    if check.retry_time is not None:
        left = (check.retry_time - now).total_seconds()
        return Decision(stage.status, requeue_after=left) if left > 0 else Decision(stage.status, (CheckStore(),))
    failures = check.failures + 1
    again = attempts.retry_time(failures, now)
    stage = changes.update(stage, store_check=StoreCheck(failures=failures, retry_time=again))
    message = f"attempt {stage.status.attempt} has ended, and the store cannot be checked: {cause}"
    waiting = changes.with_conditions(stage, Ready=(False, Reason.STORE_FAILED, message), now=now)
    follows = f"look {failures + 1} in {attempts.delay(failures):.0f} s"
    event = Event(str(Reason.STORE_FAILED), f"{stage.name}: {message}; {follows}", warning=True)
    return Decision(waiting.status, events=(event,), requeue_after=(again - now).total_seconds())


def _look_message(stage: Stage) -> str:
    """The message of the last failed look, which stays until the next look has ended."""
    ready = stage.condition("Ready")
    return ready.message if ready is not None and ready.reason == Reason.STORE_FAILED else "checking the store"


def _is_complete(stage: Stage, facts: Facts, job: JobView) -> bool:
    """Whether the stage's last checkpoint is committed. One that is not marked either way is the last if the job
    succeeded. A job that refused its input does not own the checkpoint that is there."""
    found = facts.checkpoint(stage)
    if found is None or (job.state == "failed" and job.exit_code == attempts.INVALID_INPUT):
        return False
    return found.complete is True or (job.state == "succeeded" and found.complete is None)


def _missing_checkpoint(stage: Stage, facts: Facts) -> str:
    found = facts.checkpoint(stage)
    if found is None:
        return f"exit 0, but the store holds no checkpoint {stage.store_key!r}"
    return f"exit 0, but checkpoint {found.ref} is not marked as the stage's last"


def _complete(stage: Stage, now: datetime) -> Decision[StageStatus]:
    message = f"checkpoint {stage.status.checkpoint}"
    progress = stage.status.progress
    if progress is not None and progress.step < progress.total:  # the job's final report may have been missed
        progress = progress.model_copy(update={"step": progress.total})
        stage = changes.update(stage, progress=progress, summary=summary.of_stage(progress, stage.status.summary))
    done = changes.with_conditions(
        stage, Complete=(True, Reason.COMPLETE, message), Ready=(True, Reason.COMPLETE, message), now=now
    )
    done = changes.update(
        done,
        completion_time=now,
        retry_time=None,
        store_check=StoreCheck(),
        ended=_end(stage, f"complete at {message}"),
    )
    return Decision(done.status, events=(Event("Complete", f"{stage.name}: {message}"),))


def _end(stage: Stage, message: str) -> AttemptEnd:
    return AttemptEnd(attempt=stage.status.attempt, message=message)


def _continue(stage: Stage, facts: Facts, job: JobView, now: datetime) -> Decision[StageStatus]:
    """The next attempt continues one that did not fail: at once, unless the platform took the pods away, and may do so again.
    An attempt that had ended before, in a run that was resumed since, is reported by its end.
    """
    attempt, ended = stage.status.attempt, stage.status.ended
    if ended is not None and attempts.has_ended(stage.status):
        reason, message = "Resumed", f"attempt {attempt} ended: {ended.message}"
    else:
        reason, message = "Interrupted", f"attempt {attempt} was interrupted" + (f": {job.cause}" if job.cause else "")
    event = Event(
        reason,
        f"{stage.name}: {message}; attempt {attempt + 1} {attempts.resumption(stage.stage, stage.status.checkpoint)}",
    )
    if not job.cause:
        return Decision(_number(stage, facts, attempt + 1, now).status, events=(event,), requeue_after=0)
    again = attempts.retry_time(1, now)
    waiting = changes.with_conditions(stage, Ready=(False, Reason.RETRYING, message), now=now)
    return Decision(
        changes.update(waiting, retry_time=again).status, events=(event,), requeue_after=(again - now).total_seconds()
    )


def _handle_failure(stage: Stage, cause: str, now: datetime) -> Decision[StageStatus]:
    """Counts a failed attempt, once. It is retried after a delay, or ends the stage when `backoffLimit` is exceeded."""
    failures, limit = stage.status.failures + 1, stage.spec.backoff_limit
    stage = changes.update(stage, failures=failures, ended=_end(stage, cause))
    message = f"attempt {stage.status.attempt} failed: {cause}"
    if failures > limit:
        return _fail(stage, Reason.BACKOFF_LIMIT, message, now, cause)
    again = attempts.retry_time(failures, now)
    retrying = changes.with_conditions(stage, Ready=(False, Reason.RETRYING, message), now=now)
    where = f" from {stage.status.checkpoint}" if stage.status.checkpoint else ""
    follows = f"retry {failures} of {limit}{where} in {attempts.delay(failures):.0f} s"
    return Decision(
        changes.update(retrying, retry_time=again).status,
        events=(Event("Retrying", f"{stage.name}: {message}; {follows}", warning=True),),
        requeue_after=(again - now).total_seconds(),
    )


def _wait_to_retry(stage: Stage, facts: Facts, again: datetime, now: datetime) -> Decision[StageStatus]:
    if now < again:
        return Decision(stage.status, requeue_after=(again - now).total_seconds())
    return _number(stage, facts, stage.status.attempt + 1, now)


def _fail(stage: Stage, reason: Reason, message: str, now: datetime, end: str = "") -> Decision[StageStatus]:
    """Ends the stage. end: how the attempt ended, where that differs from the message."""
    failed = changes.with_conditions(stage, Failed=(True, reason, message), Ready=(False, reason, message), now=now)
    failed = changes.update(failed, completion_time=now, retry_time=None, ended=_end(stage, end or message))
    return Decision(failed.status, events=(Event(str(reason), f"{stage.name}: {message}", warning=True),))


def _stop(stage: Stage, facts: Facts, now: datetime) -> Decision[StageStatus]:
    """Suspended or cancelled, and no job runs."""
    if facts.job is not None and not stage.cancelled:
        checking = _wait_for_store_check(stage, facts, now)
        if checking is not None:
            return checking
    if facts.job is not None and _is_complete(stage, facts, facts.job):
        return _complete(stage, now)
    if stage.cancelled:
        return _fail(stage, Reason.CANCELLED, "cancelled", now)
    where = f"at checkpoint {stage.status.checkpoint}" if stage.status.checkpoint else "before its first checkpoint"
    message = f"suspended {where}"
    events = () if stage.holds("Suspended") else (Event("Suspended", f"{stage.name}: {message}"),)
    held = changes.with_conditions(
        stage, Suspended=(True, Reason.SUSPENDED, message), Ready=(False, Reason.SUSPENDED, message), now=now
    )
    return Decision(changes.update(held, ended=_end(stage, message)).status, events=events)

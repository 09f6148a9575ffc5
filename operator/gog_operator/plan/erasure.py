"""The end of a run that is being deleted: its processes first, then its artifacts, if its policy says so. Pure.

A finalizer holds the run until its artifacts are erased by a job with the run's own credentials. A deletion must not wait for
ever, so the finalizer is removed without an erasure when the user asks for that, when the namespace is being deleted, which
forbids new jobs, and after a day. What became of the artifacts is the condition ArtifactsErased, which is written before the
finalizer is removed.

A foreground deletion removes everything that the run owns, so that a job of ours would not live: it begins afterwards.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from gog_operator.api.meta import ARTIFACTS, KEEP, Reason
from gog_operator.api.objects import GoGRun, Object, RunStatus
from gog_operator.api.records import Erasure
from gog_operator.plan import attempts, changes
from gog_operator.plan.actions import (
    Action,
    Blocked,
    Decision,
    DeleteObject,
    EraseArtifacts,
    Event,
    SetFinalizer,
)

GIVE_UP_HOURS = 24
"""Hours after which a deletion no longer waits for its artifacts to be erased."""
POLL_SECONDS = 5.0
"""Between passes while the run's pods end or a job erases."""
CASCADES = ("foregroundDeletion", "orphan")
"""Finalizers during which the cluster itself handles what the run owns."""
SETTLED = (Reason.ERASED, Reason.KEPT)
"""Reasons of ArtifactsErased after which the finalizer is removed."""


@dataclass(frozen=True)
class ErasureView:
    """The erasure of the artifacts of a run that is being deleted."""

    state: Literal["waiting", "shared", "absent", "running", "done", "failed", "forbidden"]
    """waiting: pods of the run may still write; shared: others use the store; absent: the job was not started; forbidden:
    the namespace is being deleted, so that no job can be."""
    message: str = ""
    """What was erased or is in the way, and the remedy."""
    blocked: Blocked | None = None
    """Why its job does not start."""


@dataclass(frozen=True)
class Facts:
    """What was observed of a run that is being deleted."""

    children: tuple[Object, ...]
    """Stages and ToolServers that it owns."""
    erasure: ErasureView
    """The erasure of its artifacts."""


def finalizer(run: GoGRun) -> tuple[Action, ...]:
    """The action that gives a run the finalizer that its policy needs, or takes it away; none where it is as it should be."""
    wanted = run.spec.artifact_policy == "Delete"
    return () if wanted == (ARTIFACTS in run.metadata.finalizers) else (SetFinalizer(ARTIFACTS, wanted),)


def plan(run: GoGRun, facts: Facts, now: datetime) -> Decision[RunStatus]:
    """What to do about a run that is being deleted. The first rule that applies decides."""
    if ARTIFACTS not in run.metadata.finalizers:
        return Decision(run.status)
    known = run.condition("ArtifactsErased")
    if known is not None and known.reason in SETTLED:
        return Decision(run.status, (SetFinalizer(ARTIFACTS, False),))
    if kept := _why_kept(run, facts, now):
        return _settle(run, Reason.KEPT, f"the artifacts are kept: {kept}", now)
    if _is_cascading(run) or facts.children:
        ending = _not_erased(run, Reason.ERASING, "ending its stages and servers", now)
        return Decision(ending.status, _removals(run, facts.children), requeue_after=POLL_SECONDS)
    return _erase(run, facts.erasure, now)


def _is_cascading(run: GoGRun) -> bool:
    return bool(set(run.metadata.finalizers) & set(CASCADES))


def _why_kept(run: GoGRun, facts: Facts, now: datetime) -> str:
    """Why the artifacts are not erased, or no longer waited for; empty if they are erased."""
    if run.spec.artifact_policy != "Delete":
        return "spec.artifactPolicy is Retain"
    if run.is_annotated(KEEP):
        return f"the run has the annotation {KEEP}"
    if facts.erasure.state == "forbidden":
        return "the namespace is being deleted, so no job can erase them"
    since = run.metadata.deletion_timestamp
    if since is not None and now - since >= timedelta(hours=GIVE_UP_HOURS):
        return (
            f"they could not be erased within {GIVE_UP_HOURS} hours: {facts.erasure.message or 'its pods do not end'}"
        )
    return ""


def _removals(run: GoGRun, children: Iterable[Object]) -> tuple[Action, ...]:
    """Deletes what the run owns, unless the cluster does."""
    if _is_cascading(run):
        return ()
    return tuple(DeleteObject(each.kind, each.name, each.metadata.uid) for each in children if not each.is_terminating)


def _erase(run: GoGRun, view: ErasureView, now: datetime) -> Decision[RunStatus]:
    """Nothing of the run runs any more: erases its artifacts, as often as it takes."""
    if view.state == "done":
        return _settle(run, Reason.ERASED, view.message, now)
    if view.state in ("failed", "shared"):
        return _retry(run, Reason.ERASE_FAILED if view.state == "failed" else Reason.STORE_SHARED, view.message, now)
    run = changes.update(run, erasure=run.status.erasure.model_copy(update={"retry_time": None}))
    message = view.message or "erasing the artifacts in the store"
    erasing = _not_erased(run, Reason.ERASING, message, now)
    erasing, events = changes.with_ready(erasing, (False, Reason.ERASING, message), view.blocked, now)
    actions = (EraseArtifacts(),) if view.state == "absent" else ()
    return Decision(erasing.status, actions, events, requeue_after=POLL_SECONDS)


def _retry(run: GoGRun, reason: Reason, message: str, now: datetime) -> Decision[RunStatus]:
    """Counts a failed attempt, once, and makes the next after a delay."""
    known = run.status.erasure
    if known.retry_time is not None:
        left = (known.retry_time - now).total_seconds()
        if left > 0:
            return Decision(run.status, requeue_after=left)
        return Decision(
            changes.update(run, erasure=Erasure(failures=known.failures)).status, (EraseArtifacts(),), (), 1.0
        )
    failures = known.failures + 1
    again = attempts.retry_time(failures, now)
    before = run.condition("ArtifactsErased")
    is_new = before is None or (before.reason, before.message) != (reason, message)
    event = Event(str(reason), f"{run.name}: the artifacts are not erased: {message}", warning=True)
    run = changes.update(_not_erased(run, reason, message, now), erasure=Erasure(failures=failures, retry_time=again))
    return Decision(run.status, (), (event,) if is_new else (), (again - now).total_seconds())


def _not_erased(run: GoGRun, reason: Reason, message: str, now: datetime) -> GoGRun:
    state = (False, reason, message)
    return changes.with_conditions(run, ArtifactsErased=state, Ready=state, now=now)


def _settle(run: GoGRun, reason: Reason, message: str, now: datetime) -> Decision[RunStatus]:
    """Writes what became of the artifacts; the next pass lets the run disappear."""
    is_erased = reason == Reason.ERASED
    run = changes.with_conditions(
        run, ArtifactsErased=(is_erased, reason, message), Ready=(False, reason, message), now=now
    )
    event = Event(str(reason), f"{run.name}: {message}", warning=not is_erased)
    return Decision(run.status, events=(event,), requeue_after=0)

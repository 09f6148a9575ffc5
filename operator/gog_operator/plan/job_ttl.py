"""The jobs of a finished object: deleted a while after its end, when its status has recorded everything of them. Pure.

Problem: a job that disappears before its result is recorded is run again, so jobs have no time to live of their own. Decision: the
operator deletes them, and only of objects that are finished, because those never start a job again. Their pods, and so their
logs, exist until then. The time of the removal is in the status, so that nothing is removed or looked for twice.
"""

from __future__ import annotations

import dataclasses
from datetime import datetime

from gog_operator.api.objects import GoGRun, Stage
from gog_operator.plan.actions import AnyStatus, Decision, RemoveJobs


def plan(
    thing: GoGRun | Stage, decision: Decision[AnyStatus], default: int | None, now: datetime
) -> Decision[AnyStatus]:
    """A decision about a finished object, with the removal of its jobs.

    Args:
        thing: The object.
        decision: What else there is to do about it.
        default: Seconds to live where the object has none of its own; None for never.
        now: The time.
    """
    own, ended = thing.spec.job_ttl_seconds, thing.status.completion_time
    seconds = default if own is None else own
    if seconds is None or ended is None or decision.actions or thing.status.jobs_removed_time is not None:
        return decision
    left = seconds - (now - ended).total_seconds()
    if left > 0:
        return dataclasses.replace(decision, requeue_after=left)
    removed = decision.status.model_copy(update={"jobs_removed_time": now})
    return dataclasses.replace(decision, status=removed, actions=(RemoveJobs(),))

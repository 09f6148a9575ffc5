"""The jobs that prepare what pods read, sources and datasets, and that failed. Pure.

Problem: the Hub or the store may be down for longer than the job's own retries last. Decision: a job that refuses its input
(exit code 2) ends what waits for it, because another would refuse it, too. After any other failure the job is repeated, after
a delay that grows to five minutes, however often; the Ready condition says why.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from gog_operator.api.meta import Reason
from gog_operator.api.records import Preparation
from gog_operator.plan import attempts, changes
from gog_operator.plan.actions import Action, Decision, Event
from gog_operator.plan.changes import Thing


def retry(thing: Thing, reason: Reason, message: str, action: Action, now: datetime) -> Decision[Any]:
    """Counts a failure once, and repeats the job after a delay.

    Args:
        thing: What waits for the job.
        reason: Reason of its Ready condition meanwhile.
        message: What failed, and why.
        action: What starts the job again.
        now: The time.
    """
    known = thing.status.preparation
    if known.retry_time is not None:
        left = (known.retry_time - now).total_seconds()
        return Decision(thing.status, requeue_after=left) if left > 0 else Decision(thing.status, (action,))
    failures = known.failures + 1
    again = attempts.retry_time(failures, now)
    thing = changes.with_conditions(thing, Ready=(False, reason, message), now=now)
    thing = changes.update(thing, preparation=Preparation(failures=failures, retry_time=again))
    follows = f"attempt {failures + 1} in {attempts.delay(failures):.0f} s"
    event = Event(str(reason), f"{thing.name}: {message}; {follows}", warning=True)
    return Decision(thing.status, events=(event,), requeue_after=(again - now).total_seconds())


def begun(thing: Thing) -> Thing:
    """The object once the attempt that was due has begun."""
    known = thing.status.preparation
    if known.retry_time is None:
        return thing
    return changes.update(thing, preparation=Preparation(failures=known.failures))


def over(thing: Thing) -> Thing:
    """The object once everything is prepared."""
    return thing if thing.status.preparation == Preparation() else changes.update(thing, preparation=Preparation())

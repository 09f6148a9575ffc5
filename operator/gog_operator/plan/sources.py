"""The sources of a run that are fetched into the model cache, before anything asks for a GPU to read them. Pure.

What was fetched is written to the status before a stage or a server is created, so that all of them mount the same
commit, even if its branch moves meanwhile.
"""

from __future__ import annotations

from datetime import datetime

from gog import hub
from gog_operator.api.meta import Reason
from gog_operator.api.objects import GoGRun, RunStatus
from gog_operator.plan import changes, preparation
from gog_operator.plan.actions import Decision, Event, FetchSources, SourcesView

POLL_SECONDS = 5.0
"""Between passes while a job fetches, to report how far it is."""


def ready(run: GoGRun, view: SourcesView) -> bool:
    """Whether stages and servers can be created."""
    return view.state == "skipped" or run.holds("ModelFetched")


def failure(run: GoGRun, view: SourcesView) -> str:
    """Why the sources cannot be fetched, with the field; empty if they can, or may be later."""
    if view.state != "failed":
        return ""
    uri = run.spec.data.uri
    is_data = view.message.startswith(hub.DATASETS) or (uri is not None and view.message.startswith(uri))
    return f"spec.{'data.uri' if is_data else 'model'}: {view.message}"


def plan(run: GoGRun, view: SourcesView, now: datetime) -> Decision[RunStatus]:
    """What to do until the sources have been fetched."""
    if view.state == "done":
        run = changes.with_conditions(run, ModelFetched=(True, Reason.FETCHED, view.message), now=now)
        run = changes.update(preparation.over(run), sources=dict(view.volumes))
        return Decision(run.status, events=(Event("ModelFetched", f"{run.name}: {view.message}"),), requeue_after=0)
    if view.state == "unavailable":
        message = f"the sources cannot be fetched: {view.message}"
        run = changes.with_conditions(run, ModelFetched=(False, Reason.FETCH_FAILED, message), now=now)
        return preparation.retry(run, Reason.FETCH_FAILED, message, FetchSources(), now)
    run = preparation.begun(run)
    message = view.message or "fetching the run's sources into the model cache"
    fetched = (False, view.blocked.reason, view.blocked.message) if view.blocked else (False, Reason.FETCHING, message)
    run = changes.with_conditions(run, ModelFetched=fetched, now=now)
    run, events = changes.with_ready(run, (False, Reason.FETCHING, message), view.blocked, now)
    actions = (FetchSources(),) if view.state == "absent" else ()
    return Decision(run.status, actions, events, requeue_after=POLL_SECONDS)

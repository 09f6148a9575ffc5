"""One server: started, restarted on its port when it exits, failed when it never becomes ready. Pure.

A server that exits after it was ready is a fault of the moment, and the run survives it: clients retry, and the address
stays the same. A server that was never ready has wrong settings: after three starts (another process may have held the
port for a moment) the Endpoint fails with the last line of its log, and starts anew once its spec has changed. An Endpoint
with a `url` describes an existing server: gog starts and observes nothing. A policy serves a checkpoint by its version: the
address stays ready with the old version until every pod has the new one.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from gog_operator.api import conditions
from gog_operator.api.meta import Reason
from gog_operator.api.objects import Endpoint, EndpointStatus
from gog_operator.plan import attempts, changes, data
from gog_operator.plan.actions import (
    Action,
    Blocked,
    DataView,
    Decision,
    Event,
    LoadVersion,
    ServerView,
    StartServer,
    StopServer,
)

LOAD_SECONDS = 2.0
"""Between passes while pods load a checkpoint."""
START_SECONDS = 15.0
"""Between passes while no pod of the server runs."""
STARTS = 3
"""Starts in a row, none of which became ready, after which the Endpoint fails."""


@dataclass(frozen=True)
class Facts:
    """What was observed of an Endpoint."""

    server: ServerView | None
    """Its server; None when there is none."""
    data: DataView
    """The dataset."""


def plan(endpoint: Endpoint, facts: Facts, now: datetime) -> Decision[EndpointStatus]:
    """What to do about an Endpoint. The first rule that applies decides."""
    status, server = endpoint.status, facts.server
    if endpoint.spec.url:
        return Decision(_ready(endpoint, endpoint.spec.url, 0, Reason.EXTERNAL, now))
    if endpoint.spec.suspend:
        held = _not_ready(endpoint, Reason.SUSPENDED, "suspended", now)
        return Decision(held, (StopServer(),) if server else ())
    if server is not None and (server.replicas, server.selector) != (status.replicas, status.selector):
        status = status.model_copy(update={"replicas": server.replicas, "selector": server.selector})
        endpoint = endpoint.model_copy(update={"status": status})
    if server is not None and server.state != "exited" and status.retry_time is not None:
        # Its start was due, and has happened; the pass that started it lost a conflict over the status.
        status = status.model_copy(update={"retry_time": None})
        endpoint = endpoint.model_copy(update={"status": status})
    if is_corrected(endpoint):
        status = status.model_copy(update={"failures": 0, "retry_time": None})
        endpoint = endpoint.model_copy(update={"status": status})
    elif failed(endpoint):
        return Decision(status, (StopServer(),) if server and server.state != "exited" else ())
    if not data.ready(endpoint.spec.data, facts.data):
        return _wait_for_data(endpoint, facts.data, now)
    if server is None or not server.current:
        starting = _not_ready(endpoint, Reason.STARTING, "", now).model_copy(update={"retry_time": None})
        return Decision(starting, (StartServer(status.port or endpoint.spec.port),))
    if server.state == "ready":
        return _serve(endpoint, server, now)
    if server.state == "exited":
        return _handle_exit(endpoint, server, now)
    return _wait_until_ready(endpoint, server, now)


def failed(endpoint: Endpoint) -> bool:
    """Whether the Endpoint's server is no longer started."""
    progressing = endpoint.condition("Progressing")
    return progressing is not None and progressing.reason == Reason.SERVER_FAILED


def is_corrected(endpoint: Endpoint) -> bool:
    """Whether the spec of a failed Endpoint has changed since it failed."""
    progressing = endpoint.condition("Progressing")
    known = progressing.observed_generation if progressing is not None else 0
    return failed(endpoint) and endpoint.metadata.generation > known


def failure(endpoint: Endpoint) -> str | None:
    """Why the Endpoint has failed; None if it has not, or if its spec has changed since."""
    progressing = endpoint.condition("Progressing")
    if progressing is None or not failed(endpoint) or is_corrected(endpoint):
        return None
    return progressing.message


def _wait_for_data(endpoint: Endpoint, view: DataView, now: datetime) -> Decision[EndpointStatus]:
    """Prepares the dataset and waits for it; reports what blocks it, or why it failed."""
    failure = data.failure(view)
    blocked = Blocked(Reason.DATA_FAILED, failure) if failure else view.blocked
    reason, message = (blocked.reason, blocked.message) if blocked else (Reason.PREPARING, "waiting for the dataset")
    waiting = _not_ready(endpoint, reason, message, now)
    return Decision(waiting, data.preparation(endpoint.spec.data, view), changes.blocked_event(endpoint, blocked))


def _wait_until_ready(endpoint: Endpoint, server: ServerView, now: datetime) -> Decision[EndpointStatus]:
    """Not ready yet, or not ready any more. Only a server that was never ready fails, after `startupSeconds` from its first
    running pod: to wait for a node is no fault of the server."""
    limit, blocked = endpoint.spec.startup_seconds, server.blocked
    reason, message = (blocked.reason, blocked.message) if blocked else (Reason.STARTING, "")
    late = server.started is not None and now - server.started >= timedelta(seconds=limit)
    if late and not (server.was_ready or endpoint.status.url):
        cause = f": {message}" if message else ""
        return _fail(endpoint, server, f"did not become ready within {limit} s{cause}", now, (StopServer(),))
    left = limit - (now - server.started).total_seconds() if server.started and not late else None
    if server.started is None and endpoint.spec.replicas:
        left = START_SECONDS  # no event reports that its first pod runs
    waiting = _not_ready(endpoint, reason, message, now)
    return Decision(waiting, events=changes.blocked_event(endpoint, blocked), requeue_after=left)


def _serve(endpoint: Endpoint, server: ServerView, now: datetime) -> Decision[EndpointStatus]:
    """The server is ready; a policy must also serve the wanted checkpoint."""
    wanted, served = endpoint.spec.version, server.version
    if wanted and wanted != served:
        load = (LoadVersion(wanted),)
        if not endpoint.status.version:
            return Decision(_not_ready(endpoint, Reason.SERVING, f"loading {wanted}", now), load, (), LOAD_SECONDS)
        return Decision(_ready(endpoint, server.url, server.port, Reason.SERVING, now), load, (), LOAD_SECONDS)
    events = _ready_event(endpoint, server)
    if wanted != endpoint.status.version:
        events = (*events, Event("Loaded", f"every pod serves {wanted or 'the base model'}"))
    status = _ready(endpoint, server.url, server.port, Reason.READY, now)
    return Decision(status.model_copy(update={"version": wanted}), events=events)


def _handle_exit(endpoint: Endpoint, server: ServerView, now: datetime) -> Decision[EndpointStatus]:
    """The server exited: counts that once, waits, starts it again."""
    status = endpoint.status
    if status.retry_time is None:
        failures = status.failures + (0 if server.was_ready else 1)
        cause = attempts.describe(server.exit_code, server.lines)
        if failures >= STARTS or (not server.was_ready and server.exit_code == attempts.INVALID_INPUT):
            return _fail(endpoint, server, f"exited before it was ready: {cause}", now)
        again = attempts.retry_time(failures, now)
        message = f"{endpoint.spec.role} server exited ({cause}); restarting{_on_port(server)}"
        update = {"failures": failures, "restarts": status.restarts + 1, "retry_time": again}
        waiting = _not_ready(endpoint, Reason.RESTARTING, message, now).model_copy(update=update)
        return Decision(waiting, events=(Event("Restarted", message, warning=True),), requeue_after=0)
    if now < status.retry_time:
        return Decision(status, requeue_after=(status.retry_time - now).total_seconds())
    port = server.port if server.was_ready else (status.port or endpoint.spec.port)
    return Decision(status.model_copy(update={"retry_time": None}), (StartServer(port),))


def _on_port(server: ServerView) -> str:
    return f" on port {server.port}" if server.was_ready and server.port else ""


def _ready_event(endpoint: Endpoint, server: ServerView) -> tuple[Event, ...]:
    if endpoint.holds("Ready"):
        return ()
    return (Event("Ready", f"{endpoint.spec.role} server is ready at {server.url}"),)


def _ready(endpoint: Endpoint, url: str, port: int, reason: Reason, now: datetime) -> EndpointStatus:
    generation = endpoint.metadata.generation
    updated = conditions.put(endpoint.status.conditions, "Ready", True, reason, now=now, generation=generation)
    updated = conditions.put(updated, "Progressing", False, reason, now=now, generation=generation)
    update = {"conditions": updated, "observed_generation": generation, "url": url, "port": port, "failures": 0}
    return endpoint.status.model_copy(update=update)


def _not_ready(
    endpoint: Endpoint, reason: Reason, message: str, now: datetime, *, progressing: bool = True
) -> EndpointStatus:
    generation = endpoint.metadata.generation
    updated = endpoint.status.conditions
    for type_, holds in (("Ready", False), ("Progressing", progressing)):
        updated = conditions.put(
            updated,
            type_,  # type: ignore[arg-type]
            holds,
            reason,
            message,
            now=now,
            generation=generation,
        )
    start = endpoint.status.start_time or now
    update = {"conditions": updated, "observed_generation": generation, "start_time": start}
    return endpoint.status.model_copy(update=update)


def _fail(
    endpoint: Endpoint, server: ServerView, cause: str, now: datetime, actions: tuple[Action, ...] = ()
) -> Decision[EndpointStatus]:
    """The Endpoint has failed: its server is not started again."""
    message = f"{endpoint.spec.role} server {cause}"
    if not server.lines:
        message += "; its log is empty"
    status = _not_ready(endpoint, Reason.SERVER_FAILED, message, now, progressing=False)
    event = Event("ServerFailed", message, warning=True)
    return Decision(status.model_copy(update={"retry_time": None}), actions, (event,))

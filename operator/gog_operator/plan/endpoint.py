"""One server: started, restarted on its port when it dies, given up when it never answers.

A server that dies after having answered is the world's unreliability, and the run outlives it: clients retry, and the
address stays. One that has never answered is a mistake in its settings: a few tries (something else may hold the port
for a moment), then the endpoint fails with the last words of its log. An endpoint with a `url` is somebody else's
server: nothing is started and nothing is watched. A policy serves a checkpoint by its version: an address stays ready
with the old one until every pod has the new one.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from gog_operator.api import conditions
from gog_operator.api.meta import Reason
from gog_operator.api.objects import Endpoint, EndpointStatus
from gog_operator.plan import attempts, data
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
"""Between looks at pods that load a checkpoint."""
TRIES = 3


@dataclass(frozen=True)
class Facts:
    server: ServerView | None
    data: DataView


def plan(endpoint: Endpoint, facts: Facts, now: datetime) -> Decision[EndpointStatus]:
    status, server = endpoint.status, facts.server
    if endpoint.spec.url:
        return Decision(_ready(endpoint, endpoint.spec.url, 0, Reason.EXTERNAL, now))
    if endpoint.spec.suspend:
        held = _not_ready(endpoint, Reason.SUSPENDED, "suspended", now)
        return Decision(held, (StopServer(),) if server else ())
    if server is not None and server.replicas != status.replicas:
        status = status.model_copy(update={"replicas": server.replicas})
        endpoint = endpoint.model_copy(update={"status": status})
    if failed(endpoint):
        return Decision(status, (StopServer(),) if server and server.state != "exited" else ())
    if not data.ready(endpoint.spec.data, facts.data):
        return _without_data(endpoint, facts.data, now)
    if server is None or not server.current:
        starting = _not_ready(endpoint, Reason.STARTING, "", now).model_copy(update={"retry_time": None})
        return Decision(starting, (StartServer(status.port or endpoint.spec.port),))
    if server.state == "ready":
        return _serving(endpoint, server, now)
    if server.state == "exited":
        return _died(endpoint, server, now)
    return _starting(endpoint, server, now)


def _without_data(endpoint: Endpoint, seen: DataView, now: datetime) -> Decision[EndpointStatus]:
    """Has the dataset made and waits for it; where that does not get on, or has failed, says so."""
    failure = data.failure(seen)
    blocked = Blocked(Reason.DATA_FAILED, failure) if failure else seen.blocked
    reason, message = (blocked.reason, blocked.message) if blocked else (Reason.PREPARING, "waits for the dataset")
    waiting = _not_ready(endpoint, reason, message, now)
    return Decision(waiting, data.preparation(endpoint.spec.data, seen), _troubled(endpoint, blocked))


def _troubled(endpoint: Endpoint, blocked: Blocked | None) -> tuple[Event, ...]:
    """A blocked as an event, once."""
    ready = endpoint.condition("Ready")
    if blocked is None or (ready is not None and ready.reason == blocked.reason):
        return ()
    return (Event(str(blocked.reason), blocked.message, warning=True),)


def _starting(endpoint: Endpoint, server: ServerView, now: datetime) -> Decision[EndpointStatus]:
    """Not ready yet, or not any more: given up only if it never was."""
    limit, blocked = endpoint.spec.startup_seconds, server.blocked
    reason, message = (blocked.reason, blocked.message) if blocked else (Reason.STARTING, "")
    late = server.started is not None and now - server.started >= timedelta(seconds=limit)
    if late and not (server.was_ready or endpoint.status.url):
        told = f": {message}" if message else ""
        return _given_up(endpoint, server, f"did not answer within {limit} s{told}", now, (StopServer(),))
    left = limit - (now - server.started).total_seconds() if server.started and not late else None
    waiting = _not_ready(endpoint, reason, message, now)
    return Decision(waiting, events=_troubled(endpoint, blocked), requeue_after=left)


def _serving(endpoint: Endpoint, server: ServerView, now: datetime) -> Decision[EndpointStatus]:
    """It answers; a policy must also answer with the wanted checkpoint."""
    wanted, served = endpoint.spec.version, server.version
    if wanted and wanted != served:
        load = (LoadVersion(wanted),)
        if not endpoint.status.version:
            return Decision(_not_ready(endpoint, Reason.SERVING, f"loads {wanted}", now), load, (), LOAD_SECONDS)
        return Decision(_ready(endpoint, server.url, server.port, Reason.SERVING, now), load, (), LOAD_SECONDS)
    events = _announced(endpoint, server)
    if wanted != endpoint.status.version:
        events = (*events, Event("Loaded", f"every pod serves {wanted or 'the base model'}"))
    status = _ready(endpoint, server.url, server.port, Reason.READY, now)
    return Decision(status.model_copy(update={"version": wanted}), events=events)


def failed(endpoint: Endpoint) -> bool:
    progressing = endpoint.condition("Progressing")
    return progressing is not None and progressing.reason == Reason.SERVER_FAILED


def _died(endpoint: Endpoint, server: ServerView, now: datetime) -> Decision[EndpointStatus]:
    """A server that exited: count it once, wait, start it again."""
    status = endpoint.status
    if status.retry_time is None:
        failures = status.failures + (0 if server.was_ready else 1)
        cause = attempts.why(server.exit_code, server.lines)
        if failures >= TRIES or (not server.was_ready and server.exit_code == attempts.INVALID_INPUT):
            return _given_up(endpoint, server, f"ended before it answered: {cause}", now)
        again = attempts.retry_time(failures, now)
        message = f"{endpoint.spec.role} server ended ({cause}); it is started again" + _on_port(server)
        update = {"failures": failures, "restarts": status.restarts + 1, "retry_time": again}
        waiting = _not_ready(endpoint, Reason.RESTARTING, message, now).model_copy(update=update)
        return Decision(waiting, events=(Event("Restarted", message, warning=True),), requeue_after=0)
    if now < status.retry_time:
        return Decision(status, requeue_after=(status.retry_time - now).total_seconds())
    port = server.port if server.was_ready else (status.port or endpoint.spec.port)
    return Decision(status.model_copy(update={"retry_time": None}), (StartServer(port),))


def _on_port(server: ServerView) -> str:
    return f" on port {server.port}" if server.was_ready and server.port else ""


def _announced(endpoint: Endpoint, server: ServerView) -> tuple[Event, ...]:
    if endpoint.holds("Ready"):
        return ()
    return (Event("Ready", f"{endpoint.spec.role} server answers at {server.url}"),)


def _ready(endpoint: Endpoint, url: str, port: int, reason: Reason, now: datetime) -> EndpointStatus:
    generation = endpoint.metadata.generation
    kept = conditions.put(endpoint.status.conditions, "Ready", True, reason, now=now, generation=generation)
    kept = conditions.put(kept, "Progressing", False, reason, now=now, generation=generation)
    update = {"conditions": kept, "observed_generation": generation, "url": url, "port": port, "failures": 0}
    return endpoint.status.model_copy(update=update)


def _not_ready(endpoint: Endpoint, reason: Reason, message: str, now: datetime) -> EndpointStatus:
    generation = endpoint.metadata.generation
    kept = conditions.put(endpoint.status.conditions, "Ready", False, reason, message, now=now, generation=generation)
    kept = conditions.put(kept, "Progressing", True, reason, message, now=now, generation=generation)
    update = {"conditions": kept, "observed_generation": generation, "start_time": endpoint.status.start_time or now}
    return endpoint.status.model_copy(update=update)


def _given_up(
    endpoint: Endpoint, server: ServerView, cause: str, now: datetime, actions: tuple[Action, ...] = ()
) -> Decision[EndpointStatus]:
    message = f"{endpoint.spec.role} server {cause}"
    if not server.lines:
        message += "; its log is empty"
    status = _not_ready(endpoint, Reason.SERVER_FAILED, message, now)
    kept = conditions.put(status.conditions, "Progressing", False, Reason.SERVER_FAILED, message, now=now)
    event = Event("ServerFailed", message, warning=True)
    return Decision(status.model_copy(update={"conditions": kept, "retry_time": None}), actions, (event,))

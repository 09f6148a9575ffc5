"""One server: started, restarted on its port when it exits, failed when it never becomes ready. Pure.

A server that exits after it was ready is a fault of the moment, and the run survives it: clients retry, and the address
stays the same. A server that was never ready has wrong settings: after three starts (another process may have held the
port for a moment) the ToolServer fails with the last line of its log, and starts anew once its spec has changed. A ToolServer
with a `url` describes an existing server: gog starts and observes nothing. A policy serves a checkpoint by its version: the
address stays ready with the old version until every pod has the new one.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from gog_operator.api import conditions
from gog_operator.api.meta import ImageStatus, Reason
from gog_operator.api.objects import ToolServer, ToolServerStatus
from gog_operator.plan import attempts, changes, data, images, preparation
from gog_operator.plan.actions import (
    Action,
    Blocked,
    DataView,
    Decision,
    Event,
    LoadVersion,
    PrepareData,
    ServerView,
    StartServer,
    StopServer,
)

LOAD_SECONDS = 2.0
"""Between passes while pods load a checkpoint."""
START_SECONDS = 15.0
"""Between passes while no pod of the server runs."""
STARTS = 3
"""Starts in a row, none of which became ready, after which the ToolServer fails."""


@dataclass(frozen=True)
class Facts:
    """What was observed of a ToolServer."""

    server: ServerView | None
    """Its server; None when there is none."""
    data: DataView
    """The dataset."""
    wakes: bool = False
    """Whether a pass follows by itself when its first pod may run."""


def plan(tool_server: ToolServer, facts: Facts, now: datetime) -> Decision[ToolServerStatus]:
    """What to do about a ToolServer. The first rule that applies decides."""
    status, server = tool_server.status, facts.server
    if tool_server.spec.url:
        return Decision(_ready(tool_server, tool_server.spec.url, 0, Reason.EXTERNAL, now))
    if tool_server.spec.suspend:
        held = _not_ready(tool_server, Reason.SUSPENDED, "suspended", now).model_copy(update={"pods": ()})
        return Decision(held, (StopServer(),) if server else ())
    if server is not None:
        tool_server = _with_observations(tool_server, server, now)
        status = tool_server.status
    if server is not None and server.state != "exited" and status.retry_time is not None:
        # Its start was due, and has happened; the pass that started it lost a conflict over the status.
        status = status.model_copy(update={"retry_time": None})
        tool_server = tool_server.model_copy(update={"status": status})
    if is_corrected(tool_server):
        status = status.model_copy(update={"failures": 0, "retry_time": None})
        tool_server = tool_server.model_copy(update={"status": status})
    elif failed(tool_server):
        return Decision(status, (StopServer(),) if server and server.state != "exited" else ())
    if not data.ready(tool_server.spec.data, facts.data):
        return _wait_for_data(tool_server, facts.data, now)
    tool_server = preparation.over(tool_server)
    status = tool_server.status
    if server is None or not server.current:
        starting = _not_ready(tool_server, Reason.STARTING, "", now).model_copy(update={"retry_time": None})
        return Decision(starting, (StartServer(status.port or tool_server.spec.port),))
    if server.state == "ready":
        return _serve(tool_server, server, now)
    if server.state == "exited":
        return _handle_exit(tool_server, server, now)
    return _wait_until_ready(tool_server, facts, server, now)


def _with_observations(tool_server: ToolServer, server: ServerView, now: datetime) -> ToolServer:
    """The ToolServer with what its pods report. Another image than the one before is not resolved yet."""
    status = tool_server.status
    known = status.image if server.image == status.image.reference and not server.images else ImageStatus()
    image = images.observed(known.model_copy(update={"reference": server.image}), server.images)
    update: dict[str, Any] = {"replicas": server.replicas, "selector": server.selector}
    if server.image:
        update["image"] = image
    if server.pods:
        update["pods"] = server.pods
    if (pinned := images.pinned(image)) is not None:
        update["conditions"] = conditions.put(
            status.conditions, "ImagePinned", *pinned, now=now, generation=tool_server.metadata.generation
        )
    return tool_server.model_copy(update={"status": status.model_copy(update=update)})


def failed(tool_server: ToolServer) -> bool:
    """Whether the ToolServer's server is no longer started."""
    progressing = tool_server.condition("Progressing")
    return progressing is not None and progressing.reason == Reason.SERVER_FAILED


def is_corrected(tool_server: ToolServer) -> bool:
    """Whether the spec of a failed ToolServer has changed since it failed."""
    progressing = tool_server.condition("Progressing")
    known = progressing.observed_generation if progressing is not None else 0
    return failed(tool_server) and tool_server.metadata.generation > known


def failure(tool_server: ToolServer) -> str | None:
    """Why the ToolServer has failed; None if it has not, or if its spec has changed since."""
    progressing = tool_server.condition("Progressing")
    if progressing is None or not failed(tool_server) or is_corrected(tool_server):
        return None
    return progressing.message


def _wait_for_data(tool_server: ToolServer, view: DataView, now: datetime) -> Decision[ToolServerStatus]:
    """Prepares the dataset and waits for it; reports what blocks it, or why it failed."""
    if view.state == "unavailable":
        return data.plan(tool_server, view, "", now)
    tool_server, failure = preparation.begun(tool_server), data.failure(view)
    blocked = Blocked(Reason.DATA_FAILED, failure) if failure else view.blocked
    reason, message = (blocked.reason, blocked.message) if blocked else (Reason.PREPARING, "waiting for the dataset")
    waiting = _not_ready(tool_server, reason, message, now)
    actions = (PrepareData(),) if view.state == "absent" else ()
    return Decision(waiting, actions, changes.blocked_event(tool_server, blocked))


def _wait_until_ready(
    tool_server: ToolServer, facts: Facts, server: ServerView, now: datetime
) -> Decision[ToolServerStatus]:
    """Not ready yet, or not ready any more. Only a server that was never ready fails, after `startupSeconds` from its first
    running pod: to wait for a node is no fault of the server."""
    limit, blocked = tool_server.spec.startup_seconds, server.blocked
    reason, message = (blocked.reason, blocked.message) if blocked else (Reason.STARTING, "")
    late = server.started is not None and now - server.started >= timedelta(seconds=limit)
    if late and not (server.was_ready or tool_server.status.url):
        cause = f": {message}" if message else ""
        return _fail(tool_server, server, f"did not become ready within {limit} s{cause}", now, (StopServer(),))
    left = limit - (now - server.started).total_seconds() if server.started and not late else None
    if server.started is None and tool_server.spec.replicas and not facts.wakes:
        left = START_SECONDS
    waiting = _not_ready(tool_server, reason, message, now)
    return Decision(waiting, events=changes.blocked_event(tool_server, blocked), requeue_after=left)


def _serve(tool_server: ToolServer, server: ServerView, now: datetime) -> Decision[ToolServerStatus]:
    """The server is ready; a policy must also serve the wanted checkpoint."""
    wanted, served = tool_server.spec.version, server.version
    if tool_server.spec.role == "agent":  # its versions are its policy's (plan.agent)
        wanted = served = tool_server.status.version
    if wanted and wanted != served:
        load = (LoadVersion(wanted),)
        if not tool_server.status.version:
            return Decision(_not_ready(tool_server, Reason.SERVING, f"loading {wanted}", now), load, (), LOAD_SECONDS)
        return Decision(_ready(tool_server, server.url, server.port, Reason.SERVING, now), load, (), LOAD_SECONDS)
    events = _ready_event(tool_server, server)
    if wanted != tool_server.status.version:
        events = (*events, Event("Loaded", f"every pod serves {wanted or 'the base model'}"))
    missing = server.blocked
    if missing is None:
        status = _ready(tool_server, server.url, server.port, Reason.READY, now)
    else:
        status = _ready(tool_server, server.url, server.port, missing.reason, now, missing.message)
        events = (*events, *changes.blocked_event(tool_server, missing))
    return Decision(status.model_copy(update={"version": wanted}), events=events)


def _handle_exit(tool_server: ToolServer, server: ServerView, now: datetime) -> Decision[ToolServerStatus]:
    """The server exited: counts that once, waits, starts it again."""
    status = tool_server.status
    if status.retry_time is None:
        failures = status.failures + (0 if server.was_ready else 1)
        cause = attempts.describe(server.exit_code, server.lines)
        if failures >= STARTS or (not server.was_ready and server.exit_code == attempts.INVALID_INPUT):
            return _fail(tool_server, server, f"exited before it was ready: {cause}", now)
        again = attempts.retry_time(failures, now)
        message = f"{tool_server.spec.role} server exited ({cause}); restarting{_on_port(server)}"
        update = {"failures": failures, "restarts": status.restarts + 1, "retry_time": again}
        waiting = _not_ready(tool_server, Reason.RESTARTING, message, now).model_copy(update=update)
        return Decision(waiting, events=(Event("Restarted", message, warning=True),), requeue_after=0)
    if now < status.retry_time:
        return Decision(status, requeue_after=(status.retry_time - now).total_seconds())
    port = server.port if server.was_ready else (status.port or tool_server.spec.port)
    return Decision(status.model_copy(update={"retry_time": None}), (StartServer(port),))


def _on_port(server: ServerView) -> str:
    return f" on port {server.port}" if server.was_ready and server.port else ""


def _ready_event(tool_server: ToolServer, server: ServerView) -> tuple[Event, ...]:
    if tool_server.holds("Ready"):
        return ()
    return (Event("Ready", f"{tool_server.spec.role} server is ready at {server.url}"),)


def _ready(
    tool_server: ToolServer, url: str, port: int, reason: Reason, now: datetime, missing: str = ""
) -> ToolServerStatus:
    """The status of a server that answers. missing: which of its replicas do not, and why."""
    generation, updated = tool_server.metadata.generation, tool_server.status.conditions
    updated = conditions.put(updated, "Ready", True, reason, missing, now=now, generation=generation)
    updated = conditions.put(updated, "Progressing", bool(missing), reason, missing, now=now, generation=generation)
    update = {"conditions": updated, "observed_generation": generation, "url": url, "port": port, "failures": 0}
    return tool_server.status.model_copy(update=update)


def _not_ready(
    tool_server: ToolServer, reason: Reason, message: str, now: datetime, *, progressing: bool = True
) -> ToolServerStatus:
    generation = tool_server.metadata.generation
    updated = tool_server.status.conditions
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
    start = tool_server.status.start_time or now
    update = {"conditions": updated, "observed_generation": generation, "start_time": start}
    return tool_server.status.model_copy(update=update)


def _fail(
    tool_server: ToolServer, server: ServerView, cause: str, now: datetime, actions: tuple[Action, ...] = ()
) -> Decision[ToolServerStatus]:
    """The ToolServer has failed: its server is not started again."""
    message = f"{tool_server.spec.role} server {cause}"
    if not server.lines:
        message += "; its log is empty"
    status = _not_ready(tool_server, Reason.SERVER_FAILED, message, now, progressing=False)
    event = Event("ServerFailed", message, warning=True)
    return Decision(status.model_copy(update={"retry_time": None}), actions, (event,))

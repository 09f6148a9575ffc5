"""The check of a run's tools, before its first stage asks for a GPU. Pure.

The tools' servers are started first. Then every tool is called once, from where a stage would call it. A fault that a user
has to correct ends the run; one that may pass is checked again after a delay, for as long as the attempts of a stage
would wait together. The checks themselves and the delays between them count, not the time of day, so that a run is not
ended because the control loop was down for longer than that. The number of a check is written to the status before its job
is created, as that of an attempt is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from gog_operator.api.meta import Reason
from gog_operator.api.objects import GoGRun, RunStatus, ToolServer
from gog_operator.api.records import ToolCheck
from gog_operator.build import children, tool_check
from gog_operator.plan import attempts, changes
from gog_operator.plan.actions import Action, CheckTools, Decision, Event, ToolCheckView


@dataclass(frozen=True)
class Failure:
    """Why the run ends."""

    reason: Reason
    """Reason of its conditions."""
    message: str
    """Message of its conditions."""


def is_due(run: GoGRun) -> bool:
    """Whether the tools of a run without stages still have to be checked."""
    return run.spec.check_tools and not run.holds("ToolsChecked") and tool_check.is_needed(run)


def failure(run: GoGRun, view: ToolCheckView) -> Failure | None:
    """Why the run ends because of its tools; None if it does not."""
    if view.state == "failed":
        return Failure(Reason.TOOLS_FAILED, view.message)
    patience = _patience_seconds(run)
    if view.state == "unavailable" and _waited_seconds(run.status.tool_check, view) >= patience:
        return Failure(Reason.TOOLS_DOWN, f"{view.message} (for {patience:.0f} s)")
    return None


def plan(
    run: GoGRun, servers: Mapping[str, ToolServer], view: ToolCheckView, actions: tuple[Action, ...], now: datetime
) -> Decision[RunStatus]:
    """What to do until the tools have been checked.

    Args:
        run: The run.
        servers: Its ToolServers by name.
        view: The check of that number, as the cluster reports it.
        actions: What else is to be done: the creation of ToolServers.
        now: The time.
    """
    names = children.tool_names(run)
    missing = [name for name in names.values() if name not in servers or not servers[name].holds("Ready")]
    if missing:
        ready = (False, Reason.WAITING, f"waiting for {', '.join(missing)}")
        return Decision(changes.with_conditions(run, Ready=ready, now=now).status, actions)
    state = run.status.tool_check
    if view.state == "unavailable":
        return _retry(run, view, actions, now)
    if state.number == 0:
        return _number(run, actions)
    known = run.condition("ToolsChecked")
    if known is None:
        run = changes.with_conditions(run, ToolsChecked=(False, Reason.CHECKING_TOOLS, ""), now=now)
    ready = (False, Reason.CHECKING_TOOLS, "calling every tool once")
    run, events = changes.with_ready(run, ready, view.blocked, now)
    if view.state == "absent":
        urls = {role: servers[name].status.url for role, name in names.items()}
        actions = (*actions, CheckTools(urls))
    return Decision(run.status, actions, events)


def passed(run: GoGRun, view: ToolCheckView, actions: tuple[Action, ...], now: datetime) -> Decision[RunStatus]:
    """Reports that every tool answers. A later pass creates the first stage, because a run that has stages has no check,
    and the condition would be lost with a conflict over the status."""
    checked = changes.with_conditions(run, ToolsChecked=(True, Reason.TOOLS_ANSWER, view.message), now=now)
    event = Event("ToolsChecked", f"{run.name}: {view.message}")
    return Decision(checked.status, actions, (event,), requeue_after=0)


def _number(run: GoGRun, actions: tuple[Action, ...]) -> Decision[RunStatus]:
    """Writes the check's number first; a later pass creates its job."""
    state = run.status.tool_check
    waited = state.waited_seconds + (attempts.delay(state.number) if state.retry_time is not None else 0.0)
    numbered = ToolCheck(number=state.number + 1, waited_seconds=waited)
    return Decision(changes.update(run, tool_check=numbered).status, actions, requeue_after=0)


def _retry(run: GoGRun, view: ToolCheckView, actions: tuple[Action, ...], now: datetime) -> Decision[RunStatus]:
    """Reports a fault that may pass, once, and checks again after a delay."""
    state = run.status.tool_check
    if state.retry_time is not None and now >= state.retry_time:
        return _number(run, actions)
    events: tuple[Event, ...] = ()
    if state.retry_time is None:
        waited = _waited_seconds(state, view)
        retry_time = attempts.retry_time(state.number, now)
        state = state.model_copy(update={"retry_time": retry_time, "waited_seconds": waited})
        message = f"{view.message}; check {state.number + 1} in {attempts.delay(state.number):.0f} s"
        down = (False, Reason.TOOLS_DOWN, view.message)
        run = changes.with_conditions(run, ToolsChecked=down, Ready=down, now=now)
        run = changes.update(run, tool_check=state)
        events = (Event(str(Reason.TOOLS_DOWN), f"{run.name}: {message}", warning=True),)
    assert state.retry_time is not None
    return Decision(run.status, actions, events, requeue_after=(state.retry_time - now).total_seconds())


def _waited_seconds(state: ToolCheck, view: ToolCheckView) -> float:
    """Seconds waited so far; a check that ended is counted once, with the time of the next one."""
    return state.waited_seconds + (view.seconds if state.retry_time is None else 0.0)


def _patience_seconds(run: GoGRun) -> float:
    """How long the attempts of a stage would wait together."""
    return run.spec.tools.outage.patience_seconds * (1 + run.spec.backoff_limit)

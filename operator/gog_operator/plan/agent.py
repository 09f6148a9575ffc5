"""An agent: its servers, its versions, where its chats go. Pure.

`spec.version` is the version that it is to serve, `status.version` the one that it serves. A new one is first loaded beside
the old one in every pod of the policy, then answers a share of the chats (`status.canary`), and then replaces the old one or
is rolled back, by the rule of `gog.canary_rule`. What the agent's servers and its routes have to be follows from the status
alone, in every pass. So an operator that dies at any point leaves a version that is served, and the next one continues with
the same canary; an agent that dies loses its counts, and the canary waits for more chats.

A rejected version is not tried again. The annotation gog.dev/rollback names a version that a user rejects: the one that is
tried, or the one that is served, which the version before it then replaces.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from gog import canary_rule, offers
from gog_operator.api import conditions
from gog_operator.api.meta import ROLLBACK, Reason
from gog_operator.api.objects import Progress, ToolServer, ToolServerStatus
from gog_operator.api.records import CanaryStatus
from gog_operator.build import agents
from gog_operator.plan import tool_server
from gog_operator.plan.actions import (
    Action,
    CreateObject,
    DataView,
    Decision,
    Event,
    PatchObject,
    ServerView,
    SetRoutes,
)

LOOK_SECONDS = 5.0
"""Between passes while a version is tried or loaded."""


@dataclass(frozen=True)
class Facts:
    """What was observed of an agent."""

    server: ServerView | None
    """Its own server; None when there is none."""
    servers: Mapping[str, ToolServer]
    """The servers that it owns, by name."""
    chats: Progress | None = None
    """What it reports of its chats; None for no answer."""
    wakes: bool = False
    """Whether a pass follows by itself when its first pod may run."""


def plan(agent: ToolServer, facts: Facts, now: datetime) -> Decision[ToolServerStatus]:
    """What to do about an agent."""
    agent, events = _versions(agent, facts, now)
    versions = " ".join(each for each in (agent.status.version, agent.status.canary.version) if each)
    wanted = agents.servers(agent, versions)
    actions = _servers(agent, wanted, facts)
    if agent.spec.suspend:
        held = tool_server.plan(agent, tool_server.Facts(facts.server, DataView("ready")), now)
        return Decision(held.status, (*actions, *held.actions), events)
    found = {each.spec.role: facts.servers.get(each.name) for each in wanted}
    failure = next((why for each in found.values() if each and (why := tool_server.failure(each)) is not None), None)
    urls = {role: each.status.url for role, each in found.items() if each is not None and each.status.url}
    waits = [role for role in found if role not in urls]
    if failure is not None or waits:
        reason = (Reason.SERVER_FAILED, failure) if failure else (Reason.WAITING, f"waiting for {', '.join(waits)}")
        status = _with(agent, now, Ready=(False, *reason), Progressing=(not failure, *reason)).status
        return Decision(status, actions, events)
    canary = agent.status.canary.version if _is_loaded(facts, agent) else ""
    routes = agents.routes(agent, urls, agent.status.version, canary)
    if facts.server is None or facts.server.routes != routes:
        actions = (*actions, SetRoutes(routes))
    own = tool_server.plan(agent, tool_server.Facts(facts.server, DataView("ready"), facts.wakes), now)
    served = [Event("Served", f"{agent.name} serves {own.status.version}")] if _is_new(agent, own.status) else []
    again = min((each for each in (own.requeue_after, _again(agent)) if each is not None), default=None)
    return Decision(own.status, (*actions, *own.actions), (*events, *own.events, *served), again)


def _again(agent: ToolServer) -> float | None:
    return LOOK_SECONDS if agent.status.canary.version else None


def _is_new(agent: ToolServer, status: ToolServerStatus) -> bool:
    """Whether the agent has just become ready for the first time."""
    return not agent.status.url and conditions.holds(status.conditions, "Ready")


def _servers(agent: ToolServer, wanted: tuple[ToolServer, ...], facts: Facts) -> tuple[Action, ...]:
    """Creates the agent's servers, and gives its policy the versions that it has to load."""
    actions: list[Action] = []
    for each in wanted:
        there = facts.servers.get(each.name)
        if there is None:
            actions += [] if agent.spec.suspend else [CreateObject(each)]
            continue
        changed: dict[str, Any] = {}
        if there.spec.suspend != agent.spec.suspend:
            changed["suspend"] = agent.spec.suspend
        if there.spec.version != each.spec.version:
            changed["version"] = each.spec.version
        actions += [PatchObject(there.kind, there.name, spec=changed)] if changed else []
    return tuple(actions)


def _is_loaded(facts: Facts, agent: ToolServer) -> bool:
    """Whether every pod of the policy has the version that is served, and the one that is tried."""
    policy = next((each for each in facts.servers.values() if each.spec.role == agents.POLICY), None)
    wanted = f"{agent.status.version} {agent.status.canary.version}"
    return policy is not None and policy.spec.version == policy.status.version == wanted


def _versions(agent: ToolServer, facts: Facts, now: datetime) -> tuple[ToolServer, tuple[Event, ...]]:
    """The agent with its versions decided. One step at a time: what follows from it is decided by the next pass."""
    status, wanted = agent.status, agent.spec.version
    canary, refused = status.canary, agent.metadata.annotations.get(ROLLBACK, "")
    if not status.version:
        return _moved(agent, canary, served=wanted), ()
    if refused and refused == canary.version:
        return _rolled_back(agent, "by request", now)
    if refused and refused == status.version and canary.previous:
        message = f"{agent.name} serves {canary.previous} again: {refused} was rolled back by request"
        back = CanaryStatus(rejected=refused)
        moved = _moved(agent, back, served=canary.previous)
        return _with(moved, now, Promoted=(False, Reason.ROLLED_BACK, message)), (_event(Reason.ROLLED_BACK, message),)
    if canary.version and wanted != canary.version:
        return _moved(agent, canary.model_copy(update={"version": "", "since": None, "looks": 0})), ()
    if canary.version:
        return _looked(agent, facts, now)
    if wanted and wanted not in (status.version, canary.rejected, refused):
        began = canary.model_copy(update={"version": wanted, "since": now, "looks": 0})
        message = f"{agent.name} tries {wanted} on {_share(agent)} of its chats"
        moved = _with(_moved(agent, began), now, Promoted=(False, Reason.CANARY, message))
        return moved, (_event(Reason.CANARY, message),)
    return agent, ()


def _looked(agent: ToolServer, facts: Facts, now: datetime) -> tuple[ToolServer, tuple[Event, ...]]:
    """The agent after a look at the version that is tried."""
    status, canary = agent.status, agent.status.canary
    if not _is_loaded(facts, agent):
        late = canary.since is not None and (now - canary.since).total_seconds() > agent.spec.startup_seconds
        if late:
            return _rolled_back(agent, f"it was not loaded within {agent.spec.startup_seconds} s", now)
        return agent, ()
    counted = _counts(facts.chats, status.version, canary.version)
    if counted is None or agent.spec.agent is None:
        return agent, ()
    look = canary_rule.look(*counted, agent.spec.agent.canary, canary.looks)
    if look.decision == "roll_back":
        return _rolled_back(agent, look.sentence, now)
    if look.decision == "promote":
        message = f"{agent.name} serves {canary.version} in place of {status.version}: {look.sentence}"
        moved = _moved(agent, CanaryStatus(previous=status.version), served=canary.version)
        return _with(moved, now, Promoted=(True, Reason.PROMOTED, message)), (_event(Reason.PROMOTED, message),)
    message = f"{agent.name} tries {canary.version} on {_share(agent)} of its chats: {look.sentence}"
    moved = _moved(agent, canary.model_copy(update={"looks": look.looks}))
    return _with(moved, now, Promoted=(False, Reason.CANARY, message)), ()


def _rolled_back(agent: ToolServer, why: str, now: datetime) -> tuple[ToolServer, tuple[Event, ...]]:
    canary = agent.status.canary
    message = f"{agent.name} serves {agent.status.version} still: {canary.version} was rolled back: {why}"
    moved = _moved(agent, CanaryStatus(previous=canary.previous, rejected=canary.version))
    return _with(moved, now, Promoted=(False, Reason.ROLLED_BACK, message)), (_event(Reason.ROLLED_BACK, message),)


def _event(reason: Reason, message: str) -> Event:
    return Event(str(reason), message, warning=reason == Reason.ROLLED_BACK)


def _share(agent: ToolServer) -> str:
    return f"{agent.spec.agent.canary.share:.0%}" if agent.spec.agent is not None else ""


def _counts(reported: Progress | None, served: str, canary: str) -> tuple[canary_rule.Chats, canary_rule.Chats] | None:
    """Chats of both versions, as the agent reports them; None for no report, or one about other versions. The report is
    untrusted, because a tenant's pod sends it."""
    about = reported.metrics if reported is not None else {}
    if (about.get("served"), about.get("canary")) != (offers.name_of(served), offers.name_of(canary)):
        return None
    chats = about.get("chats")
    try:
        one, other = (_chats(chats[arm]) for arm in ("served", "canary"))  # type: ignore[index]
    except (KeyError, TypeError, ValueError):
        return None
    return one, other


def _chats(reported: Mapping[str, Any]) -> canary_rule.Chats:
    """Counts in order. Raises KeyError, TypeError, ValueError."""
    numbers = [int(reported[name]) for name in ("chats", "failed", "malformed")]
    sums = [float(reported[name]) for name in ("log_seconds", "log_seconds_squared")]
    if not 0 <= numbers[1] <= numbers[0] or not 0 <= numbers[2] <= numbers[0] - numbers[1]:
        raise ValueError("counts contradict each other")
    return canary_rule.Chats(*numbers, *sums)


def _moved(agent: ToolServer, canary: CanaryStatus, served: str | None = None) -> ToolServer:
    update: dict[str, Any] = {"canary": canary} | ({} if served is None else {"version": served})
    return agent.model_copy(update={"status": agent.status.model_copy(update=update)})


def _with(agent: ToolServer, now: datetime, **changes: tuple[bool, Reason, str]) -> ToolServer:
    found = agent.status.conditions
    for type_, state in changes.items():
        found = conditions.put(
            found,
            type_,  # type: ignore[arg-type]
            *state,
            now=now,
            generation=agent.metadata.generation,
        )
    return agent.model_copy(update={"status": agent.status.model_copy(update={"conditions": found})})

"""How a run that is complete offers its policy to its agent. Pure.

Its evaluation passes the gate or does not (condition Promoted), which publishes the policy as a version of the agent. The run
then creates the agent, or asks the one that is there for the new version, once; what the agent does with it, by its canary,
is the condition Served. Afterwards the run has nothing more to do with it: other runs, and users, ask for other versions.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from gog import spec as settings
from gog.offers import Asked
from gog_operator.api.meta import Condition, Reason
from gog_operator.api.objects import GoGRun, RunStatus, ToolServer
from gog_operator.build import agents
from gog_operator.plan import changes, tool_server
from gog_operator.plan.actions import (
    Action,
    CreateObject,
    DataView,
    Decision,
    Event,
    PatchObject,
    PublicationView,
    Publish,
)

AGAIN_SECONDS = 10.0
"""Between passes until the agent has decided about the version: it is no child of the run, so no event reports that."""
DECIDED = (Reason.READY, Reason.ROLLED_BACK, Reason.REPLACED, Reason.SERVER_FAILED)
"""Reasons of Served after which the run has nothing more to do."""


UNPUBLISHED = PublicationView("absent")


@dataclass(frozen=True)
class Facts:
    """What was observed of a run's agent."""

    agent: ToolServer | None = None
    """The agent; None where there is none yet."""
    publication: PublicationView = UNPUBLISHED
    """The publication of the run's version."""
    store: settings.StoreSpec | None = None
    """Store for the versions of an agent that the run starts."""


def is_due(run: GoGRun) -> bool:
    """Whether the run still has to do with its agent."""
    if run.spec.serve is None or not run.holds("Complete"):
        return False
    promoted, served = run.condition("Promoted"), run.condition("Served")
    if promoted is None or promoted.status == "True":
        return served is None or served.reason not in DECIDED
    return promoted.reason == Reason.GATE


def is_handed_over(run: GoGRun) -> bool:
    """Whether nothing is left to do but to wait for the agent."""
    return not is_due(run) or run.condition("Served") is not None


def plan(
    run: GoGRun, facts: Facts, data: DataView, checkpoints: tuple[str, str], actions: tuple[Action, ...], now: datetime
) -> Decision[RunStatus]:
    """What to do about the agent of a complete run.

    Args:
        run: the run.
        facts: what was observed.
        data: its dataset.
        checkpoints: the trained one, and that of its evaluation; empty for none.
        actions: what the run does besides.
        now: the time.
    """
    if not is_due(run):
        return Decision(run.status, actions)
    if facts.agent is not None and facts.agent.spec.role != "agent":
        return _closed(run, Reason.NAME_TAKEN, f"ToolServer {facts.agent.name} is no agent", actions, now)
    if run.condition("Promoted") is None or run.holds("Promoted") is False:
        return _gate(run, facts, checkpoints, actions, now)
    return _hand_over(run, facts, data, checkpoints, actions, now)


def _gate(
    run: GoGRun, facts: Facts, checkpoints: tuple[str, str], actions: tuple[Action, ...], now: datetime
) -> Decision[RunStatus]:
    view, (trained, evaluation) = facts.publication, checkpoints
    if not trained or not evaluation:
        return _closed(run, Reason.GATE_FAILED, "no policy was trained and evaluated", actions, now)
    if view.state == "failed":
        return _closed(run, Reason.STORE_FAILED, f"the version cannot be published: {view.message}", actions, now)
    if view.state != "done":
        message = view.blocked.message if view.blocked is not None else f"comparing {evaluation} with what is served"
        waiting = changes.with_conditions(run, Promoted=(False, Reason.GATE, message), now=now)
        start = (_publish(run, facts, checkpoints),) if view.state == "absent" else ()
        return Decision(waiting.status, (*actions, *start), requeue_after=AGAIN_SECONDS)
    if not view.published.version:
        return _closed(run, Reason.GATE_FAILED, view.published.sentence, actions, now)
    message = f"{view.published.version}: {view.published.sentence}"
    passed = changes.with_conditions(run, Promoted=(True, Reason.GATE_PASSED, message), now=now)
    passed = changes.update(passed, version=view.published.version)
    return Decision(passed.status, actions, (Event("Promoted", message),), requeue_after=0)


def _closed(
    run: GoGRun, reason: Reason, message: str, actions: tuple[Action, ...], now: datetime
) -> Decision[RunStatus]:
    """The version is not offered, and what is served stays."""
    closed = changes.with_conditions(run, Promoted=(False, reason, message), now=now)
    return Decision(closed.status, actions, (Event("NotPromoted", f"{run.name}: {message}", warning=True),))


def _publish(run: GoGRun, facts: Facts, checkpoints: tuple[str, str]) -> Publish:
    assert run.spec.serve is not None
    assert facts.store is not None
    served, store = "", facts.store
    if facts.agent is not None:
        served, store = facts.agent.status.version or facts.agent.spec.version, facts.agent.spec.store or store
    trained, evaluation = checkpoints
    asked = Asked(
        agent=agents.name_of(run),
        run=f"{run.name} {run.metadata.uid}",
        checkpoint=trained,
        policy=trained.partition("/")[0],
        evaluation=evaluation,
        served=served,
        gate=run.spec.serve.gate,
    )
    return Publish(asked, store)


def _hand_over(
    run: GoGRun,
    facts: Facts,
    data: DataView,
    checkpoints: tuple[str, str],
    actions: tuple[Action, ...],
    now: datetime,
) -> Decision[RunStatus]:
    """Creates the agent or asks it for the version, and reports what it does with it."""
    agent, version = facts.agent, run.status.version
    if agent is None and facts.publication.state != "done":  # its result, which the agent is made of, was lost
        return Decision(run.status, (*actions, _publish(run, facts, checkpoints)), requeue_after=AGAIN_SECONDS)
    if agent is None:
        assert facts.store is not None
        made = agents.agent(run, facts.store, data.spec, facts.publication.published)
        actions = (*actions, CreateObject(made))
    elif _number(agent.spec.version, version) < _number(version, version):
        actions = (*actions, PatchObject(agent.kind, agent.name, spec={"version": version}))
    state = _served(agent, version)
    known = run.condition("Served")
    done = changes.with_conditions(run, Served=state, now=now)
    events = () if known is not None and known.reason == state[1] else (_event(run, state),)
    return Decision(done.status, actions, events, requeue_after=None if state[1] in DECIDED else AGAIN_SECONDS)


def _event(run: GoGRun, state: tuple[bool, Reason, str]) -> Event:
    names = {Reason.READY: "Served", Reason.SERVING: "Serving"}
    bad = state[1] in (Reason.ROLLED_BACK, Reason.SERVER_FAILED)
    return Event(names.get(state[1], str(state[1])), f"{run.name}: {state[2]}", warning=bad)


def _number(version: str, like: str) -> int:
    """Number of an agent's version; 0 for another one, which a user has named."""
    key, _, number = version.partition("/")
    return int(number) if key == like.partition("/")[0] and number.isdigit() else 0


def _served(agent: ToolServer | None, version: str) -> tuple[bool, Reason, str]:
    """Status, reason and message of Served. agent: None before it exists."""
    if agent is None or _number(agent.spec.version, version) < _number(version, version):
        return False, Reason.SERVING, f"offered {version}"
    failure, decided = tool_server.failure(agent), agent.condition("Promoted")
    message = _message(decided) or f"{agent.name} has not loaded {version} yet"
    if agent.status.version == version and agent.holds("Ready"):
        return True, Reason.READY, f"{agent.name} serves {version}"
    if agent.status.canary.rejected == version:
        return False, Reason.ROLLED_BACK, message
    if agent.spec.version != version:
        return False, Reason.REPLACED, f"{agent.name} was asked for {agent.spec.version} since"
    if failure is not None:
        return False, Reason.SERVER_FAILED, failure
    if agent.status.canary.version == version:
        return False, Reason.CANARY, message
    return False, Reason.SERVING, _message(agent.condition("Ready")) or message


def _message(condition: Condition | None) -> str:
    return condition.message if condition is not None else ""

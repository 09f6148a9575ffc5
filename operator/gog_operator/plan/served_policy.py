"""How a complete run without an agent serves its policy: by a ToolServer of its own. Pure.

The condition Served says whether every pod of it has the trained checkpoint. A server at an address of the user is never
reported as serving: the operator holds no key of it, and sends requests only to pods that it has created, because a tenant
could name any address that the operator reaches. The condition then says what the user does instead.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from gog import offers
from gog import spec as settings
from gog_operator.api.meta import Reason
from gog_operator.api.objects import GoGRun, RunStatus, Stage, ToolServer
from gog_operator.build import children
from gog_operator.plan import changes, tool_server
from gog_operator.plan.actions import Action, CreateObject, Decision, Event, PatchObject

NOT_SERVED = (Reason.SERVER_FAILED, Reason.EXTERNAL)
"""Reasons of Served with which the run has nothing to wait for."""


def served_version(server: ToolServer | None, trained: str, stages: Iterable[Stage]) -> str:
    """The checkpoint that is served: the one that the server has where its stage was deleted since, else the trained one.

    Args:
        server: The ToolServer of the policy; None before it exists.
        trained: The trained checkpoint of the stages that exist; empty for none.
        stages: These stages.
    """
    served = server.spec.version if server is not None else ""
    key = served.partition("/")[0]
    return trained if key in ("", *(each.store_key for each in stages)) else served


def plan(
    run: GoGRun,
    server: ToolServer | None,
    version: str,
    store: settings.StoreSpec,
    actions: tuple[Action, ...],
    now: datetime,
) -> Decision[RunStatus]:
    """What to do about the policy's server.

    Args:
        run: The run, which is complete.
        server: The ToolServer of its policy; None before it exists.
        version: The trained checkpoint.
        store: The run's store.
        actions: What the run does besides.
        now: The time.
    """
    if server is None:
        actions = (*actions, CreateObject(children.policy(run, store, version)))
    elif server.spec.version != version:
        actions = (*actions, PatchObject(server.kind, server.name, spec={"version": version}))
    known = run.condition("Served")
    served = _external(run, version) or _serving(server, version)
    reported = changes.with_conditions(run, Served=served, now=now)
    is_known = served[1] == (known.reason if known is not None else Reason.SERVING)
    return Decision(reported.status, actions, () if is_known else (_event(*served),))


def _event(holds: bool, reason: Reason, message: str) -> Event:
    name = "NotServed" if reason in NOT_SERVED else "Served" if holds else "Serving"
    return Event(name, message, warning=reason == Reason.SERVER_FAILED)


def _external(run: GoGRun, version: str) -> tuple[bool, Reason, str] | None:
    """The state of a policy at an address of the user; None where the operator starts its server."""
    given = run.spec.endpoints.policy
    if given is None or given.url is None:
        return None
    remedy = (
        f"load it there by POST /v1/load_lora_adapter as {offers.name_of(version)}, or leave out endpoints.policy.url"
    )
    return False, Reason.EXTERNAL, f"{version} is not loaded into servers at endpoints.policy.url: {remedy}"


def _serving(server: ToolServer | None, version: str) -> tuple[bool, Reason, str]:
    """Status, reason and message of the condition Served. server: None before it exists."""
    if server is None or server.spec.version != version:
        return False, Reason.SERVING, f"loading {version}"
    failure = tool_server.failure(server)
    if failure is not None:
        return False, Reason.SERVER_FAILED, failure
    if server.holds("Ready") and server.status.version == version:
        return True, Reason.READY, f"{server.name} serves {version}"
    ready = server.condition("Ready")
    cause = f": {ready.message}" if ready is not None and ready.message else ""
    return False, Reason.SERVING, f"loading {version}{cause}"

"""Counts runs, stages and tool servers by condition, as metrics of the control plane (`gog.metrics`).

The operator passes listed objects, `gog run` passes objects from files. An object counts under the first of these
conditions that is true: Complete, Failed, Suspended, Ready; otherwise under Pending.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

from gog import metrics
from gog_operator.api.meta import Reason
from gog_operator.api.objects import Object, Stage
from gog_operator.plan.actions import Event

ORDER = ("Complete", "Failed", "Suspended", "Ready")
OUTCOMES = {
    "Complete": "succeeded",
    "Retrying": "failed",
    str(Reason.BACKOFF_LIMIT): "failed",
    str(Reason.INVALID_INPUT): "failed",
    "Interrupted": "interrupted",
    str(Reason.CANCELLED): "interrupted",
}
"""Outcome of a stage's attempt by the reason of an event. A suspended attempt ends when the next one starts."""


def record(documents: Iterable[dict[str, Any]]) -> None:
    """Counts objects, given as Kubernetes documents."""
    runs: Counter[str] = Counter()
    stages: Counter[tuple[str, str]] = Counter()
    tool_servers: Counter[tuple[str, str]] = Counter()
    for each in documents:
        kind, condition = each["kind"], condition_of(each)
        if kind == "GoGRun":
            runs[condition] += 1
        elif kind == "ToolServer":
            tool_servers[str(each.get("spec", {}).get("role")), "true" if condition == "Ready" else "false"] += 1
        else:
            stages[kind, condition] += 1
    metrics.record_object_counts(runs, stages, tool_servers)


def condition_of(document: dict[str, Any]) -> str:
    """The condition under which an object counts."""
    conditions = (document.get("status") or {}).get("conditions") or ()
    true = {each.get("type") for each in conditions if each.get("status") == "True"}
    return next((each for each in ORDER if each in true), "Pending")


def record_attempt(thing: Object, event: Event) -> None:
    """Counts an attempt when an event reports its end; ignores other events."""
    outcome = OUTCOMES.get(event.reason)
    if isinstance(thing, Stage) and outcome is not None and thing.status.attempt > 0:
        metrics.record_attempt(thing.kind, outcome)

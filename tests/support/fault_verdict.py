"""Checks the outcome of a run with a fault against the same run without one. Pure."""

from __future__ import annotations

from typing import Any

from support.fault_cases import ENDINGS, INTERFERENCE, Outcome
from support.fault_harness import OVER
from support.faulty_api import ANSWERS

EXTRA_CALLS = 150
"""Calls permitted in addition to those of the run without a fault, because a restart lists and reads everything once.
More calls indicate a loop."""


def fault_found(outcome: Outcome, baseline: Outcome) -> str:
    """What is wrong with the outcome; empty if nothing is. baseline: the outcome without a fault."""
    if outcome.violation:
        return outcome.violation
    # A deleted stage runs again, and a request that fails seven times is sent seven more times.
    times = 2 if outcome.case.fault in (*INTERFERENCE, "every answer") else 1
    if len(outcome.calls) > times * len(baseline.calls) + EXTRA_CALLS:
        return f"{len(outcome.calls)} calls"
    if outcome.case.fault in ENDINGS:
        return f"left behind: {sorted(outcome.state)}" if outcome.state else ""
    if outcome.case.fault in INTERFERENCE:
        return _unfinished(outcome, baseline)
    return _difference(outcome.state, baseline.state) or _false_events(outcome, baseline)


def _difference(state: dict[str, Any], baseline: dict[str, Any]) -> str:
    keys = [key for key in {**state, **baseline} if state.get(key, "absent") != baseline.get(key, "absent")]
    return "; ".join(f"{key}: {state.get(key, 'absent')} instead of {baseline.get(key, 'absent')}" for key in keys)


def _false_events(outcome: Outcome, baseline: Outcome) -> str:
    """Events that the run without a fault does not have, except for refusals by the server, which did occur."""
    occurred = (" RefusedByCluster: ", ANSWERS["403"][0].message)
    new = (each for each in outcome.events if each not in baseline.events)
    extra = [each for each in new if not any(part in each for part in occurred)]
    return "; ".join(f"event {each}" for each in extra)


def _unfinished(outcome: Outcome, baseline: Outcome) -> str:
    """Interference may cost attempts only, so the custom resources must end in the same state. A run that was complete
    before stays complete and creates nothing again."""
    run, ours = "gogruns.gog.dev/world", [key for key in baseline.state if ".gog.dev/" in key]
    if outcome.case.call > _decision(outcome, len(outcome.calls)):
        ours = [run]
    elif outcome.case.fault == "stage deleted" and outcome.case.call > _decision(outcome, outcome.completed):
        ours = [key for key in ours if "stages." not in key]  # a complete run that waits for its policy's server
    live = [key for key, each in outcome.state.items() if "batch.volcano" in key and each not in OVER]
    if live:
        return f"live: {live}"
    found = {key: _without_attempts(outcome.state[key]) for key in ours if key in outcome.state}
    return _difference(found, {key: _without_attempts(baseline.state[key]) for key in ours})


def _decision(outcome: Outcome, last: int) -> int:
    """Number of the last read of a custom resource before the last write of the run among so many calls. What happens after
    it cannot change that decision, only what the operator then does about a stage that looks unfinished."""
    requests = [call.request for call in outcome.calls[:last]]
    writes = [n for n, request in enumerate(requests) if request.startswith("PATCH") and "/gogruns/" in request]
    before = requests[: max(writes, default=0)]
    return max((n for n, each in enumerate(before, 1) if each.startswith("GET /apis/gog.dev/")), default=0)


def _without_attempts(essence: list[Any]) -> list[Any]:
    """The essence of a custom resource without what depends on the number of attempts."""
    conditions, status, spec = essence
    numbers = ("attempt", "observedAttempt", "observedGeneration", "failures", "toolCheck", "jobRef")
    rest = {key: value for key, value in status.items() if key not in (*numbers, "image", "images")}
    # A status that was wiped when stages existed does not tell that the tools were checked before, and a job that was
    # deleted does not tell what its pods ran.
    conditions = [each for each in conditions if each[0] not in ("ToolsChecked", "ImagePinned")]
    if isinstance(rest.get("ended"), dict):
        rest["ended"] = {key: value for key, value in rest["ended"].items() if key != "attempt"}
    return [conditions, rest, spec]

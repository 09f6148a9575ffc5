"""Simulated runs with one fault each, and their outcomes.

A case is plain data, so that it can be sent to another process and named in a failure. Its fault occurs at one of the
operator's calls, counted over the whole run: the operator dies, the server returns an error or is down for some time,
or another user of the cluster changes the run's objects. `fault_verdict` checks the outcome.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from gog_operator.cluster import paths
from support import faulty_api
from support.fault_harness import DROP, RESYNC_SECONDS, Harness, condition
from support.faulty_api import ANSWERS, Call, Fault, Send

LEAST = {"stages": {"skip": ["curate", "stratify", "grpo", "evaluate"]}, "endpoints": {"policy": {}}}


def _fails_once(harness: Harness) -> None:
    """The first attempt fails halfway, and the second one resumes from its checkpoint."""

    def found(key: str) -> dict[str, Any]:
        stage = harness.get("SFTStage", "world-sft")  # another user may have deleted it
        done = key != "sft" or stage.get("status", {}).get("attempt", 0) > 1
        return {"step": 10 if done else 5, "complete": done}

    harness.scenario.outcome = lambda name: "Failed" if name.endswith("-a1") else "Completed"
    harness.scenario.step = found


CHECKED = {"stages": {"skip": ["sft", "stratify", "grpo", "evaluate"]}}


def _tools_fail_once(harness: Harness) -> None:
    """The first check of the tools finds one that is down."""

    def end(name: str) -> dict[str, Any]:
        down = {"outcome": "unavailable", "message": "endpoints.judge: it fails: HTTP 503"}
        return {"exitCode": 0, "message": json.dumps(down)} if name.endswith("-tools-1") else {}

    harness.scenario.store_job = end


ERASED = {"stages": LEAST["stages"], "artifactPolicy": "Delete", "ttlSecondsAfterFinished": 0}
FETCHED = {"stages": LEAST["stages"], "model": {"base": "hf://org/model"}, "modelCache": {"claimName": "models"}}


VARIANTS: dict[str, tuple[dict[str, Any], Callable[[Harness], None]]] = {
    "least": (LEAST, _fails_once),
    "world": ({"endpoints": {"policy": {}}}, lambda harness: None),
    "tools": (CHECKED, _tools_fail_once),
    "erased": (ERASED, lambda harness: None),
    "fetched": (FETCHED, lambda harness: None),
}
"""Spec and scenario of each variant of the run. `least` makes every kind of call with as few calls as possible, but
calls no tool; `tools` checks them twice; `erased` is deleted with its artifacts at its end; `fetched` fills a model cache
first."""


@dataclass(frozen=True)
class Case:
    variant: str
    """A key of VARIANTS."""
    fault: str = "none"
    """A key of FAULTS."""
    call: int = 0
    """Number of the call at which the fault occurs, from 1."""


@dataclass(frozen=True)
class Outcome:
    case: Case
    state: dict[str, Any]
    """The final state (`Harness.state`)."""
    events: dict[str, int]
    """Number of events by text."""
    calls: tuple[Call, ...]
    """Every call of the operator."""
    completed: int
    """Number of the call that wrote that the run is complete; 0 for none."""
    violation: str
    """A broken invariant, or why the run did not end; empty for neither."""
    seconds: float
    """Wall time."""

    @property
    def struck(self) -> str:
        """The request at which the fault occurred."""
        return self.calls[self.case.call - 1].request if 0 < self.case.call <= len(self.calls) else "none"


def deaths(calls: Sequence[Call]) -> Iterator[tuple[str, int]]:
    """(fault, call) of every death with a distinct effect.

    Only an operator's external effects outlive it, and the actors move only between its turns. Two deaths in one turn
    without an effect in between therefore leave the same state to the next operator, and only one of them is simulated.
    """
    seen: set[tuple[int, int]] = set()
    for number, call in enumerate(calls, 1):
        for fault, effects in (("dies before", call.effects), ("dies after", call.effects + call.writes)):
            if (call.turn, effects) not in seen:
                seen.add((call.turn, effects))
                yield fault, number


# -- faults


def _outage(call: int, harness: Harness) -> Fault:
    """An outage during which two resyncs fail."""
    begun: list[float] = []

    def over() -> bool:
        begun.append(harness.clock.passed)
        return harness.clock.passed - begun[0] > 2 * RESYNC_SECONDS

    return faulty_api.outage(call, over)


def _interference(change: Callable[[Harness], None]) -> Callable[[int, Harness], Fault]:
    """Another user makes a change right after a call."""

    def make(call: int, harness: Harness) -> Fault:
        def fault(number: int, send: Send) -> dict[str, Any]:
            try:
                return send()
            finally:
                if number == call:
                    change(harness)

        return fault

    return make


def _deafens(late: Any) -> Callable[[Harness], None]:
    """The operator's watches break: for two resyncs it receives no events, and decides on what it had seen before."""

    def change(harness: Harness) -> None:
        harness.deaf_until = harness.clock.passed + 2 * RESYNC_SECONDS
        harness.late = list(late) if late is not DROP else DROP

    return change


def _answer(error: Any, landed: bool) -> Callable[[int, Harness], Fault]:
    return lambda call, harness: faulty_api.answers(call, error, landed=landed)


def _removes(resource: paths.Resource, ending: str = "") -> Callable[[Harness], None]:
    """Deletes every object of a resource whose name has that suffix."""

    def change(harness: Harness) -> None:
        for path, _ in harness.recorder.of(resource):
            if path.endswith(ending):
                harness.remove(path)

    return change


def _edits(resource: paths.Resource, patch: dict[str, Any], part: str = "") -> Callable[[Harness], None]:
    def change(harness: Harness) -> None:
        for path, _ in harness.recorder.of(resource):
            harness.edit(f"{path}{part}", patch)

    return change


def _wipes(*kinds: str) -> Callable[[Harness], None]:
    def change(harness: Harness) -> None:
        for kind in kinds:
            for path, body in harness.recorder.of(paths.OURS[kind]):
                harness.edit(f"{path}/status", {"status": dict.fromkeys(body.get("status", {}))})

    return change


def _removes_namespace(harness: Harness) -> None:
    harness.recorder.api.call("DELETE", f"/api/v1/namespaces/{harness.namespace}")
    harness.recorder.ended = True


_SFT, _RUN, _SERVER = paths.OURS["SFTStage"], paths.OURS["GoGRun"], paths.OURS["ToolServer"]
_UNLABELLED = {"metadata": {"labels": {"gog.dev/run": None, "gog.dev/owner": None, "app.kubernetes.io/name": None}}}
INTERFERENCE: dict[str, Callable[[Harness], None]] = {
    "stage deleted": _removes(_SFT),
    "job deleted": _removes(paths.VOLCANO_JOBS),
    "store job deleted": _removes(paths.JOBS),
    "check deleted": _removes(paths.JOBS, "-check"),
    "settings deleted": _removes(paths.CONFIG_MAPS),
    "tool server deleted": _removes(_SERVER),
    "server deleted": _removes(paths.INFERENCE_SERVICES),
    "server edited": _edits(paths.INFERENCE_SERVICES, {"spec": {"predictor": {"minReplicas": 3}}}),
    "server's annotations lost": _edits(paths.INFERENCE_SERVICES, {"metadata": {"annotations": None}}),
    "service deleted": _removes(paths.SERVICES),
    "deployment deleted": _removes(paths.DEPLOYMENTS),
    "stage's status wiped": _wipes("SFTStage"),
    "every status wiped": _wipes("GoGRun", "SFTStage", "ToolServer"),
    "stage's labels gone": _edits(_SFT, _UNLABELLED),
    "job's labels gone": _edits(paths.VOLCANO_JOBS, _UNLABELLED),
    "store job's labels gone": _edits(paths.JOBS, _UNLABELLED),
}
"""Interference that costs at most attempts."""
ENDINGS: dict[str, Callable[[Harness], None]] = {"run deleted": _removes(_RUN), "namespace deleted": _removes_namespace}
"""Interference that ends the run."""
STALE: dict[str, Callable[[Harness], None]] = {"events lost": _deafens(DROP), "events late": _deafens([])}
"""Ways in which what the operator knows is outdated. They cost time only."""
FAULTS: dict[str, Callable[[int, Harness], Fault]] = {
    "none": lambda call, harness: faulty_api.no_fault,
    "dies before": lambda call, harness: faulty_api.dies_before(call),
    "dies after": lambda call, harness: faulty_api.dies_after(call),
    **{name: _answer(*each) for name, each in ANSWERS.items()},
    "every answer": lambda call, harness: faulty_api.EveryAnswer(call, harness.faulty.calls),
    "outage": _outage,
    **{name: _interference(change) for name, change in (INTERFERENCE | ENDINGS | STALE).items()},
}


# -- running


def run_case(kubeconfig: str, namespace: str, case: Case) -> Outcome:
    """Simulates one case to its end. Failures of the operator become violations and are never raised."""
    begun, violation = time.monotonic(), ""
    spec, direct = VARIANTS[case.variant]
    harness = Harness(kubeconfig, namespace, **spec)
    fault = harness.faulty.fault = FAULTS[case.fault](case.call, harness)
    direct(harness)
    completions = _completions(harness)
    try:
        harness.run_to_the_end()
        _use_up(fault, harness)
    except AssertionError as error:
        violation = str(error)
    state = json.loads(json.dumps(harness.state()).replace(namespace, "NAMESPACE"))
    events = {each.replace(namespace, "NAMESPACE"): count for each, count in harness.events().items()}
    calls = tuple(replace(each, request=each.request.replace(namespace, "NAMESPACE")) for each in harness.faulty.calls)
    return Outcome(case, state, events, calls, max(completions), violation, time.monotonic() - begun)


def _completions(harness: Harness) -> list[int]:
    """Numbers of the calls that completed the run, after a leading 0; the list grows during the run."""
    found, was = [0], [False]

    def note(type_: str, body: dict[str, Any]) -> None:
        if body["kind"] == "GoGRun":
            now = condition(body, "Complete", "True") is not None
            if now and not was[0]:
                found.append(len(harness.faulty.calls))
            was[0] = now

    harness.recorder.listeners.append(note)
    return found


def _use_up(fault: Fault, harness: Harness) -> None:
    """Delivers the remaining error responses to passes over the finished run, which must change nothing."""
    for _ in ANSWERS:
        if isinstance(fault, faulty_api.EveryAnswer) and fault.left:
            harness.rest()

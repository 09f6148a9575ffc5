"""Plays of a run with one fault each, many at a time, and what they came to.

A case is plain words, so that it can be handed to another process and named in a failure. Its fault strikes at one of
the operator's calls, counted over the whole run: the operator dies there, the server answers badly or is gone for a
while, or somebody else lays hands on the run's objects. Whatever it is, the end is judged here.
"""

from __future__ import annotations

import json
import multiprocessing
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from dataclasses import dataclass
from typing import Any

from gog_operator.cluster import paths
from support import faulty_api
from support.fault_harness import OVER, RESYNC, Theatre
from support.faulty_api import ANSWERS, Fault, Request

PROCESSES = 2
LEAST = {"stages": {"skip": ["curate", "stratify", "grpo", "evaluate"]}, "endpoints": {"policy": {}}}
EXTRA_CALLS = 150
"""More calls than that, over the run without a fault, are a loop: a new life lists and looks at everything once."""


def _fails_once(theatre: Theatre) -> None:
    """The first attempt fails halfway, the second goes on from there."""

    def found(key: str) -> dict[str, Any]:
        done = key != "sft" or theatre.get("SFTStage", "world-sft")["status"]["attempt"] > 1
        return {"step": 10 if done else 5, "complete": done}

    theatre.play.outcome = lambda name: "Failed" if name.endswith("-a1") else "Completed"
    theatre.play.step = found


VARIANTS: dict[str, tuple[dict[str, Any], Callable[[Theatre], None]]] = {
    "least": (LEAST, _fails_once),
    "world": ({"endpoints": {"policy": {}}}, lambda theatre: None),
}
"""Spec of the run, and how things go: the first has every kind of call of an operator in as few as can be."""


@dataclass(frozen=True)
class Case:
    """fault: one of FAULTS; call: where it strikes."""

    variant: str
    fault: str = "none"
    call: int = 0


@dataclass(frozen=True)
class Outcome:
    """state: what there was at the end, by name. wrong: what must never be, or that the play did not come to an end.
    events: sentence -> how often. calls: all that the operator asked."""

    case: Case
    state: dict[str, Any]
    events: dict[str, int]
    calls: tuple[str, ...]
    wrong: str
    seconds: float

    @property
    def struck(self) -> str:
        """The call at which the fault struck."""
        return self.calls[self.case.call - 1] if 0 < self.case.call <= len(self.calls) else "none"


# -- faults


def _outage(call: int, theatre: Theatre) -> Fault:
    """Longer than a resync: two of them fail."""
    begun: list[float] = []

    def over() -> bool:
        begun.append(theatre.clock.passed)
        return theatre.clock.passed - begun[0] > 2 * RESYNC

    return faulty_api.is_out(call, over)


def _meddling(deed: Callable[[Theatre], None]) -> Callable[[int, Theatre], Fault]:
    """Somebody does it right after a call."""

    def make(call: int, theatre: Theatre) -> Fault:
        def fault(number: int, request: Request) -> dict[str, Any]:
            try:
                return request()
            finally:
                if number == call:
                    deed(theatre)

        return fault

    return make


def _answer(error: Any, landed: bool) -> Callable[[int, Theatre], Fault]:
    return lambda call, theatre: faulty_api.answers(call, error, landed=landed)


def _every_answer(call: int, theatre: Theatre) -> Fault:
    return faulty_api.answers_again_and_again(call, theatre.faulty.calls, list(ANSWERS.values()))


def _removes(resource: paths.Resource, ending: str = "") -> Callable[[Theatre], None]:
    """Everything of a resource whose name ends so."""

    def deed(theatre: Theatre) -> None:
        for path, _ in theatre.witness.of(resource):
            if path.endswith(ending):
                theatre.remove(path)

    return deed


def _edits(resource: paths.Resource, patch: dict[str, Any], part: str = "") -> Callable[[Theatre], None]:
    def deed(theatre: Theatre) -> None:
        for path, _ in theatre.witness.of(resource):
            theatre.edit(f"{path}{part}", patch)

    return deed


def _wipes(*kinds: str) -> Callable[[Theatre], None]:
    def deed(theatre: Theatre) -> None:
        for kind in kinds:
            for path, body in theatre.witness.of(paths.OURS[kind]):
                theatre.edit(f"{path}/status", {"status": dict.fromkeys(body.get("status", {}))})

    return deed


def _removes_namespace(theatre: Theatre) -> None:
    theatre.witness.api.call("DELETE", f"/api/v1/namespaces/{theatre.namespace}")
    theatre.witness.ended = True


_SFT, _RUN, _ENDPOINT = paths.OURS["SFTStage"], paths.OURS["GoGRun"], paths.OURS["Endpoint"]
_UNLABELLED = {"metadata": {"labels": {"gog.dev/run": None, "gog.dev/owner": None, "app.kubernetes.io/name": None}}}
MEDDLING: dict[str, Callable[[Theatre], None]] = {
    "stage deleted": _removes(_SFT),
    "job deleted": _removes(paths.VOLCANO_JOBS),
    "mover deleted": _removes(paths.JOBS),
    "check deleted": _removes(paths.JOBS, "-check"),
    "settings deleted": _removes(paths.CONFIG_MAPS),
    "endpoint deleted": _removes(_ENDPOINT),
    "server deleted": _removes(paths.INFERENCE_SERVICES),
    "server edited": _edits(paths.INFERENCE_SERVICES, {"spec": {"predictor": {"minReplicas": 3}}}),
    "server's settings lost": _edits(paths.INFERENCE_SERVICES, {"metadata": {"annotations": None}}),
    "service deleted": _removes(paths.SERVICES),
    "deployment deleted": _removes(paths.DEPLOYMENTS),
    "stage's status wiped": _wipes("SFTStage"),
    "every status wiped": _wipes("GoGRun", "SFTStage", "Endpoint"),
    "stage's labels gone": _edits(_SFT, _UNLABELLED),
    "job's labels gone": _edits(paths.VOLCANO_JOBS, _UNLABELLED),
    "mover's labels gone": _edits(paths.JOBS, _UNLABELLED),
}
ENDINGS: dict[str, Callable[[Theatre], None]] = {"run deleted": _removes(_RUN), "namespace deleted": _removes_namespace}
FAULTS: dict[str, Callable[[int, Theatre], Fault]] = {
    "none": lambda call, theatre: faulty_api.nothing,
    "dies before": lambda call, theatre: faulty_api.dies_before(call),
    "dies after": lambda call, theatre: faulty_api.dies_after(call),
    **{name: _answer(*each) for name, each in ANSWERS.items()},
    "every answer": _every_answer,
    "outage": _outage,
    **{name: _meddling(deed) for name, deed in (MEDDLING | ENDINGS).items()},
}


# -- playing


def play(kubeconfig: str, namespace: str, case: Case) -> Outcome:
    """One case to its end. Never raises for what the operator does."""
    begun, wrong = time.monotonic(), ""
    spec, direct = VARIANTS[case.variant]
    theatre = Theatre(kubeconfig, namespace, **spec)
    theatre.faulty.fault = FAULTS[case.fault](case.call, theatre)
    direct(theatre)
    try:
        theatre.to_the_end()
        for _ in ANSWERS if case.fault == "every answer" else ():
            theatre.rest()  # each look may meet another bad answer, and change nothing for that
    except AssertionError as error:
        wrong = str(error)
    state = json.loads(json.dumps(theatre.state()).replace(namespace, "NAMESPACE"))
    events = {each.replace(namespace, "NAMESPACE"): count for each, count in theatre.events().items()}
    calls = tuple(each.replace(namespace, "NAMESPACE") for each in theatre.faulty.calls)
    return Outcome(case, state, events, calls, wrong, time.monotonic() - begun)


def players() -> ProcessPoolExecutor:
    """Processes that play cases, one for each core."""
    return ProcessPoolExecutor(PROCESSES, multiprocessing.get_context("spawn"))


def play_all(pool: Executor, kubeconfig: str, prefix: str, cases: Iterable[Case]) -> Iterator[Outcome]:
    """Several at a time. prefix: of their namespaces."""
    waiting = [pool.submit(play, kubeconfig, f"{prefix}-{number}", case) for number, case in enumerate(cases)]
    for each in waiting:
        yield each.result()


# -- judging


def wrong_with(outcome: Outcome, sane: Outcome) -> str:
    """What is not as it should be at the end of a case, seen beside the run without a fault; nothing if all is well."""
    if outcome.wrong:
        return outcome.wrong
    # A stage that was deleted is gone through again, and what fails again and again is asked again and again.
    times = 2 if outcome.case.fault in (*MEDDLING, "every answer") else 1
    if len(outcome.calls) > times * len(sane.calls) + EXTRA_CALLS:
        return f"{len(outcome.calls)} calls"
    if outcome.case.fault in ENDINGS:
        return f"left behind: {sorted(outcome.state)}" if outcome.state else ""
    if outcome.case.fault in MEDDLING:
        return _unfinished(outcome, sane)
    return _difference(outcome.state, sane.state) or _untold(outcome, sane)


def _difference(state: dict[str, Any], sane: dict[str, Any]) -> str:
    keys = [key for key in {**state, **sane} if state.get(key, "absent") != sane.get(key, "absent")]
    return "; ".join(f"{key}: {state.get(key, 'absent')} instead of {sane.get(key, 'absent')}" for key in keys)


def _untold(outcome: Outcome, sane: Outcome) -> str:
    """Events tell nothing that did not happen; what the server refused did."""
    told = [each for each in outcome.events if each not in sane.events and " RefusedByCluster: " not in each]
    return "; ".join(f"event {each}" for each in told)


def _unfinished(outcome: Outcome, sane: Outcome) -> str:
    """What others have destroyed may cost attempts, and nothing else: custom resources end as they would have. A run that
    was complete already stays so, and makes nothing anew."""
    run = "gogruns.gog.dev/world"
    told = [index for index, call in enumerate(outcome.calls, 1) if call.startswith("PATCH") and "/gogruns/" in call]
    late = outcome.case.call >= max(told, default=0)
    ours = [run] if late else [key for key in sane.state if ".gog.dev/" in key]
    live = [key for key, each in outcome.state.items() if "batch.volcano" in key and each not in OVER]
    if live:
        return f"live: {live}"
    found = {key: _without_attempts(outcome.state[key]) for key in ours if key in outcome.state}
    return _difference(found, {key: _without_attempts(sane.state[key]) for key in ours})


def _without_attempts(essence: list[Any]) -> list[Any]:
    conditions, rest, spec = essence
    return [
        conditions,
        {key: value for key, value in rest.items() if key not in ("attempt", "seenAttempt", "failures")},
        spec,
    ]

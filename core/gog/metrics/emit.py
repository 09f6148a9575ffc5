"""One function for each event that metrics record. They take microseconds, and none of them fails.

With several ranks, the counts of all ranks are added up on the page of rank 0 (`serving.MultiRankRegistry`). Times of day
are arguments, in seconds since 1970.
"""

from __future__ import annotations

import contextlib
import contextvars
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from gog import step_metrics
from gog.metrics import definitions as d

# ---- tools


def initialise_tool(tool: str, backend: str) -> None:
    """Sets every outcome of a tool to 0 before the first call."""
    for outcome in d.OUTCOMES:
        d.TOOL_CALLS.labels(tool, backend, outcome)
        d.TOOL_ATTEMPTS.labels(tool, backend, outcome)
    for decision in d.DECISIONS:
        d.TOOL_DECISIONS.labels(tool, decision)
    for result in d.CACHE_RESULTS:
        d.TOOL_CACHE.labels(tool, result)
    for outcome in d.VERDICTS if tool == "judge" else ():
        d.VERDICTS_TOTAL.labels(outcome)
    d.TOOL_BREAKER.labels(tool, backend)
    d.TOOL_DOWN.labels(tool)
    d.SPEND.labels(tool, backend)


def record_tool_call(tool: str, backend: str, outcome: str, seconds: float) -> None:
    d.TOOL_CALLS.labels(tool, backend, outcome).inc()
    d.TOOL_SECONDS.labels(tool, backend).observe(seconds)


def record_tool_attempt(tool: str, backend: str, outcome: str) -> None:
    d.TOOL_ATTEMPTS.labels(tool, backend, outcome).inc()


def record_decision(tool: str, decision: str) -> None:
    d.TOOL_DECISIONS.labels(tool, decision).inc()


def record_cache_lookup(tool: str, result: str) -> None:
    d.TOOL_CACHE.labels(tool, result).inc()


def record_breaker(tool: str, backend: str, is_open: bool) -> None:
    d.TOOL_BREAKER.labels(tool, backend).set(is_open)


def record_tool_down(tool: str, is_down: bool) -> None:
    d.TOOL_DOWN.labels(tool).set(is_down)


def record_event_loop_lag(seconds: float) -> None:
    d.LOOP_LAG.observe(seconds)


def record_cost(tool: str, backend: str, spent: float | None, left: float | None) -> None:
    """Cost of an answer and credit left, in US dollars; None where the back end does not report it."""
    if spent:
        d.SPEND.labels(tool, backend).inc(spent)
    if left is not None:
        d.CREDIT.labels(tool, backend).set(left)


def attempts_by_outcome() -> dict[str, dict[str, int]]:
    """{tool: {outcome: attempts}} so far; the back ends of a tool are added up."""
    table: dict[str, dict[str, int]] = {}
    for metric in d.TOOL_ATTEMPTS.collect():
        for sample in metric.samples:
            outcomes = table.setdefault(sample.labels["tool"], {})
            outcome = sample.labels["outcome"]
            outcomes[outcome] = outcomes.get(outcome, 0) + int(sample.value)
    return table


# ---- rollouts and verdicts


def initialise_rollouts(stage: str) -> None:
    for status in d.STATUSES:
        d.TRAJECTORIES.labels(stage, status)
    d.SKIPPED.labels(stage)
    for kind in d.TOKEN_KINDS:
        d.TOKENS.labels(kind)


def record_trajectory(stage: str, status: str) -> None:
    d.TRAJECTORIES.labels(stage, status).inc()


def record_skipped(stage: str) -> None:
    """One question or demonstration that cannot be used."""
    d.SKIPPED.labels(stage).inc()


def record_tokens(kind: str, count: int) -> None:
    d.TOKENS.labels(kind).inc(count)


def record_rollout(seconds: float) -> None:
    """Time of all episodes of a step."""
    d.ROLLOUT_SECONDS.observe(seconds)


def record_verdict(value: bool | None) -> None:
    d.VERDICTS_TOTAL.labels({True: "yes", False: "no", None: "undecided"}[value]).inc()


def record_judge_rate(decided: int, asked: int) -> None:
    """How many of the last answers the judge decided."""
    if asked:
        d.JUDGE_SUCCESS.set(decided / asked)


def initialise_traces() -> None:
    for outcome in d.SPANS:
        d.TRACE_SPANS.labels(outcome)


def record_trace_spans(outcome: str, count: int) -> None:
    d.TRACE_SPANS.labels(outcome).inc(count)


# ---- training


def record_progress(stage: str, step: int, total: int, now: float | None = None) -> None:
    """Position of a stage. total: 0 while unknown; now: the time when it advanced, None if it has not."""
    d.TRAIN_STEP.labels(stage).set(step)
    if total:
        d.STEPS_PLANNED.labels(stage).set(total)
    if now is not None:
        d.LAST_STEP.labels(stage).set(now)


def record_step(kind: str, stage: str, line: Mapping[str, Any]) -> None:
    """Sets the gauges of step_metrics.METRICS from a step's line of the metric log.

    Args:
        kind: the stage's kind, `sft` or `grpo`: which rows apply.
        stage: the stage's key, for the label: `grpo-no-gaze`.
        line: values by key; a key that is absent or None leaves its gauge as it is.
    """
    for row in step_metrics.of_stage(kind):
        value = line.get(row.key)
        if row.gauge and value is not None:
            gauge, labels = d.STEP_GAUGES[row.gauge], {**row.labels, **({"stage": stage} if row.by_stage else {})}
            (gauge.labels(**labels) if labels else gauge).set(value)


def record_levels(questions: Mapping[str, int]) -> None:
    """Questions graded so far, by level."""
    for level in d.LEVELS:
        d.LEVEL_QUESTIONS.labels(level).set(questions.get(level, 0))


def record_accuracy(accuracy: Mapping[str, float]) -> None:
    """Accuracy on the held-out questions, by policy."""
    for policy, share in accuracy.items():
        d.ACCURACY.labels(policy).set(share)


# ---- store

_doing: contextvars.ContextVar[str] = contextvars.ContextVar("store operation", default="")


def initialise_store() -> None:
    for operation in d.STORE_OPERATIONS:
        for outcome in d.STORE_OUTCOMES:
            d.STORE_TOTAL.labels(operation, outcome)
        d.STORE_BYTES.labels(operation)
        d.STORE_RETRIES.labels(operation)


@contextlib.contextmanager
def store_operation(operation: str, outcome_of: Callable[[Exception], str]) -> Iterator[None]:
    """Counts and times the block as one operation; a nested operation counts as part of the outer one.

    Args:
        operation: one of STORE_OPERATIONS.
        outcome_of: outcome for an exception that ends the block, one of STORE_OUTCOMES.
    """
    if _doing.get():
        yield
        return
    mark, begun, outcome = _doing.set(operation), time.perf_counter(), "ok"
    try:
        yield
    except Exception as error:
        outcome = outcome_of(error)
        raise
    finally:
        _doing.reset(mark)
        d.STORE_TOTAL.labels(operation, outcome).inc()
        d.STORE_SECONDS.labels(operation).observe(time.perf_counter() - begun)


def record_store_bytes(count: int) -> None:
    """Bytes transferred by the operation in progress."""
    if _doing.get():
        d.STORE_BYTES.labels(_doing.get()).inc(count)


def record_store_retry() -> None:
    if _doing.get():
        d.STORE_RETRIES.labels(_doing.get()).inc()


def record_checkpoint(stage: str, when: float) -> None:
    """Time at which a stage's newest checkpoint was committed."""
    d.CHECKPOINT.labels(stage).set(when)


# ---- control plane


def initialise_control() -> None:
    """Sets the counters of the operator and of `gog run` to 0."""
    for outcome in d.PASSES:
        d.RECONCILES.labels(outcome)
    for kind in d.KINDS:
        for ended in d.ATTEMPTS:
            d.STAGE_ATTEMPTS.labels(kind, ended)
    for status in EXPECTED_ERRORS:
        d.API_ERRORS.labels(status)


EXPECTED_ERRORS = ("0", "409", "429", "500", "503", "504")
"""Statuses that an API server will return some day; they start at 0, so that the first one is an increase."""


def initialise_agent() -> None:
    """Sets every outcome of a chat to 0 before the first one."""
    for arm in d.ARMS:
        for outcome in d.CHAT_OUTCOMES:
            d.AGENT_CHATS.labels(arm, outcome)
        d.AGENT_SECONDS.labels(arm)


def record_chat(arm: str, outcome: str, seconds: float | None) -> None:
    """A chat of an agent ended. seconds: its duration; None for one that failed."""
    d.AGENT_CHATS.labels(arm, outcome).inc()
    if seconds is not None:
        d.AGENT_SECONDS.labels(arm).observe(seconds)


def record_reconcile(kind: str, outcome: str, seconds: float) -> None:
    """One reconciliation of one object."""
    d.RECONCILES.labels(outcome).inc()
    d.RECONCILE_SECONDS.labels(kind).observe(seconds)


def record_api_request(method: str, status: int) -> None:
    """A request to the API server. 404 is no error: it answers the question whether an object exists."""
    d.API_REQUESTS.labels(method, str(status)).inc()
    if not 200 <= status < 300 and status != 404:
        d.API_ERRORS.labels(str(status)).inc()


def record_resync(now: float) -> None:
    d.LAST_RESYNC.set(now)


def record_readable(namespace: str, readable: bool) -> None:
    """Whether the operator can list the objects of a namespace that it watches."""
    d.NAMESPACE_READABLE.labels(namespace).set(readable)


def record_listed_objects(kind: str, count: int) -> None:
    d.OBJECTS.labels(kind).set(count)


def record_attempt(kind: str, outcome: str) -> None:
    """A finished attempt of a stage of this kind."""
    d.STAGE_ATTEMPTS.labels(kind, outcome).inc()


def record_object_counts(
    runs: Mapping[str, int], stages: Mapping[tuple[str, str], int], tool_servers: Mapping[tuple[str, str], int]
) -> None:
    """Number of runs by condition, of stages by kind and condition, of tool servers by role and readiness (`true`, `false`)."""
    for condition in d.CONDITIONS:
        d.RUN_CONDITIONS.labels(condition).set(runs.get(condition, 0))
    for kind in d.KINDS:
        for condition in d.CONDITIONS:
            d.STAGE_CONDITIONS.labels(kind, condition).set(stages.get((kind, condition), 0))
    for role in d.ROLES:
        for ready in ("true", "false"):
            d.TOOL_SERVERS.labels(role, ready).set(tool_servers.get((role, ready), 0))

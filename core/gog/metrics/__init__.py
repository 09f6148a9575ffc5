"""Every metric of gog, in one place: what it means (`definitions`), how it is emitted (`emit`), how it is read (`serving`).

Emission is a call of a function here, which costs microseconds and never fails. `python -m gog.metrics` prints the page
of documentation.
"""

from gog.metrics.definitions import (
    DEFINITIONS,
    LEADER,
    OPERATOR,
    OUTCOMES,
    QUEUE_AGE,
    QUEUE_DEPTH,
    RESYNC_SECONDS,
    RUNS,
    SERVER_OUTCOMES,
    SERVER_REQUESTS,
    SERVER_SECONDS,
    SERVERS,
    STAGES,
    TRAIN_STEP,
    WORKING,
)
from gog.metrics.emit import (
    api_answered,
    attempt_ended,
    attempts_by_outcome,
    checkpoint_saved,
    committed,
    evaluated,
    event_loop_lag,
    initialise_control,
    initialise_rollouts,
    initialise_store,
    initialise_tool,
    initialise_traces,
    listed,
    reconciled,
    record_judge_rate,
    record_levels,
    record_object_counts,
    record_progress,
    record_rollout,
    record_step,
    record_step_seconds,
    resynced,
    store_bytes,
    store_operation,
    store_retry,
    tokens,
    tool_attempt,
    tool_breaker,
    tool_cache,
    tool_call,
    tool_cost,
    tool_down,
    trace_spans,
    trajectory,
    verdict,
)

REGISTRY = STAGES.registry
"""What a stage's page shows."""

__all__ = [
    "DEFINITIONS", "LEADER", "OPERATOR", "OUTCOMES", "QUEUE_AGE", "QUEUE_DEPTH", "REGISTRY", "RESYNC_SECONDS",
    "RUNS", "SERVERS", "SERVER_OUTCOMES", "SERVER_REQUESTS", "SERVER_SECONDS", "STAGES", "TRAIN_STEP", "WORKING",
    "api_answered", "attempt_ended", "attempts_by_outcome", "checkpoint_saved", "committed", "evaluated", "event_loop_lag",
    "initialise_control", "initialise_rollouts", "initialise_store", "initialise_tool", "initialise_traces",
    "listed", "reconciled", "record_judge_rate", "record_levels", "record_object_counts",
    "record_progress", "record_rollout",
    "record_step", "record_step_seconds", "resynced", "store_bytes", "store_operation",
    "store_retry", "tokens", "tool_attempt", "tool_breaker", "tool_cache", "tool_call", "tool_cost", "tool_down", "trace_spans",
    "trajectory", "verdict",
]  # fmt: skip

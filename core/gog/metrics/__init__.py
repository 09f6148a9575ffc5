"""Every metric of gog: what it means (`definitions`), how it is recorded (`emit`), how it is scraped (`serving`).

To record a value is to call a function of this package, which takes microseconds and never fails. `python -m gog.metrics`
prints docs/metrics.md.
"""

from gog.metrics.definitions import (
    DECISIONS,
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
    attempts_by_outcome,
    initialise_agent,
    initialise_control,
    initialise_rollouts,
    initialise_store,
    initialise_tool,
    initialise_traces,
    record_accuracy,
    record_api_request,
    record_attempt,
    record_breaker,
    record_cache_lookup,
    record_chat,
    record_checkpoint,
    record_cost,
    record_decision,
    record_event_loop_lag,
    record_judge_rate,
    record_levels,
    record_listed_objects,
    record_object_counts,
    record_progress,
    record_readable,
    record_reconcile,
    record_resync,
    record_rollout,
    record_skipped,
    record_step,
    record_store_bytes,
    record_store_retry,
    record_tokens,
    record_tool_attempt,
    record_tool_call,
    record_tool_down,
    record_trace_spans,
    record_trajectory,
    record_verdict,
    store_operation,
)

REGISTRY = STAGES.registry
"""Metrics on the page of a stage."""

__all__ = [
    "DECISIONS", "DEFINITIONS", "LEADER", "OPERATOR", "OUTCOMES", "QUEUE_AGE", "QUEUE_DEPTH", "REGISTRY",
    "RESYNC_SECONDS", "RUNS", "SERVERS", "SERVER_OUTCOMES", "SERVER_REQUESTS", "SERVER_SECONDS", "STAGES", "TRAIN_STEP", "WORKING",
    "attempts_by_outcome", "initialise_agent", "initialise_control", "initialise_rollouts", "initialise_store", "initialise_tool",
    "initialise_traces", "record_accuracy", "record_api_request", "record_attempt", "record_breaker",
    "record_cache_lookup", "record_chat", "record_checkpoint", "record_cost", "record_decision", "record_event_loop_lag",
    "record_judge_rate", "record_levels", "record_listed_objects", "record_object_counts", "record_progress", "record_readable",
    "record_reconcile", "record_resync", "record_rollout", "record_skipped", "record_step",
    "record_store_bytes", "record_store_retry", "record_tokens", "record_tool_attempt", "record_tool_call",
    "record_tool_down", "record_trace_spans", "record_trajectory", "record_verdict", "store_operation",
]  # fmt: skip

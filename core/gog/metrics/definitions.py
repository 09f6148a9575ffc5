"""Every metric of gog: name, unit, meaning, labels, buckets, and on which page it is.

Names have the prefix `gog_` and base units. Labels are bounded: none holds a step, an address or an id. The values of a
label are listed here or in gog.catalog, and every outcome starts at 0, so that "no failure" and "no data" differ. Only
gog.catalog and gog.step_metrics are imported from the rest of the project, because even the smallest process has metrics.
"""

from __future__ import annotations

from prometheus_client import Gauge, ProcessCollector

from gog import catalog, step_metrics
from gog.metrics.pages import Page

OUTCOMES = (
    *("ok", "timeout", "rate_limited", "server_error", "refused", "auth", "no_credit", "connection", "malformed"),
    *("budget", "undecided", "breaker_open", "cache_miss"),
)
"""Outcomes of a tool call: ok, or the kind of failure (gog.tool_types.FailureKind)."""
DECISIONS = ("waited", "retried", "hedged", "breaker", "budget", "fell_back")
"""What the call path decided (gog.tool_types.Decision); look-ups in the cache have a metric of their own."""
CACHE_RESULTS = ("hit", "miss", "joined")
STATUSES = ("counted", "tool_failure", "judge")
TOKEN_KINDS = ("generated", "prefilled")
LEVELS = ("easy", "1", "2", "unknown")
VERDICTS = ("yes", "no", "undecided")
STORE_OPERATIONS = ("probe", "publish", "commit", "read", "fetch", "check", "put", "sweep")
STORE_OUTCOMES = ("ok", "refused", "unavailable", "error")
SERVER_OUTCOMES = ("ok", "client_error", "server_error", "gone")
KINDS = catalog.STAGE_KINDS
CONDITIONS = ("Complete", "Failed", "Suspended", "Ready", "Pending")
ROLES = catalog.ROLES
COMMANDS = tuple(server.command for server in catalog.SERVED)
ATTEMPTS = ("succeeded", "failed", "interrupted")
SPANS = ("exported", "dropped")
ARMS, CHAT_OUTCOMES = ("served", "canary"), ("answered", "malformed", "failed")
PASSES = ("ok", "unavailable", "unreadable", "error")

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
FAST_SECONDS = (0.001, 0.0025, *SECONDS)
LAG_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5)
LONG_SECONDS = (0.05, 0.25, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800, 3600)

TOOL = ", ".join(catalog.TOOL_NAMES)
BACKEND = "http; fallback: the server that is called where a tool's own has failed"
STAGE = "key of the stage: sft, grpo, grpo-no-gaze"

RUNS = Page("run")
"""Control plane: `gog run --metrics-port`, and the operator."""
OPERATOR = Page("operator", also=RUNS)
PROCESS = Page("process")
SERVERS = Page("server", also=PROCESS)
STAGES = Page("stage", also=PROCESS)
"""Rank 0 of a stage, for all its ranks."""
ProcessCollector(registry=SERVERS.registry)  # not on pages of stages: to read /proc releases the GIL ten times a scrape

# ---- tools

TOOL_CALLS = STAGES.counter(
    "gog_tool_calls", "calls", "Tool calls that the cache did not answer, by their final outcome after all retries.",
    tool=TOOL, backend=BACKEND, outcome=OUTCOMES,
)  # fmt: skip
TOOL_ATTEMPTS = STAGES.counter(
    "gog_tool_attempts", "attempts", "Attempts of tool calls, retries included: the behaviour of the back end.",
    tool=TOOL, backend=BACKEND, outcome=OUTCOMES,
)  # fmt: skip
TOOL_SECONDS = STAGES.histogram(
    "gog_tool_call_duration_seconds", "seconds", "Duration of a tool call that the cache did not answer, retries included.",
    tool=TOOL, backend=BACKEND, buckets=SECONDS,
)  # fmt: skip
TOOL_CACHE = STAGES.counter(
    "gog_tool_cache_requests", "look-ups", "Cache look-ups: hit, miss, or joined to an equal call in flight.",
    tool=TOOL, result=CACHE_RESULTS,
)  # fmt: skip
TOOL_DECISIONS = STAGES.counter(
    "gog_tool_decisions", "decisions",
    "Decisions during tool calls: held by the rate limit, repeated, hedged, refused by the breaker or a budget, sent to the fallback.",
    tool=TOOL, decision=DECISIONS,
)  # fmt: skip
TOOL_BREAKER = STAGES.gauge(
    "gog_tool_breaker_open", "0 or 1", "1 while calls are refused because too many attempts failed in a row or the account is closed.",
    tool=TOOL, backend=BACKEND,
)  # fmt: skip
TOOL_DOWN = STAGES.gauge(
    "gog_tool_down", "0 or 1", "1 while calls wait for a tool that is down; the stage's attempt fails if it stays down.",
    tool=TOOL,
)  # fmt: skip
LOOP_LAG = STAGES.histogram(
    "gog_event_loop_lag_seconds", "seconds",
    "Delay between the due time of a timer and its run in the event loop that owns the tools' sockets and deadlines.", buckets=LAG_SECONDS,
)  # fmt: skip
SPEND = STAGES.counter(
    "gog_external_spend_usd", "US dollars", "Cost of answers, as reported by back ends.",
    tool=TOOL, backend=BACKEND,
)  # fmt: skip
CREDIT = STAGES.gauge(
    "gog_external_credit_usd", "US dollars", "Credit left, as last reported by the back end; absent where no back end reports it.",
    tool=TOOL, backend=BACKEND,
)  # fmt: skip

# ---- rollouts

TRAJECTORIES = STAGES.counter(
    "gog_rollout_trajectories", "trajectories", "Finished trajectories: counted, or why they or their group are excluded.",
    stage=STAGE, status=STATUSES,
)  # fmt: skip
SKIPPED = STAGES.counter(
    "gog_stage_skipped", "questions", "Questions or demonstrations that a stage skipped because they cannot be used.",
    stage=STAGE,
)  # fmt: skip
TOKENS = STAGES.counter(
    "gog_rollout_tokens", "tokens", "Tokens of rollouts: generated by the policy, or prefilled (prompts and observations).",
    kind=TOKEN_KINDS,
)  # fmt: skip
ROLLOUT_SECONDS = STAGES.histogram(
    "gog_rollout_seconds", "seconds", "Time of all episodes of one step.", buckets=LONG_SECONDS,
)  # fmt: skip

TRACE_SPANS = STAGES.counter(
    "gog_trace_spans", "spans", "Trace spans: exported to the collector, or dropped because it was unreachable or too slow.",
    outcome=SPANS,
)  # fmt: skip

# ---- training


def _step_gauges() -> dict[str, Gauge]:
    """One gauge for each name among the rows of STEP_METRICS; rows that share a name differ in a label."""
    gauges: dict[str, Gauge] = {}
    for row in step_metrics.METRICS:
        if row.gauge and row.gauge not in gauges:
            sharing = [other for other in step_metrics.METRICS if other.gauge == row.gauge]
            labels = {name: tuple(other.labels[name] for other in sharing) for name in row.labels}
            by_stage = {"stage": STAGE} if row.by_stage else {}
            gauges[row.gauge] = STAGES.gauge(row.gauge, row.unit, row.gauge_help or row.help, **labels, **by_stage)
    return gauges


STEP_GAUGES = _step_gauges()
TRAIN_STEP = STAGES.gauge(
    "gog_train_step", "steps", "Steps done; questions or policies in stages without steps.", stage=STAGE
)
STEPS_PLANNED = STAGES.gauge("gog_train_steps_planned", "steps", "Steps planned in total.", stage=STAGE)
LAST_STEP = STAGES.gauge(
    "gog_train_last_step_timestamp_seconds", "Unix time", "Time when the stage last advanced, or started.", stage=STAGE
)

# ---- levels, evaluation, judge

LEVEL_QUESTIONS = STAGES.gauge("gog_level_questions", "questions", "Questions graded so far, by level.", level=LEVELS)
ACCURACY = STAGES.gauge(
    "gog_evaluation_accuracy",
    "share",
    "Accuracy on the held-out questions.",
    policy="as in the manifest: sft, grpo, direct",
)
VERDICTS_TOTAL = STAGES.counter(
    "gog_judge_verdicts",
    "verdicts",
    "Verdicts of the judge; undecided: it failed, or replied neither yes nor no.",
    outcome=VERDICTS,
)
JUDGE_SUCCESS = STAGES.gauge(
    "gog_judge_success_ratio", "share", "Fraction of the last answers that the judge decided; below 0.95 a stage stops."
)

# ---- store: on the page of every process that opens one

STORE_TOTAL = PROCESS.counter(
    "gog_store_operations", "operations", "Operations on the checkpoint store.",
    operation=STORE_OPERATIONS, outcome=STORE_OUTCOMES,
)  # fmt: skip
STORE_SECONDS = PROCESS.histogram(
    "gog_store_operation_duration_seconds", "seconds", "Duration of a store operation, retries included.",
    operation=STORE_OPERATIONS, buckets=LONG_SECONDS,
)  # fmt: skip
STORE_BYTES = PROCESS.counter(
    "gog_store_bytes", "bytes", "Bytes of files transferred; files that the store already had are not transferred.",
    operation=STORE_OPERATIONS,
)  # fmt: skip
STORE_RETRIES = PROCESS.counter(
    "gog_store_retries", "requests", "Requests to the store that were retried.", operation=STORE_OPERATIONS
)
CHECKPOINT = PROCESS.gauge(
    "gog_checkpoint_timestamp_seconds", "Unix time", "Time when the newest checkpoint was committed.", stage=STAGE
)

# ---- servers

SERVER_REQUESTS = SERVERS.counter(
    "gog_server_requests", "requests", "Requests answered by a server, injected failures included.",
    server=COMMANDS, outcome=SERVER_OUTCOMES,
)  # fmt: skip
SERVER_SECONDS = SERVERS.histogram(
    "gog_server_request_duration_seconds", "seconds", "Duration of a request in the server.",
    server=COMMANDS, buckets=FAST_SECONDS,
)  # fmt: skip

AGENT_CHATS = SERVERS.counter(
    "gog_agent_chats", "chats", "Chats of an agent; malformed: a turn broke the format, or there was no answer.",
    arm=ARMS, outcome=CHAT_OUTCOMES,
)  # fmt: skip
AGENT_SECONDS = SERVERS.histogram(
    "gog_agent_chat_duration_seconds", "seconds", "Duration of a chat that did not fail, by the version that answered: "
    "the one that is served, or the one that is tried.",
    arm=ARMS, buckets=SECONDS,
)  # fmt: skip

# ---- control plane

RUN_CONDITIONS = RUNS.gauge(
    "gog_operator_runs", "runs", "Runs by the first of these conditions that is true; Pending: none is.",
    condition=CONDITIONS,
)  # fmt: skip
STAGE_CONDITIONS = RUNS.gauge(
    "gog_operator_stages", "stages", "Stages by the first of these conditions that is true; Ready: an attempt is running.",
    kind=KINDS, condition=CONDITIONS,
)  # fmt: skip
TOOL_SERVERS = RUNS.gauge(
    "gog_operator_tool_servers", "tool servers", "ToolServers by readiness.", role=ROLES, ready=("true", "false")
)
STAGE_ATTEMPTS = RUNS.counter(
    "gog_operator_attempts", "attempts", "Finished attempts of stages; interrupted: ended from outside, which counts against no limit.",
    kind=KINDS, outcome=ATTEMPTS,
)  # fmt: skip
RECONCILE_SECONDS = OPERATOR.histogram(
    "gog_operator_reconcile_duration_seconds", "seconds", "Duration of one reconciliation of one object.",
    kind=("GoGRun", *KINDS, "ToolServer"), buckets=SECONDS,
)  # fmt: skip
RECONCILES = OPERATOR.counter("gog_operator_reconciles", "passes", "Reconciliations by outcome.", outcome=PASSES)
QUEUE_DEPTH = OPERATOR.gauge(
    "gog_operator_queue_depth", "objects", "Objects that are due for reconciliation and wait for it."
)
QUEUE_AGE = OPERATOR.gauge(
    "gog_operator_queue_age_seconds", "seconds", "Time for which the longest-waiting due object has waited."
)
WORKING = OPERATOR.gauge("gog_operator_working", "passes", "Reconciliations in progress.")
API_REQUESTS = OPERATOR.counter(
    "gog_operator_api_requests", "requests", "Requests to the API server.",
    method="GET, POST, PATCH, PUT, DELETE", code="HTTP status; 0: no answer",
)  # fmt: skip
API_ERRORS = OPERATOR.counter(
    "gog_operator_api_errors", "requests", "Requests that the API server refused or did not answer; 404 does not count.",
    status="HTTP status; 0: no answer",
)  # fmt: skip
LAST_RESYNC = OPERATOR.gauge(
    "gog_operator_last_resync_timestamp_seconds", "Unix time", "Time of the last complete list of all objects."
)
RESYNC_SECONDS = OPERATOR.gauge(
    "gog_operator_resync_duration_seconds", "seconds", "Duration of the last complete list."
)
OBJECTS = OPERATOR.gauge(
    "gog_operator_objects", "objects", "Objects in the last complete list.", kind=("GoGRun", *KINDS, "ToolServer")
)
NAMESPACE_READABLE = OPERATOR.gauge(
    "gog_operator_namespace_readable", "0 or 1", "0 while the API server forbids the operator to list a namespace's objects.",
    watched_namespace="namespace that the operator watches",
)  # fmt: skip
LEADER = OPERATOR.gauge("gog_operator_leader", "0 or 1", "1 while this replica of the operator holds the lease.")

PAGES = (STAGES, PROCESS, SERVERS, RUNS, OPERATOR)
DEFINITIONS = tuple(each for page in PAGES for each in page.definitions)

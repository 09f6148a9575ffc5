"""Every metric of gog: name, unit, labels, buckets, in one place.

Prefix `gog_`, base units, bounded labels: tool, backend, outcome, stage; never a step, an address or an id, of which
there is no end. Every outcome starts at 0, so that "no failure" and "no data" differ.
"""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from gog.tools import FailureKind

REGISTRY = CollectorRegistry()
OUTCOMES = ("ok", *FailureKind)
SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)

TOOL_CALLS = Counter(
    "gog_tool_calls",
    "Tool calls that left the cache, by final outcome.",
    ("tool", "backend", "outcome"),
    registry=REGISTRY,
)
TOOL_ATTEMPTS = Counter(
    "gog_tool_attempts",
    "Attempts of tool calls, retries included, by outcome.",
    ("tool", "backend", "outcome"),
    registry=REGISTRY,
)
TOOL_SECONDS = Histogram(
    "gog_tool_call_duration_seconds",
    "Duration of a tool call with its retries.",
    ("tool", "backend"),
    buckets=SECONDS,
    registry=REGISTRY,
)
TOOL_CACHE = Counter(
    "gog_tool_cache_requests",
    "Cache look-ups: hit, miss, or joined to an equal call under way.",
    ("tool", "result"),
    registry=REGISTRY,
)
TRAJECTORIES = Counter(
    "gog_rollout_trajectories",
    "Finished trajectories: counted, or excluded and why.",
    ("stage", "status"),
    registry=REGISTRY,
)
TOKENS = Counter("gog_rollout_tokens", "Tokens of rollouts: generated, or prefilled.", ("kind",), registry=REGISTRY)
REWARD = Gauge("gog_reward_mean", "Mean over the last step's counted trajectories.", ("component",), registry=REGISTRY)
TRAIN_STEP = Gauge("gog_train_step", "Optimizer steps done.", ("stage",), registry=REGISTRY)

STATUSES = ("counted", "tool_failure", "judge")


def initialise_tool(tool: str, backend: str) -> None:
    for outcome in OUTCOMES:
        TOOL_CALLS.labels(tool, backend, outcome)
        TOOL_ATTEMPTS.labels(tool, backend, outcome)
    for result in ("hit", "miss", "joined"):
        TOOL_CACHE.labels(tool, result)


def initialise_rollouts(stage: str) -> None:
    for status in STATUSES:
        TRAJECTORIES.labels(stage, status)


def tool_call(tool: str, backend: str, outcome: str, seconds: float) -> None:
    TOOL_CALLS.labels(tool, backend, outcome).inc()
    TOOL_SECONDS.labels(tool, backend).observe(seconds)


def tool_attempt(tool: str, backend: str, outcome: str) -> None:
    TOOL_ATTEMPTS.labels(tool, backend, outcome).inc()


def tool_cache(tool: str, result: str) -> None:
    TOOL_CACHE.labels(tool, result).inc()


def attempts_by_outcome() -> dict[str, dict[str, int]]:
    """{tool: {outcome: attempts}} so far, all back ends of a tool together, for reports."""
    table: dict[str, dict[str, int]] = {}
    for metric in TOOL_ATTEMPTS.collect():
        for sample in metric.samples:
            if sample.name.endswith("_total"):
                outcomes = table.setdefault(sample.labels["tool"], {})
                outcome = sample.labels["outcome"]
                outcomes[outcome] = outcomes.get(outcome, 0) + int(sample.value)
    return table

"""Dashboard *Operator*: pace, errors of the API server, state of the objects.

Its series have the namespace of the operator's pod. Object gauges are those of the replica that holds the Lease; `max`
selects them, because a standby replica exports none or stale values.
"""

from __future__ import annotations

from gog_console.dashboards import palette, promql
from gog_console.dashboards.panels import OPERATOR, Dashboard, Query, Row, bars, lines, number

PASSES = "gog_operator_reconcile_duration_seconds"
SINCE = f"time() - max(gog_operator_last_resync_timestamp_seconds{{{OPERATOR}}} > 0)"
PAUSE = f"max_over_time(({SINCE})[$__rate_interval:15s])"
"""The age itself is a sawtooth, so its maximum is shown."""

NOW = Row(
    "Now",
    (
        number("Objects waiting", f"max(gog_operator_queue_depth{{{OPERATOR}}})", unit="count"),
        number("Longest wait", f"max(gog_operator_queue_age_seconds{{{OPERATOR}}})", unit="seconds", limit=120),
        number("Longest time without a listing", PAUSE, unit="seconds", limit=300),
        number(
            "Errors of the API server",
            f"sum(increase(gog_operator_api_errors_total{{{OPERATOR}}}[$__range]))",
            unit="count",
            description="Over the time range. Conflicts (409) are expected.",
        ),
        number(
            "Runs not finished",
            f'sum(max by (condition) (gog_operator_runs{{{OPERATOR},condition=~"Ready|Pending"}}))',
            unit="count",
        ),
        number(
            "Tool servers not ready",
            f'sum(max by (role) (gog_operator_tool_servers{{{OPERATOR},ready="false"}}))',
            unit="count",
            limit=1,
        ),
    ),
)

PACE = Row(
    "Pace",
    (
        lines(
            "Reconcile duration, median",
            Query(promql.quantile(0.5, PASSES, OPERATOR, "kind"), "{{kind}}"),
            unit="seconds",
            width=6,
        ),
        lines(
            "Reconcile duration, 95th percentile",
            Query(promql.quantile(0.95, PASSES, OPERATOR, "kind"), "{{kind}}"),
            unit="seconds",
            width=6,
        ),
        lines(
            "Reconciles",
            Query(promql.per_second(f"{PASSES}_count", OPERATOR, "kind"), "{{kind}}"),
            unit="per_second",
            width=6,
            stacked=True,
        ),
        lines(
            "Longest time without a listing",
            Query(PAUSE, "seconds"),
            unit="seconds",
            width=6,
            limit=300,
        ),
        lines(
            "Objects waiting",
            Query(f"max(gog_operator_queue_depth{{{OPERATOR}}})", "objects"),
            unit="count",
        ),
        lines(
            "Longest wait of an object",
            Query(f"max(gog_operator_queue_age_seconds{{{OPERATOR}}})", "seconds"),
            unit="seconds",
            limit=120,
            colours={"seconds": palette.VIOLET},
        ),
        lines(
            "Errors of the API server, by status",
            Query(promql.per_second("gog_operator_api_errors_total", OPERATOR, "status"), "{{status}}"),
            unit="per_second",
            stacked=True,
        ),
    ),
)

OBJECTS = Row(
    "Objects",
    (
        lines(
            "Runs by condition",
            Query(f"max by (condition) (gog_operator_runs{{{OPERATOR}}})", "{{condition}}"),
            unit="count",
            width=6,
            stacked=True,
            colours=palette.CONDITIONS,
        ),
        lines(
            "Stages by condition",
            Query(
                f"sum by (condition) (max by (kind, condition) (gog_operator_stages{{{OPERATOR}}}))", "{{condition}}"
            ),
            unit="count",
            width=6,
            stacked=True,
            colours=palette.CONDITIONS,
        ),
        bars(
            "Active stages, by kind",
            Query(
                f'max by (kind) (gog_operator_stages{{{OPERATOR},condition="Ready"}})',
                "{{kind}}",
            ),
            unit="count",
            width=6,
        ),
        bars(
            "Attempts by outcome",
            Query(
                promql.grown("gog_operator_attempts_total", OPERATOR, "outcome"),
                "{{outcome}}",
            ),
            unit="count",
            width=6,
            colours=palette.ATTEMPTS,
        ),
    ),
)

BOARD = Dashboard(
    "operator",
    "gog / Operator",
    "Pace of the operator, errors of the API server, state of the objects.",
    (NOW, PACE, OBJECTS),
    {"namespace": "gog_operator_queue_depth"},
)

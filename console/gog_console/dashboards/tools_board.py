"""Dashboard *Tools*: failures, latency, cost, and the effect on training.

Attempts and final calls are shown side by side, because retries hide the problems of a vendor: the failure ratio of
attempts describes the vendor, that of calls describes what the policy experiences.
"""

from __future__ import annotations

from gog_console.dashboards import palette, promql
from gog_console.dashboards.panels import BREAKER, WHERE, Dashboard, Query, Row, bars, lines, number, states

ATTEMPTS, CALLS, BAD = "gog_tool_attempts_total", "gog_tool_calls_total", 'outcome!="ok"'
SECONDS, TRAJECTORIES, LEFT_OUT = (
    "gog_tool_call_duration_seconds",
    "gog_rollout_trajectories_total",
    'status!="counted"',
)
LIMIT = 0.05
NO_CREDIT = "no back end reports its credit"
NO_AGENT = "no agent is served"
NO_DECISION = "no call was held, repeated, hedged, refused or sent to a fallback"


def overall(metric: str, part: str) -> str:
    """Share over the time range, for all selected runs."""
    some = f"sum(increase({metric}{{{promql.joined(WHERE, part)}}}[$__range]))"
    return f"{some} / (sum(increase({metric}{{{WHERE}}}[$__range])) > 0)"


NOW = Row(
    "Over the time range",
    (
        number("Attempts that fail", overall(ATTEMPTS, BAD), unit="share", limit=LIMIT),
        number("Calls that fail finally", overall(CALLS, BAD), unit="share", limit=LIMIT),
        number("Trajectories excluded", overall(TRAJECTORIES, LEFT_OUT), unit="share", limit=0.1),
        number("Calls", f"sum(increase({CALLS}{{{WHERE}}}[$__range]))", unit="count"),
        number("Spent", f"sum(increase(gog_external_spend_usd_total{{{WHERE}}}[$__range]))", unit="dollars"),
        number(
            "Credit left",
            f"min(gog_external_credit_usd{{{WHERE}}})",
            unit="dollars",
            absent=NO_CREDIT,
        ),
    ),
)

FAILURES = Row(
    "Failures",
    (
        lines(
            "Attempts that fail, by tool",
            Query(promql.share(ATTEMPTS, BAD, WHERE, "tool"), "{{tool}}"),
            unit="share",
            width=12,
            limit=LIMIT,
            colours=palette.TOOLS,
        ),
        lines(
            "Calls that fail after all retries, by tool",
            Query(promql.share(CALLS, BAD, WHERE, "tool"), "{{tool}}"),
            unit="share",
            width=12,
            limit=LIMIT,
            colours=palette.TOOLS,
        ),
        lines(
            "Attempts that fail, by kind",
            Query(f"{promql.share_by(ATTEMPTS, BAD, WHERE, 'outcome')} > 0", "{{outcome}}"),
            unit="share",
            stacked=True,
            absent="no attempt failed",
            colours=palette.KINDS,
        ),
        lines(
            "Calls that fail, by kind",
            Query(f"{promql.share_by(CALLS, BAD, WHERE, 'outcome')} > 0", "{{outcome}}"),
            unit="share",
            stacked=True,
            absent="no call failed",
            colours=palette.KINDS,
        ),
        bars(
            "Most frequent failures of attempts",
            Query(
                f"topk(8, {promql.grown(ATTEMPTS, promql.joined(WHERE, BAD), 'tool, outcome')} > 0)",
                "{{tool}} {{outcome}}",
            ),
            unit="count",
            colours=palette.KINDS,
            absent="no attempt failed",
        ),
        lines(
            "Decisions of the call path",
            Query(f"{promql.per_second('gog_tool_decisions_total', WHERE, 'decision')} > 0", "{{decision}}"),
            unit="per_second",
            width=24,
            height=6,
            stacked=True,
            colours=palette.DECISIONS,
            absent=NO_DECISION,
        ),
    ),
)

LATENCY = Row(
    "Latency of calls, retries included",
    tuple(
        lines(
            title,
            Query(promql.quantile(of, SECONDS, WHERE, "tool"), "{{tool}}"),
            unit="seconds",
            width=6,
            colours=palette.TOOLS,
        )
        for title, of in (("Median", 0.5), ("95th percentile", 0.95), ("99th percentile", 0.99))
    )
    + (
        lines(
            "Calls per second",
            Query(promql.per_second(CALLS, WHERE, "tool"), "{{tool}}"),
            unit="per_second",
            width=6,
            stacked=True,
            colours=palette.TOOLS,
        ),
    ),
)

BACK_ENDS = Row(
    "Cache, breaker, spend",
    (
        lines(
            "Answered by the cache",
            Query(promql.share("gog_tool_cache_requests_total", 'result!="miss"', WHERE, "tool"), "{{tool}}"),
            unit="share",
            width=6,
            high=1,
            colours=palette.TOOLS,
            description="Hits, and calls that joined an equal call in flight.",
        ),
        states(
            "Breaker",
            Query(f"max by (tool, backend) (gog_tool_breaker_open{{{WHERE}}})", "{{tool}} {{backend}}"),
            *BREAKER,
            width=6,
            description="Open: after many failures in a row, calls fail at once for a while.",
        ),
        states(
            "Down",
            Query(f"max by (tool) (gog_tool_down{{{WHERE}}})", "{{tool}}"),
            *BREAKER,
            width=6,
            description="Down: calls wait for it. When it stays down for tools.outage.patienceSeconds, the attempt fails.",
        ),
        lines(
            "Lag of the event loop",
            Query(promql.quantile(0.5, "gog_event_loop_lag_seconds", WHERE, "run"), "median {{run}}"),
            Query(promql.quantile(0.99, "gog_event_loop_lag_seconds", WHERE, "run"), "slow (99 %) {{run}}"),
            unit="seconds",
            width=6,
            limit=0.05,
            colours={"median": palette.BLUE, "slow": palette.AMBER},
            description="How late sockets and deadlines are served; above 50 ms tools seem slower than they are.",
        ),
        lines(
            "Spend",
            Query(
                f"3600 * {promql.per_second('gog_external_spend_usd_total', WHERE, 'tool, backend')}",
                "{{tool}} {{backend}}",
            ),
            unit="dollars_per_hour",
            width=6,
            stacked=True,
            colours=palette.TOOLS,
        ),
        lines(
            "Credit left",
            Query(f"min by (tool, backend) (gog_external_credit_usd{{{WHERE}}})", "{{tool}} {{backend}}"),
            unit="dollars",
            width=6,
            colours=palette.TOOLS,
            absent=NO_CREDIT,
        ),
    ),
)

LOST = Row(
    "Excluded from training",
    (
        lines(
            "Trajectories excluded, by reason",
            Query(promql.share_by(TRAJECTORIES, LEFT_OUT, WHERE, "status"), "{{status}}"),
            unit="share",
            stacked=True,
            colours=palette.STATUSES,
            description="A trajectory with a tool failure enters neither the loss nor group statistics.",
        ),
        lines(
            "Verdicts of the judge",
            Query(promql.per_second("gog_judge_verdicts_total", WHERE, "outcome"), "{{outcome}}"),
            unit="per_second",
            stacked=True,
            colours=palette.VERDICTS,
        ),
        lines(
            "Answers with a verdict",
            Query(f"min by (run) (gog_judge_success_ratio{{{WHERE}}})", "judge {{run}}"),
            unit="share",
            low=0.9,
            high=1,
            limit=0.95,
            colours=palette.TOOLS,
            description="Below 95 % a stage stops, because rewards would depend on which answers the judge decides.",
        ),
    ),
)

SERVERS = Row(
    "Servers of the run",
    (
        lines(
            "Requests",
            Query(promql.per_second("gog_server_requests_total", WHERE, "server"), "{{server}}"),
            unit="per_second",
            stacked=True,
        ),
        lines(
            "Requests that failed",
            Query(promql.share("gog_server_requests_total", BAD, WHERE, "server"), "{{server}}"),
            unit="share",
        ),
        lines(
            "Request duration, 95th percentile",
            Query(promql.quantile(0.95, "gog_server_request_duration_seconds", WHERE, "server"), "{{server}}"),
            unit="seconds",
        ),
    ),
)

AGENT = Row(
    "Chats of the agent",
    (
        lines(
            "Chats, by version and outcome",
            Query(promql.per_second("gog_agent_chats_total", WHERE, "arm, outcome"), "{{arm}} {{outcome}}"),
            unit="per_second",
            stacked=True,
            absent=NO_AGENT,
            description="served: the version that is served; canary: a new one that is tried on a share of the chats.",
        ),
        lines(
            "Chats that failed or broke the format",
            Query(promql.share("gog_agent_chats_total", 'outcome!="answered"', WHERE, "arm"), "{{arm}}"),
            unit="share",
            absent=NO_AGENT,
        ),
        lines(
            "Duration of a chat, 95th percentile",
            Query(promql.quantile(0.95, "gog_agent_chat_duration_seconds", WHERE, "arm"), "{{arm}}"),
            unit="seconds",
            absent=NO_AGENT,
        ),
    ),
)

BOARD = Dashboard(
    "tools",
    "gog / Tools",
    "Failures, latency, cache and spend of tools, and trajectories excluded because of them.",
    (NOW, FAILURES, LATENCY, BACK_ENDS, LOST, SERVERS, AGENT),
    {"namespace": "gog_tool_calls_total", "run": "gog_tool_calls_total"},
)

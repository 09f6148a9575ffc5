"""Recording rules and alerts, as one file for Prometheus and the chart.

Problem: an alert without an action is soon ignored, and an alert without a minimum rate fires for three calls at night.
Decision: each alert has a minimum rate, a duration, and an entry in docs/runbooks.md to which its URL points. Ratios are
recorded once, by namespace and run, so that alerts and dashboards agree. A ratio without samples is absent, not NaN.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import yaml

RUNBOOKS = "docs/runbooks.md"
"""Prefix of `#alert`; the chart replaces it with `monitoring.runbooks`."""
HEADER = "# Made by `make dashboards` from gog_console.dashboards.rules.\n"
TARGET = "namespace, run, pod"
"""Labels that the series of one process share; empty outside a cluster."""
UNDER_WAY = "gog_train_step < gog_train_steps_planned"


@dataclass(frozen=True)
class Recorded:
    """A recording rule."""

    record: str
    """Name of the series: `labels:metric:operation`."""
    expr: str
    """PromQL expression."""

    def document(self) -> dict[str, Any]:
        """The rule in Prometheus' form."""
        return {"record": self.record, "expr": self.expr}


@dataclass(frozen=True)
class Alert:
    """An alerting rule."""

    name: str
    """Name, and anchor of its runbook entry."""
    expr: str
    """PromQL expression."""
    hold: str
    """How long the expression must be true: `5m`."""
    severity: Literal["critical", "warning"]
    """Label for routing."""
    summary: str
    """One line; may use Prometheus' templates."""
    description: str
    """Consequence or cause; may use Prometheus' templates."""

    def document(self) -> dict[str, Any]:
        """The rule in Prometheus' form."""
        return {
            "alert": self.name,
            "expr": self.expr,
            "for": self.hold,
            "labels": {"severity": self.severity},
            "annotations": {
                "summary": self.summary,
                "description": self.description,
                "runbook_url": f"{RUNBOOKS}#{self.name.lower()}",
            },
        }


def ratio(metric: str, part: str, by: str, window: str) -> str:
    """Rate of a counter's series with the labels `part` over its whole rate."""
    return f"sum by ({by}) (rate({metric}{{{part}}}[{window}]))\n  / (sum by ({by}) (rate({metric}[{window}])) > 0)"


TOOL = "namespace, run, tool"
RECORDED = (
    Recorded(
        "namespace_run_tool:gog_tool_attempts_failed:ratio_rate5m",
        ratio("gog_tool_attempts_total", 'outcome!="ok"', TOOL, "5m"),
    ),
    Recorded(
        "namespace_run_tool:gog_tool_calls_failed:ratio_rate5m",
        ratio("gog_tool_calls_total", 'outcome!="ok"', TOOL, "5m"),
    ),
    Recorded("namespace_run_tool:gog_tool_calls:increase5m", f"sum by ({TOOL}) (increase(gog_tool_calls_total[5m]))"),
    Recorded(
        "namespace_run_tool:gog_tool_call_duration_seconds:p95_rate5m",
        f"histogram_quantile(0.95, sum by (le, {TOOL}) (rate(gog_tool_call_duration_seconds_bucket[5m]))) >= 0",
    ),
    Recorded(
        "namespace_run:gog_rollout_trajectories_excluded:ratio_rate30m",
        ratio("gog_rollout_trajectories_total", 'status!="counted"', "namespace, run", "30m"),
    ),
    Recorded(
        "namespace_run:gog_judge_verdicts_given:ratio_rate10m",
        ratio("gog_judge_verdicts_total", 'outcome!="undecided"', "namespace, run", "10m"),
    ),
    Recorded(
        "namespace_run_tool_backend:gog_external_spend_usd:rate1h",
        "sum by (namespace, run, tool, backend) (rate(gog_external_spend_usd_total[1h]))",
    ),
    Recorded(
        "namespace_run_pod:gog_train_step_seconds:avg2h",
        f'max by ({TARGET}) (avg_over_time(gog_train_step_seconds{{part="total"}}[2h]))',
    ),
)

TOOLS = (
    Alert(
        "GogToolCallsFailing",
        "namespace_run_tool:gog_tool_calls_failed:ratio_rate5m > 0.05\n"
        "  and namespace_run_tool:gog_tool_calls:increase5m > 50",
        "5m",
        "warning",
        "{{ $value | humanizePercentage }} of the calls of {{ $labels.tool }} fail",
        "After retries. Episodes with a failed tool are excluded from training; the log names server and failure.",
    ),
    Alert(
        "GogBreakerOpen",
        "max by (namespace, run, tool, backend) (gog_tool_breaker_open) == 1",
        "2m",
        "warning",
        "The circuit breaker of {{ $labels.backend }} is open",
        "The back end failed many times in a row. Calls of {{ $labels.tool }} fail at once until it answers again.",
    ),
    Alert(
        "GogServiceDown",
        "max by (namespace, run, tool) (gog_tool_down) == 1",
        "1m",
        "warning",
        "{{ $labels.tool }} is down, and {{ $labels.run }} waits for it",
        "When it stays down for the run's tools.outage.patienceSeconds, the attempt fails and is retried.",
    ),
    Alert(
        "GogEventLoopLag",
        "histogram_quantile(0.99, sum by (namespace, run, pod, le) (rate(gog_event_loop_lag_seconds_bucket[5m]))) > 0.05",
        "10m",
        "warning",
        "Sockets and deadlines of {{ $labels.run }} are served {{ $value | humanizeDuration }} late",
        "Tools that answer in time can seem to time out. Something holds the interpreter, or the cores are overcommitted.",
    ),
    Alert(
        "GogCreditLow",
        "min by (namespace, run, tool, backend) (gog_external_credit_usd) < 5\n"
        "  or min by (namespace, run, tool, backend) (gog_external_credit_usd)\n"
        "    < 86400 * namespace_run_tool_backend:gog_external_spend_usd:rate1h",
        "10m",
        "warning",
        '{{ $value | printf "%.2f" }} US dollars are left at {{ $labels.backend }}',
        "Less than 5 dollars, or less than a day at the pace of the last hour.",
    ),
    Alert(
        "GogJudgeFailing",
        "namespace_run:gog_judge_verdicts_given:ratio_rate10m < 0.95\n"
        "  and sum by (namespace, run) (increase(gog_judge_verdicts_total[10m])) > 50",
        "5m",
        "warning",
        "The judge returns a verdict for only {{ $value | humanizePercentage }} of the answers",
        "Below 95 % a stage stops, because rewards would depend on which answers the judge decides.",
    ),
)

TRAINING = (
    Alert(
        "GogRewardNotANumber",
        "gog_reward_mean != gog_reward_mean or gog_train_loss != gog_train_loss\n"
        "  or abs(gog_reward_mean) == Inf or abs(gog_train_loss) == Inf",
        "0s",
        "critical",
        "The {{ with $labels.component }}{{ . }}{{ else }}loss{{ end }} of {{ $labels.run }} is not a finite number",
        "Further steps would damage the weights. The last good checkpoint is in the store.",
    ),
    Alert(
        "GogZeroRewardVariance",
        "avg_over_time(gog_train_frac_reward_zero_std[30m]) > 0.8",
        "30m",
        "warning",
        "{{ $value | humanizePercentage }} of the groups of {{ $labels.run }} have zero reward variance",
        "Such groups give no gradient: the questions are too easy or too hard, or the judge decides all answers alike.",
    ),
    Alert(
        "GogTrainingStalled",
        "time() - (gog_train_last_step_timestamp_seconds > 0)\n"
        f"  > on ({TARGET}) group_left () clamp_min(10 * namespace_run_pod:gog_train_step_seconds:avg2h, 600)\n"
        f"  and ({UNDER_WAY})\n"
        "or gog_train_step and (changes(gog_train_step[1h]) == 0 and gog_train_step offset 1h >= 0)\n"
        f"  and ({UNDER_WAY}) unless on ({TARGET}) namespace_run_pod:gog_train_step_seconds:avg2h",
        "1m",
        "warning",
        "No step of {{ $labels.stage }} in {{ $labels.run }} for ten times the usual duration",
        "The stage runs but makes no progress: slow tools, a store that does not answer, or a blocked rank.",
    ),
    Alert(
        "GogCheckpointOutdated",
        f"time() - gog_checkpoint_timestamp_seconds > 3600 and ({UNDER_WAY})",
        "5m",
        "warning",
        "The newest checkpoint of {{ $labels.stage }} in {{ $labels.run }} is {{ $value | humanizeDuration }} old",
        "A lost pod would repeat the updates since. Publishing fails, or the checkpoint interval is too long.",
    ),
)

OPERATOR = (
    Alert(
        "GogOperatorStalled",
        "time() - gog_operator_last_resync_timestamp_seconds > 300 and gog_operator_leader == 1",
        "1m",
        "critical",
        "The operator has listed nothing for five minutes",
        "Running jobs continue; nothing new starts. The liveness probe should have restarted the operator.",
    ),
    Alert(
        "GogOperatorBehind",
        "gog_operator_queue_age_seconds > 120",
        "5m",
        "warning",
        "Objects wait {{ $value | humanizeDuration }} for the operator",
        "The API server is slow or throttles the operator, or a trainer does not answer.",
    ),
    Alert(
        "GogReconcileErrors",
        'increase(gog_operator_reconciles_total{outcome="error"}[10m]) > 0',
        "10m",
        "warning",
        "Reconciliation fails with unexpected errors",
        "The affected object makes no progress; the operator's log contains the traceback.",
    ),
    Alert(
        "GogNamespaceForbidden",
        "gog_operator_namespace_readable == 0 and on (pod) gog_operator_leader == 1",
        "5m",
        "warning",
        "The operator may not list the objects of namespace {{ $labels.watched_namespace }}",
        "Runs there make no progress; those of other namespaces do. Its Role or RoleBinding is missing.",
    ),
    Alert(
        "GogToolServerNotReady",
        'max by (namespace, role) (gog_operator_tool_servers{ready="false"}) > 0',
        "15m",
        "warning",
        "{{ $value }} tool server(s) of role {{ $labels.role }} are not ready",
        "Stages that need it wait; running stages have failing tools.",
    ),
    Alert(
        "GogTargetMissing",
        'up{job=~"(.*/)?gog(-.*)?"} == 0',
        "5m",
        "warning",
        "{{ $labels.instance }} ({{ $labels.job }}) cannot be scraped",
        "Its panels are empty and its alerts cannot fire.",
    ),
    Alert(
        "GogOperatorMissing",
        "absent(gog_operator_last_resync_timestamp_seconds)",
        "10m",
        "critical",
        "No operator metrics are being scraped",
        "The operator does not run, or is not scraped: these rules need the chart's `monitoring.podMonitor`.",
    ),
)

ALERTS = TOOLS + TRAINING + OPERATOR


def text() -> str:
    """The rules file."""
    groups = [
        {"name": "gog-recorded", "rules": [rule.document() for rule in RECORDED]},
        *(
            {"name": name, "rules": [alert.document() for alert in alerts]}
            for name, alerts in (("gog-tools", TOOLS), ("gog-training", TRAINING), ("gog-operator", OPERATOR))
        ),
    ]
    return HEADER + yaml.dump({"groups": groups}, Dumper=_Readable, sort_keys=False, width=140, allow_unicode=True)


class _Readable(yaml.SafeDumper):
    """Writes multi-line expressions as literal blocks."""


def _lines(dumper: yaml.SafeDumper, value: str) -> yaml.Node:
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style="|" if "\n" in value else None)


_Readable.add_representer(str, _lines)

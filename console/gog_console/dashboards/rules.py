"""Recording rules and alerts, as the one file that Prometheus and the chart read.

Problem: an alert that nobody can act on is soon ignored, and one without a floor fires over three calls at night.
Decision: each alert has a floor, a time to hold, and an entry in docs/runbooks.md, to which its address leads; ratios
are recorded once, by namespace and run, so that alerts and own dashboards agree. A share of nothing is absent, not NaN.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import yaml

RUNBOOKS = "docs/runbooks.md"
"""Put before `#alert`; the chart puts `monitoring.runbooks` in its place."""
HEADER = "# Made by `make dashboards` from gog_console.dashboards.rules.\n"
TARGET = "namespace, run, pod"
"""What series of one process have in common; empty on one machine, where it is one, too."""
UNDER_WAY = "gog_train_step < gog_train_steps_planned"


@dataclass(frozen=True)
class Recorded:
    """A series under a name that says by what it is summed: `by:what:how`."""

    record: str
    expr: str

    def document(self) -> dict[str, Any]:
        return {"record": self.record, "expr": self.expr}


@dataclass(frozen=True)
class Alert:
    """hold: how long it must be so. summary and description may use Prometheus' templates."""

    name: str
    expr: str
    hold: str
    severity: Literal["critical", "warning"]
    summary: str
    description: str

    def document(self) -> dict[str, Any]:
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
        "GogToolsFail",
        "namespace_run_tool:gog_tool_calls_failed:ratio_rate5m > 0.05\n"
        "  and namespace_run_tool:gog_tool_calls:increase5m > 50",
        "5m",
        "warning",
        "{{ $value | humanizePercentage }} of the calls of {{ $labels.tool }} fail",
        "Retries included. Episodes with a failed tool are left out of training; the log names server and failure.",
    ),
    Alert(
        "GogBreakerOpen",
        "max by (namespace, run, tool, backend) (gog_tool_breaker_open) == 1",
        "2m",
        "warning",
        "{{ $labels.backend }} is left alone: its breaker is open",
        "It failed many times in a row. Calls of {{ $labels.tool }} fail at once until it answers again.",
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
        "GogEventLoopLags",
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
        "GogJudgeFails",
        "namespace_run:gog_judge_verdicts_given:ratio_rate10m < 0.95\n"
        "  and sum by (namespace, run) (increase(gog_judge_verdicts_total[10m])) > 50",
        "5m",
        "warning",
        "The judge decides only {{ $value | humanizePercentage }} of what it is asked",
        "Below 95 % a stage stops, because it would learn from what the judge happens to answer.",
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
        "Each further step makes the weights worse. The last good checkpoint is in the store.",
    ),
    Alert(
        "GogNothingToLearn",
        "avg_over_time(gog_train_frac_reward_zero_std[30m]) > 0.8",
        "30m",
        "warning",
        "{{ $value | humanizePercentage }} of the groups of {{ $labels.run }} have one reward for all",
        "Such groups give no gradient: the questions are too easy, too hard, or all answers are judged alike.",
    ),
    Alert(
        "GogTrainingStalls",
        "time() - (gog_train_last_step_timestamp_seconds > 0)\n"
        f"  > on ({TARGET}) group_left () clamp_min(10 * namespace_run_pod:gog_train_step_seconds:avg2h, 600)\n"
        f"  and ({UNDER_WAY})\n"
        "or gog_train_step and (changes(gog_train_step[1h]) == 0 and gog_train_step offset 1h >= 0)\n"
        f"  and ({UNDER_WAY}) unless on ({TARGET}) namespace_run_pod:gog_train_step_seconds:avg2h",
        "1m",
        "warning",
        "No step of {{ $labels.stage }} in {{ $labels.run }} for ten times as long as usual",
        "The stage runs and does not advance: slow tools, a store that does not answer, or a rank that waits.",
    ),
    Alert(
        "GogCheckpointOld",
        f"time() - gog_checkpoint_timestamp_seconds > 3600 and ({UNDER_WAY})",
        "5m",
        "warning",
        "The newest checkpoint of {{ $labels.stage }} in {{ $labels.run }} is {{ $value | humanizeDuration }} old",
        "A pod that is lost now loses that much work. Publishing fails, or the stage saves too seldom.",
    ),
)

OPERATOR = (
    Alert(
        "GogOperatorStandsStill",
        "time() - gog_operator_last_resync_timestamp_seconds > 300 and gog_operator_leader == 1",
        "1m",
        "critical",
        "The operator has listed nothing for five minutes",
        "Jobs go on; nothing new begins. Its probe should have restarted it.",
    ),
    Alert(
        "GogOperatorLags",
        "gog_operator_queue_age_seconds > 120",
        "5m",
        "warning",
        "Objects wait {{ $value | humanizeDuration }} for the operator",
        "The API server is slow or throttles it, or a server that it asks does not answer.",
    ),
    Alert(
        "GogOperatorErrs",
        'increase(gog_operator_reconciles_total{outcome="error"}[10m]) > 0',
        "10m",
        "warning",
        "The operator meets errors that nobody foresaw",
        "The object concerned stands still; the operator's log has the traceback.",
    ),
    Alert(
        "GogEndpointNotReady",
        'max by (namespace, role) (gog_operator_endpoints{ready="false"}) > 0',
        "15m",
        "warning",
        "{{ $value }} endpoint(s) of role {{ $labels.role }} are not ready",
        "Stages that need one wait for it; stages at work have failing tools.",
    ),
    Alert(
        "GogTargetMissing",
        'up{job=~"(.*/)?gog(-.*)?"} == 0',
        "5m",
        "warning",
        "{{ $labels.instance }} ({{ $labels.job }}) gives no metrics",
        "Its panels are empty and its alerts blind until it does.",
    ),
    Alert(
        "GogOperatorMissing",
        "absent(gog_operator_last_resync_timestamp_seconds)",
        "10m",
        "critical",
        "No operator gives metrics",
        "It does not run, or nothing collects from it: these rules need the chart's `monitoring.podMonitor`.",
    ),
)

ALERTS = TOOLS + TRAINING + OPERATOR


def text() -> str:
    """The file, as Prometheus reads it."""
    groups = [
        {"name": "gog-recorded", "rules": [rule.document() for rule in RECORDED]},
        *(
            {"name": name, "rules": [alert.document() for alert in alerts]}
            for name, alerts in (("gog-tools", TOOLS), ("gog-training", TRAINING), ("gog-operator", OPERATOR))
        ),
    ]
    return HEADER + yaml.dump({"groups": groups}, Dumper=_Readable, sort_keys=False, width=140, allow_unicode=True)


class _Readable(yaml.SafeDumper):
    """Expressions of several lines stay so."""


def _lines(dumper: yaml.SafeDumper, value: str) -> yaml.Node:
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style="|" if "\n" in value else None)


_Readable.add_representer(str, _lines)

"""Dashboard *Run*: learning, progress, and cost."""

from __future__ import annotations

from gog_console.dashboards import palette, promql
from gog_console.dashboards.panels import STAGE, WHERE, Dashboard, Query, Row, bars, lines, number, states

NOT_YET = "appears after the stage has run"


def mean(metric: str, labels: str = "") -> str:
    """Mean of a gauge by run."""
    return f"avg by (run) ({metric}{{{promql.joined(WHERE, labels)}}})"


REWARD, SPREAD = mean("gog_reward_mean", 'component="reward"'), mean("gog_reward_std")
PROGRESS = f"max by (stage) (gog_train_step{{{WHERE}}} / (gog_train_steps_planned{{{WHERE}}} > 0))"
LAST_STEP = f"time() - max(gog_train_last_step_timestamp_seconds{{{WHERE}}})"

NOW = Row(
    "Now",
    (
        number("Reward", f'avg(gog_reward_mean{{{WHERE},component="reward"}})', low=None),
        number("Accuracy", f'avg(gog_reward_mean{{{WHERE},component="accuracy"}})', unit="share"),
        number("Progress of the stage", f"min({PROGRESS})", unit="share", high=1),
        number("Since the last step", LAST_STEP, unit="seconds"),
        number(
            "Attempts of tool calls that fail",
            f'sum(rate(gog_tool_attempts_total{{{WHERE},outcome!="ok"}}[$__rate_interval]))'
            f" / (sum(rate(gog_tool_attempts_total{{{WHERE}}}[$__rate_interval])) > 0)",
            unit="share",
            limit=0.05,
            description="Most succeed when retried; the dashboard Tools shows the final failures.",
        ),
        number(
            "Spent",
            f"sum(increase(gog_external_spend_usd_total{{{WHERE}}}[$__range]))",
            unit="dollars",
            description="On paid services, over the time range.",
        ),
    ),
)

LEARNING = Row(
    "Learning",
    (
        lines(
            "Reward, with one standard deviation",
            Query(REWARD, "reward {{run}}"),
            Query(f"max({REWARD} + {SPREAD})", "above"),
            Query(f"min({REWARD} - {SPREAD})", "below"),
            band=True,
            width=12,
            height=9,
            low=None,
            colours=palette.COMPONENTS | {"above": palette.SKY, "below": palette.SKY},
            description="Mean of a step's counted trajectories: 0.9 accuracy + 0.1 format, unless set otherwise. "
            "The band covers all selected runs.",
        ),
        lines(
            "Accuracy and format",
            Query(
                f'avg by (run, component) (gog_reward_mean{{{WHERE},component=~"accuracy|format"}})',
                "{{component}} {{run}}",
            ),
            unit="share",
            width=12,
            height=9,
            high=1,
            colours=palette.COMPONENTS,
            description="Accuracy is the judge's verdict; format is whether every turn was well formed.",
        ),
    ),
)

OUTCOME = Row(
    "Outcome",
    (
        bars(
            "Questions by level",
            *(
                Query(
                    f'max(last_over_time(gog_level_questions{{{WHERE},level="{level}"}}[$__range]))', f"level {level}"
                )
                for level in ("easy", "1", "2", "unknown")
            ),
            unit="count",
            colours={"easy": palette.GREY, "1": palette.SKY, "2": palette.BLUE, "unknown": palette.BROWN},
            absent=NOT_YET,
            description="Difficulty of the questions for the policy before GRPO; 2 is the hardest level.",
        ),
        bars(
            "Accuracy of each policy",
            Query(
                f"sort(max by (policy) (last_over_time(gog_evaluation_accuracy{{{WHERE}}}[$__range])))", "{{policy}}"
            ),
            unit="share",
            high=1,
            absent=NOT_YET,
            description="On the same held-out questions.",
        ),
        bars(
            "Attempts at stages",
            Query(f"{promql.grown('gog_operator_attempts_total', '', 'kind, outcome')} > 0", "{{kind}} {{outcome}}"),
            unit="count",
            absent="appears after a stage has ended",
            colours=palette.ATTEMPTS,
            description="Over the time range, for all runs of the operator; the metric has no run label.",
        ),
    ),
)

STAGES = Row(
    "Stages",
    (
        states(
            "Stage timeline",
            Query(f"floor({PROGRESS})", "{{stage}}"),
            *STAGE,
            width=12,
            description="A gap is a stage without a running pod: it waits for capacity, or its pod has ended.",
        ),
        lines("Progress", Query(PROGRESS, "{{stage}}"), unit="share", width=12, high=1),
    ),
)

BOARD = Dashboard(
    "run",
    "gog / Run",
    "Reward, accuracy and progress of runs.",
    (NOW, LEARNING, OUTCOME, STAGES),
    {"namespace": "gog_train_step", "run": "gog_train_step"},
)

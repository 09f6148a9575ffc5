"""The dashboard *Rollouts and training*: is the update healthy, where does the time go, are checkpoints kept."""

from __future__ import annotations

from gog_console.dashboards import palette, promql
from gog_console.dashboards.panels import WHERE, Dashboard, Panel, Query, Row, lines

ON_A_GPU = "known on a GPU only"
BY_REWARD = "known in a stage that learns by reward"


def gauge(title: str, metric: str, word: str, **settings: object) -> Panel:
    """One curve a run, of what its trainer says once a step."""
    return lines(
        title,
        Query(f"avg by (run) ({metric}{{{WHERE}}})", f"{word} {{{{run}}}}"),
        **{"width": 6, "height": 7, **settings},
    )


ROLLOUTS = Row(
    "Rollouts",
    (
        lines(
            "Trajectories",
            Query(promql.per_second("gog_rollout_trajectories_total", WHERE, "status"), "{{status}}"),
            Query(promql.per_second("gog_stage_skipped_total", WHERE, "stage"), "skipped questions {{stage}}"),
            unit="per_second",
            width=6,
            stacked=True,
            colours=palette.STATUSES,
        ),
        lines(
            "Tokens of rollouts",
            Query(promql.per_second("gog_rollout_tokens_total", WHERE, "kind"), "{{kind}}"),
            unit="per_second",
            width=6,
            colours={"generated": palette.BLUE, "prefilled": palette.GREY},
            description="Prefilled: read by the model, the prompt and what tools answered.",
        ),
        lines(
            "Rollouts of one step",
            Query(promql.quantile(0.5, "gog_rollout_seconds", WHERE, "run", "30m"), "median {{run}}"),
            Query(promql.quantile(0.95, "gog_rollout_seconds", WHERE, "run", "30m"), "slow (95 %) {{run}}"),
            unit="seconds",
            width=6,
            colours={"median": palette.BLUE, "slow": palette.AMBER},
            description="Over the last half hour.",
        ),
        gauge(
            "Staleness",
            "gog_rollout_staleness_steps",
            "steps",
            height=8,
            absent=BY_REWARD,
            description="By how many steps the weights that wrote the rollouts are older than those that learn.",
        ),
    ),
)

UPDATE = Row(
    "The update",
    (
        gauge(
            "Distance from the reference",
            "gog_train_kl",
            "KL",
            absent=BY_REWARD,
            description="KL divergence, in nats a token.",
        ),
        lines(
            "Clipped tokens, groups without variance",
            Query(f"avg by (run) (gog_train_clip_frac{{{WHERE}}})", "clipped {{run}}"),
            Query(f"avg by (run) (gog_train_frac_reward_zero_std{{{WHERE}}})", "no variance {{run}}"),
            unit="share",
            width=6,
            height=7,
            high=1,
            colours={"clipped": palette.AMBER, "variance": palette.VIOLET},
            absent=BY_REWARD,
            description="A group whose trajectories all got the same reward teaches nothing.",
        ),
        gauge(
            "Entropy", "gog_train_entropy", "entropy", absent=BY_REWARD, description="Of the next token, nats a token."
        ),
        gauge("Gradient norm", "gog_train_grad_norm", "norm", description="Before clipping."),
    ),
)

SPEED = Row(
    "Where the time goes",
    (
        lines(
            "Seconds of a step, by part",
            Query(f'avg by (part) (gog_train_step_seconds{{{WHERE},part!="total"}})', "{{part}}"),
            unit="seconds",
            stacked=True,
            colours=palette.PARTS,
        ),
        lines(
            "Loss",
            Query(f"avg by (run, stage) (gog_train_loss{{{WHERE}}})", "{{stage}} {{run}}"),
            low=None,
            width=6,
        ),
        lines(
            "Tokens trained",
            Query(f"sum by (stage) (gog_train_tokens_per_second{{{WHERE}}})", "{{stage}}"),
            unit="per_second",
            width=5,
        ),
        lines(
            "Model FLOPs utilisation",
            Query(f"avg by (run, stage) (gog_train_mfu{{{WHERE}}})", "{{stage}} {{run}}"),
            unit="share",
            width=5,
            absent=ON_A_GPU,
            description="The share of the machine's arithmetic that the model's own arithmetic takes.",
        ),
    ),
)

OPERATION_SECONDS = "gog_store_operation_duration_seconds"
CHECKPOINTS = Row(
    "Checkpoints and store",
    (
        lines(
            "Age of the newest checkpoint",
            Query(f"time() - max by (stage) (gog_checkpoint_timestamp_seconds{{{WHERE}}})", "{{stage}}"),
            unit="seconds",
            width=6,
            absent="nothing was committed yet",
        ),
        lines(
            "Mean duration of operations",
            Query(
                f"{promql.per_second(f'{OPERATION_SECONDS}_sum', WHERE, 'operation', '30m')}"
                f" / ({promql.per_second(f'{OPERATION_SECONDS}_count', WHERE, 'operation', '30m')} > 0)",
                "{{operation}}",
            ),
            unit="seconds",
            width=6,
            description="Over the last half hour.",
        ),
        lines(
            "Moved",
            Query(promql.per_second("gog_store_bytes_total", WHERE, "operation"), "{{operation}}"),
            unit="bytes_per_second",
            width=6,
        ),
        lines(
            "Failed, or tried again",
            Query(
                f'sum by (operation) (increase(gog_store_operations_total{{{WHERE},outcome!="ok"}}[30m]))',
                "{{operation}} failed",
            ),
            Query(
                f"sum by (operation) (increase(gog_store_retries_total{{{WHERE}}}[30m]))", "{{operation}} tried again"
            ),
            unit="count",
            width=6,
            description="In half an hour.",
        ),
    ),
)

BOARD = Dashboard(
    "training",
    "gog / Rollouts and training",
    "Rollouts, the update, the time of a step, checkpoints.",
    (ROLLOUTS, UPDATE, SPEED, CHECKPOINTS),
    {"namespace": "gog_train_step", "run": "gog_train_step"},
)

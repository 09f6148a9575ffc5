"""Dashboard *Rollouts and training*: health of the update, time per step, checkpoints."""

from __future__ import annotations

from gog_console.dashboards import palette, promql
from gog_console.dashboards.panels import WHERE, Dashboard, Panel, Query, Row, lines

ON_A_GPU = "available on a GPU only"
BY_REWARD = "available for GRPO stages only"
SEVERAL_RANKS = "available for stages with several ranks only"


def gauge(title: str, metric: str, word: str, **settings: object) -> Panel:
    """One curve per run of a gauge that the trainer sets once per step."""
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
            description="Prefilled: prompt and observation tokens.",
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
            description="Steps between the weights that sampled the rollouts and those being trained.",
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
            description="KL divergence, nats per token.",
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
            description="A group with zero reward variance gives no gradient.",
        ),
        gauge(
            "Steps in a row without a signal",
            "gog_train_no_signal_steps",
            "steps",
            absent=BY_REWARD,
            description="Steps in which every group had zero reward variance. From max_no_signal_steps on the stage warns.",
        ),
        lines(
            "Engine against trainer",
            Query(f"avg by (run) (gog_train_logp_diff_mean{{{WHERE}}})", "difference {{run}}"),
            Query(f"avg by (run) (gog_train_engine_kl{{{WHERE}}})", "KL {{run}}"),
            width=6,
            height=7,
            colours={"difference": palette.BLUE, "KL": palette.VIOLET},
            absent=BY_REWARD,
            description="Log-probabilities of the same tokens, per token. Above max_logprob_gap the stage stops.",
        ),
        lines(
            "Effect of adapter and images",
            Query(f"avg by (run) (gog_canary_adapter_effect{{{WHERE}}})", "adapter {{run}}"),
            Query(f"avg by (run) (gog_canary_image_effect{{{WHERE}}})", "images {{run}}"),
            width=6,
            height=7,
            colours={"adapter": palette.TEAL, "images": palette.GOLD},
            absent=BY_REWARD,
            description="Change of log-probabilities without one of them, nats per token. At 0 the stage stops.",
        ),
        gauge(
            "Truncated importance weights",
            "gog_train_tis_truncated_frac",
            "truncated",
            unit="share",
            high=1,
            absent=BY_REWARD,
            description="Share of tokens that the engine found much less probable than the trainer.",
        ),
        gauge(
            "Entropy",
            "gog_train_entropy",
            "entropy",
            absent=BY_REWARD,
            description="Entropy of the sampled tokens, nats per token.",
        ),
        gauge("Gradient norm", "gog_train_grad_norm", "norm", description="Before clipping."),
    ),
)


def by_part(series: str) -> str:
    """The mean of a series of step parts, by `shown` part. The canary counts as other, because ten lines are the most that
    a panel shows."""
    copied = f'label_join(avg by (part) ({series}), "shown", "", "part")'
    return f'sum by (shown) (label_replace({copied}, "shown", "other", "part", "canary"))'


SPEED = Row(
    "Time per step",
    (
        lines(
            "Seconds of a step, by part",
            Query(by_part(f'gog_train_step_seconds{{{WHERE},part!="total"}}'), "{{shown}}"),
            unit="seconds",
            stacked=True,
            colours=palette.PARTS,
            description="Each moment belongs to one part, so they add up to the step; what is hidden behind other work is not "
            "shown. The canary is part of other.",
        ),
        lines(
            "Idle trainer and engine",
            Query(f"avg by (run) (gog_train_trainer_idle_ratio{{{WHERE}}})", "trainer {{run}}"),
            Query(f"avg by (run) (gog_train_engine_idle_ratio{{{WHERE}}})", "engine {{run}}"),
            unit="share",
            high=1,
            colours={"trainer": palette.BLUE, "engine": palette.AMBER},
            absent=BY_REWARD,
            description="Share of a step in which the trainer waited; in which no episode could proceed.",
        ),
        lines(
            "Seconds of the slowest rank, by part",
            Query(by_part(f"gog_train_slowest_rank_seconds{{{WHERE}}}"), "{{shown}}"),
            Query(f"avg by (run) (gog_train_slowest_rank{{{WHERE}}})", "number of the rank {{run}}"),
            unit="none",
            colours=palette.PARTS,
            absent=SEVERAL_RANKS,
            description="Of the rank that waited least. A straggler is far above the mean, which is shown by part.",
        ),
        lines(
            "Tools hidden behind other work",
            Query(f"avg by (run) (gog_train_tools_overlapped_seconds{{{WHERE}}})", "overlapped {{run}}"),
            unit="seconds",
            width=6,
            absent=BY_REWARD,
            description="Seconds of a step in which a tool was waited for while other episodes or the trainer worked.",
        ),
        lines(
            "Peak memory",
            Query(f"max by (run) (gog_train_device_memory_peak_bytes{{{WHERE}}})", "device {{run}}"),
            Query(f"max by (run) (gog_train_host_memory_peak_bytes{{{WHERE}}})", "host {{run}}"),
            unit="bytes",
            width=6,
            colours={"device": palette.BLUE, "host": palette.GREY},
            absent=ON_A_GPU,
            description="Of the largest rank: tensors on its device in a step, and its process since it began.",
        ),
        lines(
            "Loss",
            Query(f"avg by (run, stage) (gog_train_loss{{{WHERE}}})", "{{stage}} {{run}}"),
            low=None,
            width=6,
        ),
        lines(
            "Held-out demonstrations",
            Query(f"avg by (run) (gog_train_eval_loss{{{WHERE}}})", "loss {{run}}"),
            Query(f"avg by (run) (gog_train_eval_token_accuracy{{{WHERE}}})", "token accuracy {{run}}"),
            width=6,
            colours={"loss": palette.BLUE, "accuracy": palette.GREEN},
            absent="available for SFT stages only",
            description="Loss in nats, and share of tokens that are the most probable one.",
        ),
        lines(
            "Tokens trained and generated",
            Query(f"sum by (stage) (gog_train_tokens_per_second{{{WHERE}}})", "{{stage}}"),
            Query(f"sum by (run) (gog_rollout_tokens_per_second{{{WHERE}}})", "generated {{run}}"),
            unit="per_second",
            width=5,
        ),
        lines(
            "Model FLOPs of the update",
            Query(f"sum by (stage) (gog_train_model_flops_per_second{{{WHERE}}})", "{{stage}}"),
            unit="per_second",
            width=5,
            description="4 per token and frozen weight, 6 per token and trained one, and attention; of all ranks.",
        ),
        lines(
            "Model FLOPs utilisation",
            Query(f"avg by (run, stage) (gog_train_mfu{{{WHERE}}})", "{{stage}} {{run}}"),
            unit="share",
            width=5,
            absent=ON_A_GPU,
            description="Model FLOPs over the peak FLOPs of the hardware.",
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
            absent="no checkpoint yet",
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
            "Failed and retried",
            Query(
                f'sum by (operation) (increase(gog_store_operations_total{{{WHERE},outcome!="ok"}}[30m]))',
                "{{operation}} failed",
            ),
            Query(f"sum by (operation) (increase(gog_store_retries_total{{{WHERE}}}[30m]))", "{{operation}} retried"),
            unit="count",
            width=6,
            description="Per half hour.",
        ),
    ),
)

BOARD = Dashboard(
    "training",
    "gog / Rollouts and training",
    "Rollouts, the update, time per step, checkpoints.",
    (ROLLOUTS, UPDATE, SPEED, CHECKPOINTS),
    {"namespace": "gog_train_step", "run": "gog_train_step"},
)

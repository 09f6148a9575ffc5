"""The figures of each training step, and the parts of its time: one row each.

Every other list of them is derived from these rows: gauges of Prometheus, panels of dashboards, charts of the report,
figures of `gog status`, keys of `report/summary.json`. docs/architecture.md shows how to add one with a panel. Which
recipe reports a figure is a matter of that recipe; a figure that no row names is logged and not shown.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class StepMetric:
    """A figure of each training step, from the recipe's log to dashboards and the report."""

    key: str
    """Key in a line of `metrics.jsonl`, under which the recipe reports it."""
    stages: tuple[str, ...]
    """Stages that report it."""
    title: str
    """Title of its chart in the report."""
    unit: str
    """Base unit; `share` is a number from 0 to 1 and is shown in percent."""
    help: str
    """What it means, in one sentence: help text of its gauge, and documentation."""
    note: str = ""
    """Subtitle of its chart; empty for none."""
    gauge: str = ""
    """Name in Prometheus; empty for a figure that is only logged."""
    gauge_help: str = ""
    """Help text of a gauge that several rows share; empty takes that of the row."""
    labels: Mapping[str, str] = field(default_factory=dict)
    """Fixed labels of the gauge, by name."""
    by_stage: bool = False
    """Whether the gauge has a label `stage`."""
    chart_of: tuple[str, ...] = ()
    """Stages whose section of the report draws it as a chart of its own (some charts combine several figures)."""
    smooth: bool = True
    """Whether its chart draws a moving average."""
    zero_based: bool = True
    """Whether the axis of its chart includes 0."""
    status_of: tuple[str, ...] = ()
    """Stages of whose figures in `gog status` it is one."""
    short: str = ""
    """Name in `gog status`; empty takes the title."""
    series: str = ""
    """Key of a stage's progress report that holds its course; empty for none."""
    summary_of: tuple[str, ...] = ()
    """Stages for each of whose steps `report/summary.json` lists it."""
    higher_is_better: bool | None = None
    """None where neither direction is better."""
    absent_at_zero: bool = False
    """Whether `gog status` and the report leave it out where it is 0 in every step."""

    def is_shown(self, values: Iterable[float | None]) -> bool:
        """Whether a course of it is worth showing. values: of each step; None where it is unknown."""
        return any(value is not None and (value or not self.absent_at_zero) for value in values)


@dataclass(frozen=True)
class StepPart:
    """A part of a step's wall time. A process is in exactly one part at any moment, so the parts add up to the step."""

    name: str
    """Label of metrics, and end of its keys in `metrics.jsonl`."""
    stages: tuple[str, ...]
    """Stages that have it."""
    title: str
    """As the report writes it."""
    help: str
    """What is attributed to it, in one sentence."""
    trains: bool = False
    """Whether the trainer works in it. What the rollouts do meanwhile is overlapped, and attributed to no part."""


_SFT, _GRPO, _BOTH = ("sft",), ("grpo",), ("sft", "grpo")
PARTS = (
    StepPart(
        "rollout", _GRPO, "rollouts", "The trainer waited, and at least one episode could proceed: its turn was sampled or prepared."
    ),
    StepPart(
        "tools", _GRPO, "waiting for tools",
        "The trainer waited, and every open episode waited for a tool or the judge, one of them at least for a tool.",
    ),
    StepPart("judge", _GRPO, "waiting for the judge", "The trainer waited, and every open episode waited for the judge."),
    StepPart("canary", _GRPO, "canary", "The engine was compared with the trainer.", trains=True),
    StepPart(
        "reference", _GRPO, "reference",
        "Forward passes of the reference, and with `updatesPerRollout` of the policy before its update.", trains=True,
    ),
    StepPart(
        "train", _BOTH, "update",
        "Forward and backward passes of the policy, and the optimizer step; collectives of sharded layers included.", trains=True,
    ),
    StepPart("evaluation", _SFT, "evaluation", "Held-out demonstrations were evaluated.", trains=True),
    StepPart("sync", _GRPO, "weights to engine", "The engine freed its memory, and took over new weights.", trains=True),
    StepPart("checkpoint", _BOTH, "checkpoint", "The checkpoint of the step before was written.", trains=True),
    StepPart("other", _BOTH, "other work", "Advantages, figures, logs.", trains=True),
    StepPart(
        "idle", _BOTH, "idle", "The process waited for other ranks or for the end of an outage, and no episode was open."
    ),
)  # fmt: skip
"""In the order in which charts stack them."""


_STEP_SECONDS = "Time of the last step by part, mean over ranks; the parts add up to the total."
_SLOWEST = "Time of the last step by part, of the rank that was idle for the shortest time; with several ranks."


def _parts(prefix: str, gauge: str, help: str, note: str) -> tuple[StepMetric, ...]:
    """One row for each part of a step."""
    return tuple(
        StepMetric(
            f"{prefix}{part.name}", part.stages, f"{part.title[0].upper()}{part.title[1:]}{note}", "seconds", part.help,
            gauge=gauge, gauge_help=help, labels={"part": part.name},
        )
        for part in PARTS
    )  # fmt: skip


METRICS = (
    StepMetric(
        "loss", _BOTH, "Loss", "loss", "Loss of the last update, mean over its optimizer steps.", "model tokens only",
        gauge="gog_train_loss", by_stage=True, chart_of=_SFT, zero_based=False,
        status_of=_SFT, short="loss", series="losses", summary_of=_SFT, higher_is_better=False,
    ),
    StepMetric(
        "eval_loss", _SFT, "Loss on held-out demonstrations", "loss",
        "Mean cross entropy of learned tokens of held-out demonstrations, at the last evaluation.",
        "evaluated every eval_every steps", gauge="gog_train_eval_loss", chart_of=_SFT, smooth=False, zero_based=False,
        higher_is_better=False,
    ),
    StepMetric(
        "eval_token_accuracy", _SFT, "Token accuracy on held-out demonstrations", "share",
        "Fraction of learned tokens of held-out demonstrations that are the most probable one, at the last evaluation.",
        "evaluated every eval_every steps", gauge="gog_train_eval_token_accuracy", chart_of=_SFT, smooth=False,
        higher_is_better=True,
    ),
    StepMetric(
        "tokens_per_second", _BOTH, "Training speed", "tokens per second",
        "Tokens that the last update read, divided by its time.",
        gauge="gog_train_tokens_per_second", by_stage=True, status_of=_SFT, short="tokens/s", higher_is_better=True,
    ),
    StepMetric(
        "reward_mean", _GRPO, "Reward", "reward, 0 to 1", "Mean over the last step's counted trajectories.",
        gauge="gog_reward_mean", labels={"component": "reward"},
        status_of=_GRPO, short="reward", series="rewards", summary_of=_GRPO, higher_is_better=True,
    ),
    StepMetric(
        "accuracy_mean", _GRPO, "Accuracy", "reward, 0 to 1", "Mean over the last step's counted trajectories.",
        gauge="gog_reward_mean", labels={"component": "accuracy"}, summary_of=_GRPO, higher_is_better=True,
    ),
    StepMetric(
        "format_mean", _GRPO, "Format", "reward, 0 to 1", "Mean over the last step's counted trajectories.",
        gauge="gog_reward_mean", labels={"component": "format"}, summary_of=_GRPO, higher_is_better=True,
    ),
    StepMetric(
        "reward_std", _GRPO, "Deviation of the reward", "reward",
        "Standard deviation of the reward over the last step's counted trajectories.", gauge="gog_reward_std",
    ),
    StepMetric(
        "kl", _GRPO, "KL to the reference", "nats per token",
        "Divergence from the reference policy in the last update, by the stage's estimator.", "mean per token",
        gauge="gog_train_kl", chart_of=_GRPO, status_of=_GRPO, short="KL", summary_of=_GRPO,
    ),
    StepMetric(
        "clip_frac", _GRPO, "Clipped tokens", "share", "Fraction of trained tokens whose probability ratio was clipped.",
        "share of tokens whose ratio left the clip range", gauge="gog_train_clip_frac", chart_of=_GRPO,
    ),
    StepMetric(
        "grad_norm", _BOTH, "Gradient norm", "norm", "Norm of the last update's gradient, before clipping; mean over its optimizer steps.",
        "before clipping", gauge="gog_train_grad_norm", chart_of=_BOTH,
    ),
    StepMetric(
        "learning_rate", _BOTH, "Learning rate", "rate", "Learning rate of the last update.",
        chart_of=_BOTH, smooth=False,
    ),
    StepMetric(
        "tool_failure_ratio", _GRPO, "Failed tool calls", "share",
        "Fraction of the step's tool calls that failed after all retries.",
        status_of=_GRPO, short="tool failures", summary_of=_GRPO, higher_is_better=False,
    ),
    StepMetric(
        "excluded_share", _GRPO, "Excluded trajectories", "share",
        "Fraction of the step's trajectories that failures of tools or the judge excluded.",
        "share of all trajectories", chart_of=_GRPO, higher_is_better=False,
    ),
    StepMetric(
        "treated", _GRPO, "Trajectories learned differently", "trajectories",
        "Trajectories of which a tool failure changed what is learned, although they count (`toolFailures`).",
    ),
    StepMetric(
        "survivor_weight_max", _GRPO, "Largest survivor weight", "weight",
        "Largest weight of a trajectory that stands for excluded ones (`survivorCorrection`); 1 without.",
    ),
    StepMetric(
        "frac_reward_zero_std", _GRPO, "Groups without a signal", "share",
        "Fraction of groups with zero reward variance, penalties of costs and length aside.",
        "share of groups whose valid rewards are all equal", gauge="gog_train_frac_reward_zero_std",
        chart_of=_GRPO, status_of=_GRPO, short="zero-variance groups", higher_is_better=False,
    ),
    StepMetric("refilled", _GRPO, "Replaced groups", "groups", "Groups without a signal that the step replaced."),
    StepMetric(
        "no_signal_in_a_row", _GRPO, "Steps without a signal", "steps",
        "Steps in a row, up to the last, in which every group had zero reward variance, so nothing was learned.",
        gauge="gog_train_no_signal_steps", higher_is_better=False,
    ),
    StepMetric(
        "entropy", _GRPO, "Entropy", "nats per token",
        "Mean negative log-probability of the last step's sampled tokens, an estimate of the policy's entropy.",
        "mean over sampled tokens", gauge="gog_train_entropy", chart_of=_GRPO,
    ),
    StepMetric(
        "logp_diff_mean", _GRPO, "Engine against trainer", "nats",
        "Mean difference between the engine's and the trainer's log-probability of the last step's learned tokens.",
        "mean difference of log-probs, same tokens and weights", gauge="gog_train_logp_diff_mean", chart_of=_GRPO,
        status_of=_GRPO, short="engine gap", higher_is_better=False,
    ),
    StepMetric(
        "logp_diff_max", _GRPO, "Engine against trainer, largest", "nats",
        "Largest difference between the engine's and the trainer's log-probability of a token.",
        "largest difference of log-probs, same tokens and weights", chart_of=_GRPO, higher_is_better=False,
    ),
    StepMetric(
        "engine_kl", _GRPO, "KL of engine and trainer", "nats per token",
        "Divergence of the engine from the trainer over the last step's learned tokens (k3 estimator).",
        gauge="gog_train_engine_kl", higher_is_better=False,
    ),
    StepMetric(
        "engine_kl_sequence", _GRPO, "KL of engine and trainer per trajectory", "nats per trajectory",
        "Divergence of the engine from the trainer over whole trajectories (k1 estimator).", higher_is_better=False,
    ),
    StepMetric(
        "tis_weight_mean", _GRPO, "Importance weight", "weight",
        "Mean truncated importance weight of the last step's learned tokens; 1 where engine and trainer agree.",
    ),
    StepMetric(
        "tis_truncated_frac", _GRPO, "Truncated importance weights", "share",
        "Fraction of the last step's learned tokens whose importance weight was truncated.",
        gauge="gog_train_tis_truncated_frac", higher_is_better=False,
    ),
    StepMetric(
        "canary_engine", _GRPO, "Canary: engine against trainer", "nats",
        "Mean difference between the engine's and the trainer's log-probability of the last step's canary tokens.",
        higher_is_better=False,
    ),
    StepMetric(
        "canary_adapter", _GRPO, "Effect of the adapters", "nats per token",
        "Mean difference that all adapters make to log-probabilities of the last step's canary tokens.",
        "difference of log-probs with and without all adapters", gauge="gog_canary_adapter_effect", chart_of=_GRPO,
    ),
    StepMetric(
        "canary_images", _GRPO, "Effect of the images", "nats per token",
        "Mean difference that image features make to log-probabilities of the last step's canary tokens.",
        "difference of log-probs with and without image features", gauge="gog_canary_image_effect", chart_of=_GRPO,
    ),
    StepMetric("canary_seconds", _GRPO, "Canary", "seconds", "Time of the last step's canary.", higher_is_better=False),
    StepMetric(
        "staleness", _GRPO, "Staleness", "steps",
        "Steps between the oldest weights that sampled the last step and the weights that were trained.",
        gauge="gog_rollout_staleness_steps",
    ),
    StepMetric(
        "staleness_mean", _GRPO, "Mean staleness", "steps",
        "Steps between the weights that sampled a token of the last step and those that were trained, mean.",
        "mean over sampled tokens", chart_of=_GRPO, status_of=_GRPO, short="staleness", absent_at_zero=True,
    ),
    StepMetric(
        "dropped_stale", _GRPO, "Dropped as stale", "trajectories",
        "Trajectories of an earlier attempt that were played anew, as older weights than allowed had sampled them.",
    ),
    StepMetric(
        "learned", _GRPO, "Trajectories learned from", "trajectories", "Trajectories that the last update trained on.",
        "per step; the others were excluded, or their group had no signal", chart_of=_GRPO,
    ),
    StepMetric(
        "updates", _GRPO, "Optimizer steps per step", "steps",
        "Optimizer steps of the step; fewer than `updatesPerRollout` where fewer groups had a signal.",
    ),
    StepMetric(
        "tool_calls_mean", _GRPO, "Tool calls per trajectory", "calls", "Mean number of tool calls of a trajectory.",
        chart_of=_GRPO,
    ),
    StepMetric(
        "generated_tokens", _GRPO, "Generated tokens per step", "tokens", "Tokens that the policy generated in the step.",
        chart_of=_GRPO,
    ),
    StepMetric(
        "generated_tokens_per_second", _GRPO, "Sampling speed", "tokens per second",
        "Tokens that the policy generated in the step, divided by the time in which questions were played.",
        gauge="gog_rollout_tokens_per_second", status_of=_GRPO, short="generated tokens/s", higher_is_better=True,
    ),
    StepMetric(
        "model_flops_per_second", _BOTH, "Speed of the update", "FLOP per second",
        "Model FLOPs of the last update, divided by its time, of all ranks: 4 per token and frozen weight, 6 per token and "
        "trained one, and attention; without the reference and what checkpointing computes again.",
        gauge="gog_train_model_flops_per_second", by_stage=True, higher_is_better=True,
    ),
    StepMetric(
        "mfu", _BOTH, "Model FLOPs utilisation", "share",
        "Model FLOPs per second of the last update, divided by the peak of the devices; absent where that is unknown.",
        gauge="gog_train_mfu", by_stage=True, chart_of=_BOTH, status_of=_BOTH, short="MFU", higher_is_better=True,
    ),
    StepMetric(
        "host_memory_peak_bytes", _BOTH, "Peak of host memory", "bytes",
        "Largest resident memory of a rank's process since it began.", gauge="gog_train_host_memory_peak_bytes",
        by_stage=True, status_of=_BOTH, short="host memory", higher_is_better=False,
    ),
    StepMetric(
        "device_memory_peak_bytes", _BOTH, "Peak of device memory", "bytes",
        "Largest memory of a rank's tensors on its device during the last step; absent on a CPU.",
        gauge="gog_train_device_memory_peak_bytes", by_stage=True,
        status_of=_BOTH, short="device memory", higher_is_better=False,
    ),
    StepMetric(
        "seconds", _BOTH, "Seconds per step", "seconds",
        "Time of the whole step: from the end of the step before, whose checkpoint is included.",
        gauge="gog_train_step_seconds", gauge_help=_STEP_SECONDS, labels={"part": "total"},
        status_of=_GRPO, short="time per step", summary_of=_GRPO, higher_is_better=False,
    ),
    *_parts("seconds_", "gog_train_step_seconds", _STEP_SECONDS, ""),
    *_parts("slowest_", "gog_train_slowest_rank_seconds", _SLOWEST, ", slowest rank"),
    StepMetric(
        "slowest_rank", _BOTH, "Slowest rank", "rank", "The rank that was idle for the shortest time in the step; with several ranks.",
        gauge="gog_train_slowest_rank",
    ),
    StepMetric(
        "trainer_idle", _GRPO, "Idle trainer", "share",
        "Fraction of the step in which the trainer waited for rollouts, other ranks or the end of an outage.",
        gauge="gog_train_trainer_idle_ratio", status_of=_GRPO, short="trainer idle", higher_is_better=False,
    ),
    StepMetric(
        "engine_idle", _GRPO, "Idle engine", "share",
        "Fraction of the step in which no episode could proceed: none was open, or all waited for tools or the judge.",
        gauge="gog_train_engine_idle_ratio", status_of=_GRPO, short="engine idle", higher_is_better=False,
    ),
    StepMetric(
        "tools_overlapped_seconds", _GRPO, "Overlapped tools", "seconds",
        "Seconds of the step in which a tool was waited for while other episodes or the trainer worked.",
        gauge="gog_train_tools_overlapped_seconds",
    ),
)  # fmt: skip
"""In the order in which the report and `gog status` show them."""


def of_stage(stage: str) -> tuple[StepMetric, ...]:
    """The rows that a stage reports.

    >>> [row.key for row in of_stage("curate")]
    []
    """
    return tuple(row for row in METRICS if stage in row.stages)

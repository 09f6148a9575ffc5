"""What a step of GRPO reports: its line of the metric log, the stage's progress, and sentences in the log.

The figures are over all ranks, so all of them take part; rank 0 writes. What a figure means is said in its row of
gog.step_metrics. Not here: what a step computes, and when it is saved (the recipe).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from gog import exclusion, progress, stats, survivors
from gog.engine import Counters
from gog.spec import GRPOConfig
from gog_recipes.rollout import refill
from gog_recipes.rollout.rollout_stats import figures, sampled, sampled_tokens
from gog_recipes.runtime import flops, memory, minibatches, no_signal, timers
from gog_recipes.runtime.attempts import Attempts
from gog_recipes.runtime.canary import CanaryStats
from gog_recipes.runtime.learner import StepRollout
from gog_recipes.runtime.stage import Stage
from gog_recipes.runtime.update_stats import UpdateStats


@dataclass(frozen=True)
class FinishedStep:
    """A step whose weights the engine has taken over."""

    number: int
    """Counted from 1."""
    rollout: StepRollout
    """Its trajectories."""
    signals: int
    """Groups, replaced ones included, that have something to learn from."""
    update: UpdateStats
    """Its optimizer steps."""
    checked: CanaryStats
    """Its comparison of engine and trainer."""
    learning_rate: float
    """Of its optimizer steps."""
    times: timers.StepTimes
    """Where the time of this rank went."""
    counters: Counters
    """What the engine of this rank computed."""
    discarded: int
    """Plays of its questions that failures spoiled."""
    too_old: int
    """Trajectories of an earlier attempt that this rank played anew, because older weights than allowed had sampled them."""


class StepReport:
    """Reports the steps of a GRPO stage.

    Args:
        stage: that learns
        cfg: its configuration
        utilisation: of its devices by the update
        device: of this rank
    """

    def __init__(self, stage: Stage, cfg: GRPOConfig, utilisation: flops.Utilisation, device: torch.device) -> None:
        self._stage, self._cfg, self._utilisation, self._device = stage, cfg, utilisation, device
        self._attempts = Attempts(stage.ranks)

    def record(self, step: FinishedStep) -> None:
        """Writes the figures of a step. All ranks at once.

        Raises:
            UserError: too many steps in a row had no signal, and `no_signal` is `stop`.
        """
        every = self._stage.ranks.gather(step.times)
        spent = timers.figures(every)
        line = self._of_rollout(step) | self._of_update(step, spent) | self._of_time(step, every, spent)
        lines = self._stage.metric_log.lines
        line["no_signal_in_a_row"] = no_signal.in_a_row([*lines, line])
        self._stage.record_step(step=step.number, total=self._cfg.steps, **line)
        self._progress(step, line, spent)
        self._sentences(step)

    def _of_rollout(self, step: FinishedStep) -> dict[str, Any]:
        """Figures of the trajectories."""
        rollout, found = step.rollout, step.rollout.exclusions
        groups = [*rollout.groups, *rollout.replaced]
        attempted, failed = self._attempts.since_last()
        return {
            **figures(rollout.played), **exclusion.by_length(found), **survivors.figures(groups), **self._sampled(step),
            "attempts": attempted, "attempt_failure_ratio": failed / max(1, attempted),
            "excluded": found.excluded, "excluded_share": found.share, "discarded_plays": step.discarded,
            "skipped": rollout.skipped, "refilled": len(rollout.replaced),
            "frac_reward_zero_std": (len(groups) - step.signals) / len(groups),
            "dropped_stale": self._stage.ranks.all_reduce_sum(step.too_old),
        }  # fmt: skip

    def _sampled(self, step: FinishedStep) -> dict[str, float]:
        """Entropy and staleness of the sampled tokens of all ranks."""
        place = {item.id: number for number, item in enumerate(step.rollout.trajectories)}
        own = [(place[item.id], sampled_tokens(item)) for group in step.rollout.own for item in group]
        found = sorted(each for part in self._stage.ranks.gather(own) for each in part)
        return sampled([tokens for _, tokens in found], step.number - 1)

    def _of_update(self, step: FinishedStep, spent: Mapping[str, float]) -> dict[str, Any]:
        """Figures of the optimizer steps and of the canary."""
        update = step.update
        return {
            "loss": update.loss, "kl": update.kl, "clip_frac": update.clip_frac, "grad_norm": update.grad_norm,
            "learning_rate": step.learning_rate, "learned": update.learned, "updates": update.updates,
            "tokens_per_second": update.work.tokens / max(timers.updated(spent), 1e-9),
            **self._utilisation.figures(update.work, spent.get("seconds_train", 0.0)),
            **dataclasses.asdict(step.checked), **(dataclasses.asdict(update.gap) if update.gap else {}),
        }  # fmt: skip

    def _of_time(self, step: FinishedStep, every: list[timers.StepTimes], spent: Mapping[str, float]) -> dict[str, Any]:
        """Figures of time, speed of sampling and memory."""
        ranks = self._stage.ranks
        counters = Counters.total(ranks.gather(step.counters))
        playing, played = timers.played(spent), max(each.play for each in every)
        return {
            **spent, **timers.idle(every), "rollout_seconds": playing, "train_seconds": spent["seconds"] - playing,
            "generated_tokens": counters.generated, "prefill_ratio": counters.prefilled / max(1, counters.unique),
            "generated_tokens_per_second": counters.generated / max(played, 1e-9),
            **memory.figures(ranks.gather(memory.take_peak(self._device))),
        }  # fmt: skip

    def _progress(self, step: FinishedStep, line: Mapping[str, Any], spent: Mapping[str, float]) -> None:
        lines = self._stage.metric_log.lines
        series = [each["reward_mean"] for each in lines]
        self._stage.report(
            step.number, self._cfg.steps, reward=line["reward_mean"], tool_failure_ratio=line["tool_failure_ratio"],
            reward_first=stats.mean(series[:10]), reward_recent=stats.mean(series[-5:]),
            rewards=progress.downsample(series), no_signal_steps=sum(each.get("learned") == 0 for each in lines),
            no_signal_in_a_row=line["no_signal_in_a_row"], step_seconds=spent["seconds"],
            step_parts=timers.largest(spent),
        )  # fmt: skip

    def _sentences(self, step: FinishedStep) -> None:
        lines, log = self._stage.metric_log.lines, self._stage.log
        if step.number % 5 == 0 or step.number == self._cfg.steps:
            recent = stats.mean([line["reward_mean"] for line in lines[-5:]])
            excluded = step.rollout.exclusions.excluded
            log(f"step {step.number}/{self._cfg.steps} reward {recent:.3f} excluded {excluded}")
        if not step.update.learned:
            log(f"step {step.number}: the rewards of every group are equal, so the weights are unchanged")
        if 0 < step.update.updates < self._cfg.updates_per_rollout:
            log(minibatches.line(step.number, step.update.updates, self._cfg.updates_per_rollout))
        if step.rollout.missing and self._cfg.max_oversampling > 1:
            wanted = step.signals + step.rollout.missing
            log(refill.line(step.number, step.signals, wanted, self._cfg.max_oversampling))
        if warning := no_signal.warning(lines, self._cfg):
            log(warning)

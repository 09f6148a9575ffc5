"""GRPO with live tools: improve the policy on the questions that SFT left hard.

    tune run recipes/gog_recipes/grpo.py --config recipes/gog_recipes/configs/tiny/grpo.yaml steps=10

A step: draw questions; play a group of episodes for each, all at once, tools and judge over HTTP; reward; leave out
what infrastructure spoiled; advantages within each group; one update on the sampled tokens.

Features and their trade-offs
    - the policy is base + SFT adapter (merged) + a fresh adapter; switched off, that adapter leaves exactly the
      reference of the KL, at no cost in memory
    - one update per rollout: on-policy, so the clip only binds when `failures: keep` or an engine gap makes it
    - trajectories touched by a tool or judge failure enter neither the loss nor their group's statistics
    - groups whose valid rewards are all equal carry no signal and are skipped, not refilled
    - images are encoded once, in the rollout; training reuses the features (the vision tower is frozen)
    - resumes from its newest checkpoint; questions and sampling noise follow from seed and step
    - one process, or several under torchrun: questions are dealt out over ranks, each samples with an engine of its own
      and trains on its own groups; layers are sharded (FSDP2); statistics and the loss are over all ranks
    - the loss is chosen by name (gog_recipes.losses)
    - rollouts and updates take turns; there are no asynchronous rollouts

Raises UserError when no question of the chosen levels is left, or when the judge fails too often.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from omegaconf import DictConfig
from torchtune import config as tune_config
from torchtune import training, utils
from torchtune.recipe_interfaces import FTRecipeInterface

from gog import dataset, metrics, progress, rewards, stats, trajectory_zip
from gog.dataset import Question
from gog.engine import Counters, Limits
from gog.errors import UserError
from gog.levels import Graded
from gog.spec import GRPOConfig
from gog.tool_client import Toolbox
from gog.trajectory import Trajectory
from gog_recipes import losses
from gog_recipes.models import lora, policy_model
from gog_recipes.rollout import engine
from gog_recipes.rollout.question_pool import QuestionPool
from gog_recipes.rollout.rollout_stats import measure
from gog_recipes.rollout.rollouts import RewardConfig, Rollouts
from gog_recipes.runtime import checkpoint, config, optimizer, order, parallel, ranks, timers
from gog_recipes.runtime.stage import Stage

ROWS_PER_PASS = 64
"""Trajectories per forward and backward pass; gradients add up over passes, so it bounds memory and nothing else."""


@dataclass(frozen=True)
class UpdateStats:
    """Figures of an optimizer step, over all ranks."""

    kl: float = 0.0
    """KL to the reference in nats, mean over tokens."""
    clip_frac: float = 0.0
    """Share of tokens for which the clipped ratio was taken."""
    logp_diff_max: float = 0.0
    """Largest difference, in nats, between the trainer's and the engine's log-probability of a token."""
    grad_norm: float = 0.0
    """Norm of the gradient before clipping."""
    loss: float = 0.0
    """Of the whole step."""
    learned: int = 0
    """Trajectories that carried a signal."""
    tokens: int = 0
    """Tokens of those trajectories, prompts and observations included."""


class GRPORecipe(FTRecipeInterface):
    """Group-relative policy optimisation of the SFT policy."""

    def __init__(self, cfg: GRPOConfig) -> None:
        self.cfg = cfg
        self.device = utils.get_device(None)
        training.set_seed(cfg.seed)  # before ranks meet: alike on all, for they draw parts of one adapter
        self.ranks = ranks.init(self.device)
        self.stage = Stage(cfg, self.ranks)
        self.loss = losses.load(cfg.loss)
        self._attempts = (0, 0)

    def setup(self) -> None:
        self._setup_model()
        self._setup_data()
        self._setup_optimizer()
        self._setup_engine()

    def _setup_model(self) -> None:
        self.sft = self.stage.input("sft")
        base = self.stage.model
        self.processor = policy_model.load_processor(base)
        policy = lora.merge(policy_model.load_base(base, self.device), self.stage.folder(self.sft))
        self.model = lora.add(policy, self.cfg.lora)
        self.vision = policy_model.vision_of(self.model, self.processor)
        parallel.shard(self.model, self.ranks)
        self.throughput = timers.throughput(self.model, self.device, self.ranks.size)

    def _setup_data(self) -> None:
        self.ranks.require(self.cfg.questions_per_step, "questions_per_step")
        self.stratify = self.stage.input("stratify")
        graded = {
            line.question_id: line
            for line in dataset.read_lines(self.stage.store.open(self.stratify, "levels.jsonl"), Graded)
        }
        folder, questions = self.stage.questions("train")
        chosen = [question for question in questions if question.id in graded and self._wanted(graded[question.id])]
        if len(chosen) < self.cfg.questions_per_step:
            raise UserError(
                f"{len(chosen)} questions of level {', '.join(self.cfg.levels)} for steps of {self.cfg.questions_per_step}",
                where="levels", remedy="add a level, lower questions_per_step, or stratify more questions",
            )  # fmt: skip
        self.levels = {question.id: graded[question.id].level for question in chosen}
        self.pool = QuestionPool(folder, chosen)
        self.order = order.Order(len(chosen), self.cfg.questions_per_step, self.cfg.seed)

    def _wanted(self, line: Graded) -> bool:
        return line.level in self.cfg.levels and (self.cfg.keep_unsolved or not line.unsolved)

    def _setup_optimizer(self) -> None:
        self.optimizer = optimizer.build(self.cfg.optimizer, self.model.parameters(), self.cfg.learning_rate)
        self.step = checkpoint.resume(self.stage, self.model, self.optimizer)

    def _setup_engine(self) -> None:
        limits = Limits(self.cfg.max_tokens, self.cfg.max_turn_tokens, self.cfg.temperature)
        capacity = max(self.cfg.concurrent_episodes, self.cfg.group_size)
        parts = engine.Parts(self.model, self.processor, self.vision, limits, capacity, self.step)
        self.engine = engine.create(self.cfg.engine, parts)

    def questions(self, step: int) -> list[Question]:
        """The questions of a step, all different; pass after pass through the pool, each in an order of its own."""
        return [self.pool.questions[index] for index in self.order.step(step)]

    async def train(self) -> None:
        self.model.eval()  # no dropout between sampling and learning
        scoring = RewardConfig(self.cfg.format_weight, self.cfg.search_penalty, self.cfg.failures)
        async with Toolbox.of_stage(self.cfg) as toolbox:
            self.rollouts = Rollouts(
                self.engine, toolbox, self.cfg, self.pool, self.stage.key, self.cfg.seed, scoring,
                ranks=self.ranks, tracer=self.stage.tracer, levels=self.levels, log=self.stage.say,
            )  # fmt: skip
            while self.step < self.cfg.steps:
                timer = timers.StepTimer()
                played = await self.rollouts.play(
                    self.questions(self.step), self.cfg.group_size, step=self.step + 1, policy="grpo"
                )
                timer.mark("rollout")
                groups = [self.with_advantages(group) for group in played.groups]
                rate = optimizer.set_rate(
                    self.optimizer, self.cfg.learning_rate, self.step, warmup=self.cfg.warmup_steps
                )
                update = self.update(groups, [groups[index] for index in played.own])
                timer.mark("update")
                self.step += 1
                await self.engine.switch(self.model, self.step)
                timer.mark("refresh")
                trajectories = [item for group in groups for item in group]
                self._log(trajectories, update, rate, timer)
                if self.step % self.cfg.save_every == 0 or self.step == self.cfg.steps:
                    self.save_checkpoint(trajectories)
                    metrics.record_checkpoint_seconds(timer.mark("checkpoint"))

    def with_advantages(self, group: Sequence[Trajectory]) -> list[Trajectory]:
        """The group with advantages; an excluded trajectory has none and does not touch the others'."""
        totals = rewards.group_totals(group, self.cfg.failures)
        return [
            item.model_copy(update={"advantage": advantage})
            for item, advantage in zip(group, rewards.group_advantages(totals), strict=True)
        ]

    def update(self, groups: Sequence[Sequence[Trajectory]], own: Sequence[Sequence[Trajectory]]) -> UpdateStats:
        """One optimizer step on the trajectories of all ranks that carry a signal.

        Args:
            groups: of all ranks.
            own: those that this rank played, from which it learns.
        """
        everything = [item for group in groups for item in group]
        counted = sum(1 for item in everything if item.advantage is not None)
        learned = [item for item in everything if item.advantage]
        if not learned or not min(self.ranks.gather(len(own))):  # a rank without a group has nothing to pass through
            return UpdateStats()
        terms = []
        for rows in self._passes([item for group in own for item in group]):
            part = self._loss(rows, counted)
            if not rows[0].advantage:
                (part.loss * 0).backward()
                continue
            part.loss.backward()
            terms.append((part.kl, part.clip_frac, part.logp_diff_max, float(part.loss.detach())))
        norm = optimizer.clip_gradients(self.model, self.cfg.clip_grad_norm)
        kl, clip_frac, difference, parts = zip(*(term for own in self.ranks.gather(terms) for term in own), strict=True)
        loss = sum(parts)
        optimizer.apply_step(self.optimizer, self.model, self.ranks, step=self.step + 1, loss=loss, grad_norm=norm)
        tokens = sum(len(segment.tokens) for item in learned for segment in item.segments)
        return UpdateStats(stats.mean(kl), stats.mean(clip_frac), max(difference), norm, loss, len(learned), tokens)

    def _passes(self, own: Sequence[Trajectory]) -> list[list[Trajectory]]:
        """This rank's trajectories that carry a signal, by length, some to a pass; as many passes as every other rank,
        for the ranks' shards meet in each: one with nothing left to learn goes through one trajectory for nothing."""
        learned = sorted(
            (item for item in own if item.advantage),
            key=lambda item: sum(len(segment.tokens) for segment in item.segments),
        )
        passes = [learned[start : start + ROWS_PER_PASS] for start in range(0, len(learned), ROWS_PER_PASS)]
        idle = own[0].model_copy(update={"advantage": 0.0})
        return passes + [[idle]] * (max(self.ranks.gather(len(passes))) - len(passes))

    def _loss(self, rows: Sequence[Trajectory], counted: int) -> losses.LossTerms:
        batch = policy_model.collate([item.segments for item in rows], self.processor, self.vision, self.device)
        reference = None
        if self.cfg.kl_coef:
            with lora.reference(self.model):
                logits, tokens = policy_model.forward(self.model, batch, self.processor, self.vision)
                reference = policy_model.logprobs(logits, tokens, self.processor, self.cfg.temperature)
        logits, tokens = policy_model.forward(self.model, batch, self.processor, self.vision)
        sampled = [item.model_logprobs() for item in rows]
        return self.loss(
            policy_model.logprobs(logits, tokens, self.processor, self.cfg.temperature),
            torch.tensor([value for values in sampled for value in values], device=self.device),
            reference,
            torch.tensor([item.advantage for item in rows], device=self.device),
            torch.tensor([len(values) for values in sampled], device=self.device),
            clip=self.cfg.clip,
            kl_coef=self.cfg.kl_coef,
            trajectories=counted,
        )

    def _log(
        self, trajectories: Sequence[Trajectory], update: UpdateStats, rate: float, timer: timers.StepTimer
    ) -> None:
        measures, counters = measure(trajectories), Counters.total(self.ranks.gather(self.engine.take_counters()))
        attempts, failed = self._attempts_since_last_step()
        groups = [trajectories[i : i + self.cfg.group_size] for i in range(0, len(trajectories), self.cfg.group_size)]
        flat = sum(1 for group in groups if not any(item.advantage for item in group))
        speed = self.throughput.read(update.tokens, timer.seconds["update"])
        self.stage.record_step(
            step=self.step, total=self.cfg.steps, reward_mean=measures.reward, reward_std=measures.reward_std,
            accuracy_mean=measures.accuracy, format_mean=measures.format, kl=update.kl, clip_frac=update.clip_frac,
            grad_norm=update.grad_norm, learning_rate=rate, tool_failure_ratio=measures.tool_failure_ratio,
            attempts=attempts,
            attempt_failure_ratio=failed / max(1, attempts), trajectories=measures.n, excluded=measures.excluded,
            learned=update.learned, frac_reward_zero_std=flat / len(groups), behaviour=measures.behaviour,
            choice_accuracy=measures.choice_accuracy, tool_calls_mean=measures.tool_calls,
            generated_tokens=counters.generated, prefill_ratio=counters.prefilled / max(1, counters.unique),
            logp_diff_max=update.logp_diff_max, seconds=timer.total, rollout_seconds=timer.seconds["rollout"],
            train_seconds=timer.total - timer.seconds["rollout"], loss=update.loss, tokens_per_second=speed[0],
            mfu=speed[1], **sampled(trajectories, self.step - 1),
        )  # fmt: skip
        metrics.record_step_seconds(timer.seconds | {"total": timer.total})
        series = [line["reward_mean"] for line in self.stage.log.lines]
        recent = stats.mean(series[-5:])
        self.stage.report(
            self.step, self.cfg.steps, reward=measures.reward, tool_failure_ratio=measures.tool_failure_ratio,
            reward_first=stats.mean(series[:10]), reward_recent=recent, rewards=progress.downsample(series),
        )  # fmt: skip
        if self.step % 5 == 0 or self.step == self.cfg.steps:
            self.stage.say(f"step {self.step}/{self.cfg.steps} reward {recent:.3f} excluded {measures.excluded}")

    def _attempts_since_last_step(self) -> tuple[int, int]:
        """(attempts, failed attempts) of tool calls since this was last asked; the judge's are not among them."""
        tables = [outcomes for tool, outcomes in metrics.attempts_by_outcome().items() if tool != "judge"]
        total = sum(sum(outcomes.values()) for outcomes in tables)
        failed = total - sum(outcomes.get("ok", 0) for outcomes in tables)
        total, failed = self.ranks.all_reduce_sum(total), self.ranks.all_reduce_sum(failed)
        (before, failed_before), self._attempts = self._attempts, (total, failed)
        return total - before, failed - failed_before

    def save_checkpoint(self, trajectories: Sequence[Trajectory]) -> None:
        path = self.stage.workdir / "trajectories.zip"
        kept = spread(trajectories, self.cfg.keep_trajectories, self.cfg.group_size)
        trajectory_zip.write(path, kept, self.rollouts.shown(kept))
        lines = self.stage.log.lines
        meta = {
            "total": self.cfg.steps,
            "reward_first": stats.mean([line["reward_mean"] for line in lines[:10]]),
            "reward_last": stats.mean([line["reward_mean"] for line in lines[-10:]]),
        }
        checkpoint.save(
            self.stage, self.step, self.model, self.optimizer, meta=meta, parents=[self.sft, self.stratify],
            extra={"trajectories.zip": path},
        )  # fmt: skip

    def cleanup(self) -> None:
        self.stage.end()
        ranks.shutdown(self.ranks)


def spread(trajectories: Sequence[Trajectory], count: int, group: int) -> list[Trajectory]:
    """At most `count` in whole groups, evenly spread over the step."""
    groups = [trajectories[start : start + group] for start in range(0, len(trajectories), group)]
    wanted = min(len(groups), count // group)
    chosen = [groups[place * len(groups) // wanted] for place in range(wanted)]
    return [trajectory for members in chosen for trajectory in members]


def sampled(trajectories: Sequence[Trajectory], step: int) -> dict[str, float]:
    """How surprising the sampled tokens were, which estimates the policy's entropy, and how many steps before `step`
    the oldest weights were that sampled them."""
    own = [segment for item in trajectories for segment in item.segments if segment.source == "model"]
    return {
        "entropy": -stats.mean([value for segment in own for value in segment.logprobs]),
        "staleness": max((step - segment.version for segment in own), default=0),
    }


@tune_config.parse
def recipe_main(cfg: DictConfig) -> None:
    def run() -> None:
        recipe = GRPORecipe(config.typed(GRPOConfig, cfg))
        recipe.setup()
        asyncio.run(recipe.train())
        recipe.cleanup()

    config.exit_with(run)


if __name__ == "__main__":
    sys.exit(recipe_main())

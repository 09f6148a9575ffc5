"""GRPO with live tools: improve the policy on the questions that SFT left hard.

    tune run recipes/gog_recipes/grpo.py --config recipes/gog_recipes/configs/tiny/grpo.yaml steps=10

A step: draw questions; play a group of episodes for each, all at once, with tools and judge over HTTP; reward them;
exclude what failures of tools or the judge touched; compute advantages within each group; update on the sampled tokens, in
one optimizer step or several.

Features and their trade-offs
    - the policy is base + SFT adapter (merged, or frozen beside weights of low precision) + a fresh adapter; with that
      one switched off, the model is exactly the reference of the KL, at no cost in memory
    - one optimizer step per rollout by default: on-policy, so the ratio is 1 and the clip never binds. With
      `updates_per_rollout` the groups are divided among several, and ratios are to the policy before the first of them
    - where the engine disagrees with the trainer on a log-probability, truncated importance sampling weights the token, and
      beyond a bound the stage stops
    - a canary before the first step and in every step: a policy that does not see its adapter or its images, and an engine
      of another policy, stop the stage
    - a rule decides what a tool failure makes of a trajectory (gog.failure_rules): by default it enters neither the loss nor
      its group's statistics, like one without a verdict
    - a step that lost too many of its trajectories, or from which nothing can be compared, is not learned from: it is
      played again until the outage is over or the patience for it is used up, and never counts as a step
    - groups with equal rewards carry no signal: counted, and replaced by further questions' up to a bound if wished; too
      many steps of nothing else warn or stop
    - questions of several levels come mixed, or from easier to harder over the steps
    - a question with an unusable image or an over-long prompt is skipped, by name
    - images are encoded once, in the rollout; training reuses the features (the vision tower is frozen)
    - resumes from its newest checkpoint; questions and sampling noise follow from seed and step. Every finished turn is
      journalled: after a crash the steps since that checkpoint repeat their updates, and sample no finished turn again
    - on SIGTERM the last finished step is saved
    - one process, or several under torchrun: questions are divided among ranks, each of which samples with an engine of
      its own and trains on its own groups; layers are sharded (FSDP2); statistics and loss are over all ranks
    - trajectories are packed, not padded, into passes of a bounded number of tokens; gradients add up over passes
    - the loss is chosen by name (gog_recipes.losses); it chooses its clip range and its advantages where the spec does not
    - rollouts and updates take turns, or the next steps are played while one is learned (`async`, rollout.async_plays)

Raises UserError when too few questions of the chosen levels are left, when the judge's replies are no verdicts, after too
many steps without a signal if `no_signal` is `stop`, when the engine samples from another policy than the trained one, and
at the first loss, gradient or weight that is not finite. Raises ServiceDown when tools or the judge fail for too long.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from omegaconf import DictConfig
from torchtune import config as tune_config
from torchtune import training, utils
from torchtune.recipe_interfaces import FTRecipeInterface

from gog import catalog, dataset, exclusion, failure_rules, rewards, stats, trajectory_zip, wording
from gog.dataset import Question
from gog.engine import Limits
from gog.errors import UserError
from gog.images import Image
from gog.levels import Graded
from gog.spec import GRPOConfig
from gog.tool_client import Toolbox
from gog.trajectory import Trajectory
from gog_recipes import losses
from gog_recipes.models import checkpointing, lora, policy_model
from gog_recipes.rollout import async_plays, engine, probe, refill, step_questions
from gog_recipes.rollout.ongoing import Ongoing
from gog_recipes.rollout.played import Played, gather_whole, spread
from gog_recipes.rollout.question_pool import QuestionPool
from gog_recipes.rollout.rollouts import Rollouts
from gog_recipes.rollout.scoring import RewardConfig
from gog_recipes.runtime import (
    canary,
    checkpoint,
    config,
    flops,
    optimizer,
    parallel,
    profiler,
    ranks,
    timers,
)
from gog_recipes.runtime.canary import CanaryStats
from gog_recipes.runtime.interruption import Interrupted
from gog_recipes.runtime.learner import Learner, StepRollout
from gog_recipes.runtime.stage import Stage
from gog_recipes.runtime.step_report import FinishedStep, StepReport
from gog_recipes.runtime.update_stats import UpdateStats


@dataclass(frozen=True)
class Unsaved:
    """The last finished step, whose checkpoint is not due yet."""

    rollout: StepRollout
    """Its trajectories."""
    images: Mapping[str, Image]
    """The images, by content hash, of those trajectories of this rank that a checkpoint would keep."""


class GRPORecipe(FTRecipeInterface):
    """Group-relative policy optimisation of the SFT policy."""

    def __init__(self, cfg: GRPOConfig) -> None:
        self.cfg = cfg
        self.device = utils.get_device(None)
        training.set_seed(cfg.seed)  # the same on all ranks, because each initialises the whole adapter
        self.timer = timers.StepTimer()
        self.ranks = ranks.init(self.device, self.timer.waiting, patience_seconds=cfg.tools.outage.patience_seconds)
        self.stage = Stage(cfg, self.ranks)
        self.profiler = profiler.Profiler(cfg.profile, self.stage, self.timer)
        self.loss = losses.load(cfg.loss)
        self.loss_config = self.loss.config(cfg)

    def setup(self) -> None:
        """Loads model and questions, and resumes from the newest checkpoint. Raises UserError."""
        self._setup_model()
        self._setup_data()
        self._setup_optimizer()
        self._setup_engine()

    def _setup_model(self) -> None:
        self.sft = self.stage.input("sft")
        base = self.stage.model
        self.processor = policy_model.load_processor(base)
        self.saved = [self.stage.folder(self.sft)]
        policy = lora.with_saved(policy_model.load_base(base, self.device, self.cfg.base_quantization), self.saved)
        self.model = lora.add(policy, self.cfg.lora)
        checkpointing.apply(self.model, self.cfg.activation_checkpointing, self.cfg.micro_batch_tokens)
        shards = parallel.shard(self.model, self.ranks, self.cfg.offload)
        self.vision = policy_model.vision_of(self.model, self.processor, self.cfg.feature_cache_bytes, shards)
        utilisation = flops.utilisation(self.model, self.device, self.ranks.size)
        self.report = StepReport(self.stage, self.cfg, utilisation, self.device)

    def _setup_data(self) -> None:
        self.ranks.require(self.cfg.questions_per_step, "questions_per_step")
        self.stratify = self.stage.input("stratify")
        graded = {
            line.question_id: line
            for line in dataset.read_lines(self.stage.store.open(self.stratify, "levels.jsonl"), Graded)
        }
        folder, questions = self.stage.questions("train")
        chosen = [question for question in questions if question.id in graded and self._wanted(graded[question.id])]
        if len(chosen) < (wanted := self.cfg.questions_per_step):
            raise UserError(
                f"{wording.plural(len(chosen), 'question')} of level {', '.join(self.cfg.levels)} for steps of {wanted}",
                where="levels", remedy="add a level, lower questions_per_step, or stratify more questions",
            )  # fmt: skip
        self.levels = {question.id: graded[question.id].level for question in chosen}
        self.pool = QuestionPool(folder, chosen)
        self.order = step_questions.StepQuestions(chosen, self.levels, self.cfg)
        refill.require(self.cfg, self.loss_config.advantages, len(chosen))

    def _wanted(self, line: Graded) -> bool:
        return line.level in self.cfg.levels and (self.cfg.keep_unsolved or not line.unsolved)

    def _setup_optimizer(self) -> None:
        self.optimizer = optimizer.build(
            self.cfg.optimizer, self.model.parameters(), self.cfg.learning_rate, self.cfg.offload
        )
        parents = [self.sft, self.stratify]
        self.step = checkpoint.resume(self.stage, self.model, self.optimizer, self.cfg.offload, parents)
        self.learner = Learner(
            self.cfg, self.loss, self.model, self.processor, self.vision, self.optimizer, self.ranks, self.timer
        )
        self.canary = canary.Canary(
            self.model, self.processor, self.vision, self.saved, self.ranks,
            temperature=self.cfg.temperature, bound=self.cfg.max_logprob_gap, staleness=self.bound or 0,
        )  # fmt: skip

    def _setup_engine(self) -> None:
        limits = Limits(self.cfg.max_tokens, self.cfg.max_turn_tokens, self.cfg.temperature)
        capacity = max(self.cfg.concurrent_episodes, self.cfg.group_size)
        parts = engine.Parts(
            self.model, self.processor, self.vision, limits, capacity, self.step, self.saved, self.stage, self.cfg
        )
        self.engine = engine.create(self.cfg.engine, parts)

    async def train(self) -> None:
        """Steps up to the last one, with checkpoints. Raises UserError and ServiceDown."""
        self.model.eval()  # no dropout between sampling and learning
        scoring = RewardConfig.of(self.cfg, self.loss_config.overlong_share)
        async with Toolbox.of_stage(self.cfg, self.stage.watch()) as toolbox:
            self.rollouts = Rollouts(
                self.engine, toolbox, self.cfg, self.pool, self.stage.key, self.cfg.seed, scoring,
                ranks=self.ranks, tracer=self.stage.tracer, levels=self.levels, log=self.stage.log,
                journals=self.stage.journals([self.sft], ahead=self.bound or 0), interruption=self.stage.interruption,
                tools=catalog.offered(self.cfg.endpoints), timer=self.timer,
            )  # fmt: skip
            self._name_weights()
            with self.stage.interruptible(), self.timer.part("other"):
                try:
                    await self._probe()
                    await self._steps()
                finally:
                    await self.rollouts.abandon()
        await self.engine.close()

    async def _steps(self) -> None:
        unsaved: Unsaved | None = None
        ahead = self._ahead()
        self.timer.take()  # a step begins where the one before ended, so that no time is lost between them
        while self.step < self.cfg.steps:
            self.profiler.begin(self.step + 1)
            replay = self.stage.replay()
            try:
                if ahead is not None:
                    await ahead.fill(self.step, self.stage)
                with self.timer.waiting(), self.profiler.window("rollout"):
                    rollout = await replay.until_learnable(lambda: self._play(ahead), self._spoiled)
            except Interrupted:
                if unsaved is not None:
                    self.rollouts.images |= unsaved.images
                    self.save_checkpoint(unsaved.rollout)
                raise
            if ahead is None:
                with self.timer.part("sync"):
                    await self.engine.rest()
            with self.timer.part("canary"):
                checked = self._check(rollout)
            rate = optimizer.set_rate(self.optimizer, self.cfg.learning_rate, self.step, warmup=self.cfg.warmup_steps)
            with self.timer.part("train"), self.profiler.window("update"):
                update = await self._update(rollout)
            self.step += 1
            with self.timer.part("sync"):
                self._name_weights()
                await self.engine.switch(self.model, self.step)
            self._log(rollout, update, checked, rate, replay.plays)
            self.profiler.end()
            unsaved = self._unsaved(rollout)
            if self.step % self.cfg.save_every == 0 or self.step == self.cfg.steps:
                with self.timer.part("checkpoint"):
                    self.save_checkpoint(rollout)
                unsaved = None

    def _name_weights(self) -> None:
        """Names the present weights to plays that may meet several versions. All ranks at once."""
        if self.bound is not None:
            self.rollouts.weights[self.step] = checkpoint.fingerprint(self.model)

    async def _probe(self) -> None:
        """Compares the engine with the trainer before anything is played. Raises UserError and Interrupted."""
        own = self.ranks.shard(self.pool.questions)
        sampling = probe.sample(
            self.engine, self.pool, own, self.cfg, seed=self.cfg.seed, count=canary.TRAJECTORIES
        )  # fmt: skip
        turns: list[canary.Conversation] = []
        with contextlib.suppress(Interrupted):
            turns = await self.stage.interruption.race(sampling)
        if self.stage.is_interrupted():  # on any rank, because all of them take part in the check
            raise Interrupted
        self.canary.check(turns, version=self.step, where="before the first step")

    def _check(self, rollout: StepRollout) -> CanaryStats:
        """Compares what the engine sampled in a step with the trainer. Raises UserError."""
        own = [
            canary.Conversation(item.id, failure_rules.unmasked(item.segments))
            for group in rollout.own
            for item in group
        ]
        return self.canary.check(own, version=self.step, where=f"step {self.step + 1}")

    @property
    def bound(self) -> int | None:
        """Steps that rollouts may be ahead of updates; None where they take turns."""
        return self.cfg.asynchronous.max_staleness if self.cfg.asynchronous else None

    def _ahead(self) -> async_plays.AsyncPlays | None:
        """What plays the next steps while one is learned; None where rollouts and updates take turns."""

        def begin(step: int) -> Awaitable[Ongoing]:
            return self.rollouts.begin(self.order.step(step), self.cfg.group_size, **self._options(step))

        return None if self.bound is None else async_plays.AsyncPlays(begin, self.cfg.steps, self.bound)

    def _options(self, step: int) -> dict[str, Any]:
        """How a step, counted from 0, is played."""
        return {"step": step + 1, "policy": "grpo", "oldest": 0 if self.bound is None else max(0, step - self.bound)}

    async def _update(self, rollout: StepRollout) -> UpdateStats:
        """The optimizer steps of a step."""
        if self.bound is None:
            return self.learner.update(rollout, step=self.step + 1)
        parts = self.learner.updating(rollout, step=self.step + 1, version=self.step)
        return await async_plays.interleaved(parts, self.engine, self.timer)

    async def _play(self, ahead: async_plays.AsyncPlays | None = None) -> StepRollout:
        """Plays the questions of the next step once, and further ones for groups without a signal if it is to."""
        with self.timer.part("other"):
            return await self._play_rounds(ahead)

    async def _play_rounds(self, ahead: async_plays.AsyncPlays | None) -> StepRollout:
        weights = checkpoint.fingerprint(self.model) if ahead is None else ""

        async def play(questions: Sequence[Question], adds: bool) -> Played:
            begun = None if ahead is None or adds else ahead.take(self.step)
            with self.timer.waiting():
                if begun is not None:
                    return await self.rollouts.finish(begun)
                options = self._options(self.step) | {"weights": weights, "refill": adds}
                return await self.rollouts.play(questions, self.cfg.group_size, **options)

        played = await refill.rounds(
            play, self.order.step(self.step), self.order.further(self.step),
            signals=lambda groups: sum(map(self.has_signal, groups)),
            may_refill=lambda groups: exclusion.count(self._with_advantages(groups)).allow(self.cfg.max_excluded_share),
        )  # fmt: skip
        met = self.rollouts.images
        # Of trajectories that the journal held with their verdicts, which the engine has not met.
        self.vision.add([met[image] for image in met if image not in self.vision])
        batch = refill.batch(played, self.cfg.questions_per_step, self.has_signal)
        groups, replaced = self._with_advantages(batch.groups), self._with_advantages(batch.replaced)
        found = exclusion.count([*groups, *replaced])
        own = [groups[index] for index in batch.own]
        return StepRollout(groups, own, found, len(played.skipped), replaced, batch.missing)

    def _with_advantages(self, groups: Sequence[Sequence[Trajectory]]) -> list[list[Trajectory]]:
        rule = failure_rules.Settings.of(self.cfg)
        return rewards.with_advantages(groups, failures=rule, estimator=self.loss_config.advantages)

    def has_signal(self, group: Sequence[Trajectory]) -> bool:
        """Whether a group has something to learn from."""
        return rewards.has_signal(group, failure_rules.Settings.of(self.cfg))

    def _spoiled(self, rollout: StepRollout) -> exclusion.Cause | None:
        """Why a step must not be learned from; None if it may."""
        found, limit = rollout.exclusions, self.cfg.max_excluded_share
        if found.allow(limit):
            return None
        reason = (
            f"{found.excluded} of {found.trajectories} trajectories of step {self.step + 1} are excluded "
            f"(max_excluded_share is {limit:g}), most often because of {found.cause.reason}"
        )
        return exclusion.Cause(found.cause.service, reason)

    def _log(
        self, rollout: StepRollout, update: UpdateStats, checked: CanaryStats, rate: float, discarded: int
    ) -> None:
        signals = sum(map(self.has_signal, [*rollout.groups, *rollout.replaced]))
        self.report.record(
            FinishedStep(
                self.step, rollout, signals, update, checked, rate, self.timer.take(), self.engine.take_counters(),
                discarded, self.rollouts.take_too_old(),
            )
        )  # fmt: skip

    def _unsaved(self, rollout: StepRollout) -> Unsaved:
        names = {item.id for item in spread(rollout.trajectories, self.cfg.keep_trajectories, self.cfg.group_size)}
        kept = [item for group in rollout.own for item in group if item.id in names]
        met = self.rollouts.images
        return Unsaved(
            rollout, {image: met[image] for item in kept for image in trajectory_zip.shown(item) & met.keys()}
        )

    def save_checkpoint(self, rollout: StepRollout) -> None:
        """Commits a checkpoint with some of the last step's trajectories."""
        path = self.stage.workdir / "trajectories.zip"
        kept = spread(rollout.trajectories, self.cfg.keep_trajectories, self.cfg.group_size)
        kept = gather_whole(self.ranks, kept, rollout.own)
        trajectory_zip.write(path, kept, self.rollouts.shown(kept))
        lines = self.stage.metric_log.lines
        meta = {
            "total": self.cfg.steps,
            "reward_first": stats.mean([line["reward_mean"] for line in lines[:10]]),
            "reward_last": stats.mean([line["reward_mean"] for line in lines[-10:]]),
            **checkpoint.skipped(self.rollouts.skipped),
        }
        checkpoint.save(
            self.stage, self.step, self.model, self.optimizer, meta=meta, parents=[self.sft, self.stratify],
            extra={"trajectories.zip": path},
        )  # fmt: skip

    def cleanup(self) -> None:
        self.stage.end()
        ranks.shutdown(self.ranks)


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

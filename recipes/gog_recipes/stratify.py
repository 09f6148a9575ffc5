"""Stratification: sort the training questions by how often the SFT policy solves them.

    tune run recipes/gog_recipes/stratify.py --config recipes/gog_recipes/configs/tiny/stratify.yaml

Features
    - N samples per question with live tools, judged as in RL
    - samples touched by a tool failure or without a verdict do not count; a question of which fewer than half of the
      samples count is `unknown`, and GRPO leaves it out
    - questions that curation found to be a benchmark's, repeated or giveaways are left out, so that GRPO, which learns
      from graded questions only, never sees them; they are counted in log and metadata
    - `undemonstrated` leaves out the questions that SFT has a demonstration of
    - when failures leave too many questions unknown, those are played again until the outage is over or the patience
      for it is used up; so levels that are mostly unknown are never committed
    - a question with an unusable image or an over-long prompt is skipped, by name
    - levels are committed once, at the end; until then every turn and verdict is journalled, so an interrupted
      stratification resumes where it was, and no judged sample is played or judged again
    - one process, or several under torchrun, which divide the questions

Raises UserError when every question is skipped or the judge's replies are no verdicts. Raises ServiceDown when tools or
the judge fail for too long.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from omegaconf import DictConfig
from torchtune import config as tune_config
from torchtune import training, utils
from torchtune.recipe_interfaces import FTRecipeInterface

from gog import catalog, dataset, exclusion, finite_json, levels, metrics, trajectory_zip, wording
from gog.dataset import Question
from gog.engine import Limits
from gog.errors import UserError
from gog.images import Image
from gog.levels import Graded
from gog.spec import StratifyConfig
from gog.tool_client import Toolbox
from gog.trajectory import Trajectory
from gog_recipes.data import ledger
from gog_recipes.models import lora, policy_model
from gog_recipes.rollout import engine
from gog_recipes.rollout.played import gather_whole
from gog_recipes.rollout.question_pool import QuestionPool
from gog_recipes.rollout.rollout_stats import measure
from gog_recipes.rollout.rollouts import Rollouts
from gog_recipes.runtime import checkpoint, config, ranks
from gog_recipes.runtime.stage import Stage

KEPT_TRAJECTORIES = 40
"""Trajectories that the checkpoint keeps for the report."""
MIN_VALID_SHARE = 0.5
"""Share of a question's samples that must count for a level [ours]."""


class StratifyRecipe(FTRecipeInterface):
    """Grades every question of the training split."""

    def __init__(self, cfg: StratifyConfig) -> None:
        self.cfg = cfg
        self.device = utils.get_device(None)
        training.set_seed(cfg.seed)
        self.ranks = ranks.init(self.device, patience_seconds=cfg.tools.outage.patience_seconds)
        self.stage = Stage(cfg, self.ranks)

    def setup(self) -> None:
        """Loads the SFT policy and the questions. Raises UserError."""
        self.parent = self.stage.input("sft")
        base = self.stage.model
        processor = policy_model.load_processor(base)
        saved = [self.stage.folder(self.parent)]
        policy = lora.with_saved(policy_model.load_base(base, self.device, self.cfg.base_quantization), saved)
        vision = policy_model.vision_of(policy, processor, self.cfg.feature_cache_bytes)
        limits = Limits(self.cfg.max_tokens, self.cfg.max_turn_tokens, self.cfg.temperature)
        capacity = max(self.cfg.concurrent_episodes, self.cfg.rollouts)
        parts = engine.Parts(
            policy, processor, vision, limits, capacity, saved=saved, stage=self.stage, settings=self.cfg
        )
        self.engine = engine.create(self.cfg.engine, parts)
        folder, questions = self.stage.questions("train")
        self.pool = QuestionPool(folder, self._new(self._fit(questions))[: self.cfg.questions])

    def _samples(self) -> Path | None:
        """What became of the questions in the curation that the SFT policy started from; None if it started from none."""
        made = [self.stage.store.resolve(ref) for ref in self.parent.parents]
        curated = next((each for each in made if ledger.FILE in each.files), None)
        return None if curated is None else self.stage.store.open(curated, ledger.FILE)

    def _fit(self, questions: Sequence[Question]) -> Sequence[Question]:
        """The questions without those that curation found unfit to learn from. Raises UserError if none is left."""
        samples = self._samples()
        unfit = {} if samples is None else ledger.unfit(samples)
        self.left_out = Counter(unfit[question.id] for question in questions if question.id in unfit)
        fit = [question for question in questions if question.id not in unfit]
        if self.left_out:
            counts = ", ".join(f"{rule} {count:,}" for rule, count in self.left_out.most_common())
            self.stage.log(f"{wording.plural(len(questions) - len(fit), 'question')} left out by curation: {counts}")
        if not fit:
            raise UserError(
                f"curation left out each of {wording.plural(len(questions), 'question')}",
                where="stages.curate",
                remedy="add questions to train; samples.jsonl of its checkpoint has the reasons",
            )
        return fit

    def _new(self, questions: Sequence[Question]) -> Sequence[Question]:
        """The questions to grade: all, or those without a demonstration. Raises UserError."""
        if not self.cfg.undemonstrated:
            return questions
        samples = self._samples()
        if samples is None:
            raise UserError(
                f"{self.parent.ref} started from no curation in the store, so its demonstrated questions are not known",
                where="undemonstrated",
                remedy="run the stage curate before sft, or grade all questions",
            )
        shown = ledger.demonstrated(samples)
        new = [question for question in questions if question.id not in shown]
        if not new:
            raise UserError(
                f"each of {wording.plural(len(questions), 'question')} has a demonstration",
                where="undemonstrated",
                remedy="curate fewer demonstrations, or grade all questions",
            )
        return new

    async def train(self) -> list[list[Trajectory]]:
        """The groups of every question that can be played, each played until enough of them have a level."""
        self.kept_of = {question.id for question in self.pool.questions[:KEPT_TRAJECTORIES]}
        self.groups: dict[str, list[Trajectory]] = {}
        self.kept: dict[str, Trajectory] = {}
        self.images: dict[str, Image] = {}
        self.wanted: Sequence[Question] = self.pool.questions
        async with Toolbox.of_stage(self.cfg, self.stage.watch()) as toolbox:
            self.rollouts = Rollouts(
                self.engine, toolbox, self.cfg, self.pool, self.stage.key, self.cfg.seed,
                ranks=self.ranks, tracer=self.stage.tracer, log=self.stage.log, shown_of=self.kept_of,
                journals=self.stage.journals([self.parent]), interruption=self.stage.interruption,
                tools=catalog.offered(self.cfg.endpoints),
            )  # fmt: skip
            with self.stage.interruptible():
                await self.stage.replay().until_learnable(self._play, self._spoiled)
        await self.engine.close()
        return list(self.groups.values())

    async def _play(self) -> list[Graded]:
        """Plays the questions that have no level yet; the grades of all of them."""
        total = len(self.ranks.shard(self.pool.questions))
        before = total - len(self.ranks.shard(self.wanted))
        earlier = (grade(group, self.cfg.level1) for group in self.groups.values())
        tally = Tally([item for item in earlier if item.level != "unknown"])

        def count(done: int, group: list[Trajectory]) -> None:
            if group:
                tally.add(grade(group, self.cfg.level1))
            self.stage.report((before + done) * self.ranks.size, total * self.ranks.size, **tally.figures())

        played = await self.rollouts.play(self.wanted, self.cfg.rollouts, step=0, policy="sft", on_group=count)
        self.groups |= {group[0].question_id: group for group in played.groups}
        kept = [item for item in played.trajectories if item.question_id in self.kept_of]
        kept = gather_whole(self.ranks, kept, [played.groups[index] for index in played.own])
        self.kept |= {item.id: item for item in kept}
        self.images |= self.rollouts.shown(kept)
        return [grade(group, self.cfg.level1) for group in self.groups.values()]

    def _spoiled(self, graded: Sequence[Graded]) -> exclusion.Cause | None:
        """Why too many questions have no level, which are then played again; None if enough have one."""
        unknown = {item.question_id for item in graded if item.level == "unknown"}
        if len(unknown) <= self.cfg.max_unknown_share * len(graded) and len(unknown) < len(graded):
            return None
        self.wanted = [question for question in self.pool.questions if question.id in unknown]
        cause = exclusion.cause(item for name in unknown for item in self.groups[name])
        reason = (
            f"{len(unknown)} of {len(graded)} questions have no level (max_unknown_share is "
            f"{self.cfg.max_unknown_share:g}), most often because of {cause.reason}"
        )
        return exclusion.Cause(cause.service, reason)

    def save_checkpoint(self, groups: list[list[Trajectory]], seconds: float) -> None:
        """Commits the levels; seconds: how long the groups took to play."""
        graded = [grade(group, self.cfg.level1) for group in groups]
        played = [trajectory for group in groups for trajectory in group]
        measures = measure(played)
        generated = self.ranks.all_reduce_sum(self.engine.take_counters().generated)
        counts = Tally(graded).figures()
        path = {name: self.stage.workdir / name for name in ("levels.jsonl", "metrics.json", "trajectories.zip")}
        dataset.write_lines(path["levels.jsonl"], list(graded))
        meta = {
            **counts,
            "pass_rate_mean": measures.accuracy,
            "seconds": round(seconds, 2),
            "tokens_per_second": round(generated / seconds, 1),
            **checkpoint.skipped(self.rollouts.skipped),
            **({"left_out": dict(self.left_out)} if self.left_out else {}),
        }
        path["metrics.json"].write_text(finite_json.dumps({**meta, "measures": measures.__dict__}))
        kept = [self.kept[item.id] for item in played if item.id in self.kept][:KEPT_TRAJECTORIES]
        trajectory_zip.write(path["trajectories.zip"], kept, self.images)
        self.stage.publish(1, path, meta=meta, parents=[self.parent])
        self.stage.log(_sentence(graded))
        if warning := levels.warning(graded):
            self.stage.log(f"warning: {warning}")

    def cleanup(self) -> None:
        self.stage.end()
        ranks.shutdown(self.ranks)


def grade(group: Sequence[Trajectory], band: tuple[float, float]) -> Graded:
    """A question's level from its samples that count.

    Args:
        group: all samples of the question
        band: lowest and highest pass rate of level 1
    """
    valid = [item for item in group if not item.excluded and item.reward is not None]
    solved = sum(1 for item in valid if item.reward is not None and item.reward.accuracy == 1.0)
    enough = len(valid) >= MIN_VALID_SHARE * len(group)
    found: levels.Level = levels.level(solved, len(valid), band) if enough else "unknown"  # type: ignore[assignment]
    return Graded(question_id=group[0].question_id, solved=solved, valid=len(valid), level=found)


class Tally:
    """Counts of graded questions, kept up one by one because every finished question is reported."""

    def __init__(self, graded: Iterable[Graded]) -> None:
        self._levels: Counter[str] = Counter()
        self._unsolved = 0
        for item in graded:
            self.add(item)

    def add(self, item: Graded) -> None:
        """Counts one more question."""
        self._levels[item.level] += 1
        self._unsolved += item.unsolved

    def figures(self) -> dict[str, object]:
        """For the progress report; sets the gauges, too."""
        metrics.record_levels(dict(self._levels))
        return {
            "levels": {name: self._levels[name] for name in ("easy", "1", "2")},
            "unknown": self._levels["unknown"],
            "unsolved": self._unsolved,
        }


def _sentence(graded: Sequence[Graded]) -> str:
    """The levels of the questions, for the log."""
    count = Counter(item.level for item in graded)
    unsolved = sum(item.unsolved for item in graded)
    return (
        f"{wording.plural(len(graded), 'question')}: easy {count['easy']}, level 1 {count['1']}, level 2 {count['2']} "
        f"({unsolved} never solved), without a level {count['unknown']}"
    )


@tune_config.parse
def recipe_main(cfg: DictConfig) -> None:
    def run() -> None:
        recipe = StratifyRecipe(config.typed(StratifyConfig, cfg))
        if recipe.stage.is_done("train"):
            recipe.cleanup()
            return
        recipe.setup()
        started = time.monotonic()
        groups = asyncio.run(recipe.train())
        recipe.save_checkpoint(groups, time.monotonic() - started)
        recipe.cleanup()

    config.exit_with(run)


if __name__ == "__main__":
    sys.exit(recipe_main())

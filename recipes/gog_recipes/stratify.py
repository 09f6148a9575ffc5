"""Stratification: sort the training questions by how often the SFT policy solves them.

    tune run recipes/gog_recipes/stratify.py --config recipes/gog_recipes/configs/tiny/stratify.yaml

Features
    - N samples per question with live tools, judged as in RL
    - samples spoiled by a tool or judge failure do not count; a question without a valid sample is `unknown`
    - progress is committed once, at the end: an interrupted stratification starts again
    - one process, or several under torchrun, which deal the questions out
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections import Counter
from collections.abc import Sequence

from omegaconf import DictConfig
from torchtune import config as tune_config
from torchtune import training, utils
from torchtune.recipe_interfaces import FTRecipeInterface

from gog import dataset, levels, metrics, trajectory_zip
from gog.engine import Limits
from gog.levels import Graded
from gog.spec import StratifyConfig
from gog.tool_client import Toolbox
from gog.trajectory import Trajectory
from gog_recipes.models import lora, policy_model
from gog_recipes.rollout import engine
from gog_recipes.rollout.question_pool import QuestionPool
from gog_recipes.rollout.rollout_stats import measure
from gog_recipes.rollout.rollouts import Rollouts
from gog_recipes.runtime import config, ranks
from gog_recipes.runtime.stage import Stage

KEPT_TRAJECTORIES = 40


class StratifyRecipe(FTRecipeInterface):
    """Grades every question of the training split."""

    def __init__(self, cfg: StratifyConfig) -> None:
        self.cfg = cfg
        self.device = utils.get_device(None)
        training.set_seed(cfg.seed)
        self.ranks = ranks.init(self.device)
        self.stage = Stage(cfg, self.ranks)

    def setup(self) -> None:
        self.parent = self.stage.input("sft")
        base = self.stage.model
        processor = policy_model.load_processor(base)
        policy = lora.merge(policy_model.load_base(base, self.device), self.stage.folder(self.parent))
        vision = policy_model.vision_of(policy, processor)
        limits = Limits(self.cfg.max_tokens, self.cfg.max_turn_tokens, self.cfg.temperature)
        capacity = max(self.cfg.concurrent_episodes, self.cfg.rollouts)
        self.engine = engine.create(self.cfg.engine, engine.Parts(policy, processor, vision, limits, capacity))
        folder, questions = self.stage.questions("train")
        self.pool = QuestionPool(folder, questions[: self.cfg.questions])

    async def train(self) -> list[list[Trajectory]]:
        """Plays every question; groups start as rows of the engine become free."""
        first = {question.id for question in self.pool.questions[:KEPT_TRAJECTORIES]}
        total = len(self.ranks.shard(self.pool.questions))
        graded: list[Graded] = []

        def count(done: int, group: list[Trajectory]) -> None:
            graded.extend([grade(group, self.cfg.level1)] if group else [])
            if done % 20 == 0 or done == total:
                self.stage.report(done * self.ranks.size, total * self.ranks.size, **_counts(graded))

        async with Toolbox.of_stage(self.cfg) as toolbox:
            rollouts = Rollouts(
                self.engine, toolbox, self.cfg, self.pool, self.stage.key, self.cfg.seed,
                ranks=self.ranks, tracer=self.stage.tracer, log=self.stage.say,
                shown_of=first,
            )  # fmt: skip
            played = await rollouts.play(self.pool.questions, self.cfg.rollouts, step=0, policy="sft", on_group=count)
        self.kept = [item for item in played.trajectories if item.question_id in first][:KEPT_TRAJECTORIES]
        self.images = rollouts.shown(self.kept)
        return played.groups

    def save_checkpoint(self, groups: list[list[Trajectory]], seconds: float) -> None:
        graded = [grade(group, self.cfg.level1) for group in groups]
        played = [trajectory for group in groups for trajectory in group]
        measures = measure(played)
        generated = self.ranks.all_reduce_sum(self.engine.take_counters().generated)
        counts = _counts(graded)
        path = {name: self.stage.workdir / name for name in ("levels.jsonl", "metrics.json", "trajectories.zip")}
        dataset.write_lines(path["levels.jsonl"], list(graded))
        meta = {
            **counts,
            "pass_rate_mean": measures.accuracy,
            "seconds": round(seconds, 2),
            "tokens_per_second": round(generated / seconds, 1),
        }
        path["metrics.json"].write_text(json.dumps({**meta, "measures": measures.__dict__}))
        trajectory_zip.write(path["trajectories.zip"], self.kept, self.images)
        self.stage.publish(1, path, meta=meta, parents=[self.parent])
        self.stage.say(str(counts))

    def cleanup(self) -> None:
        self.stage.end()
        ranks.shutdown(self.ranks)


def grade(group: Sequence[Trajectory], band: tuple[float, float]) -> Graded:
    """A question's level from its judged samples that no failure spoiled."""
    valid = [item for item in group if not item.excluded and item.reward is not None]
    solved = sum(1 for item in valid if item.reward is not None and item.reward.accuracy == 1.0)
    found: levels.Level = levels.level(solved, len(valid), band) if valid else "unknown"  # type: ignore[assignment]
    return Graded(question_id=group[0].question_id, solved=solved, valid=len(valid), level=found)


def _counts(graded: Sequence[Graded]) -> dict[str, object]:
    found = Counter(item.level for item in graded)
    metrics.record_levels({str(name): count for name, count in found.items()})
    return {
        "levels": {name: found[name] for name in ("easy", "1", "2")},
        "unknown": found["unknown"],
        "unsolved": sum(item.unsolved for item in graded),
    }


@tune_config.parse
def recipe_main(cfg: DictConfig) -> None:
    def run() -> None:
        recipe = StratifyRecipe(config.typed(StratifyConfig, cfg))
        if recipe.stage.store.latest(recipe.stage.key) is not None:
            recipe.stage.say("done already")
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

"""Evaluation: every policy on the same held-out questions, with intervals and paired comparisons.

    tune run recipes/gog_recipes/evaluate.py --config recipes/gog_recipes/configs/tiny/evaluate.yaml

Policies: direct (may not search), whole-image (image search of the whole image only), first-candidate (searches the
best-scored candidate unseen), prompted (the base model), full-search (the base model with the results of searches that it
does not choose), sft, grpo. The first three have the SFT weights. All policies share one base model, beside which their
adapters lie; those of a policy take part while it plays. They share its vision tower, too, so an image is encoded once for
all of them. endpoint, and endpoint-direct (may not search), are a model that gog does not train, behind OpenAI's chat
protocol.

A question touched by a tool failure counts as the policy left it: a user's question would be answered no better. Only
questions that the judge could not decide are left out, and their number is printed; where it decided none, the attempt
fails and is retried. A question with an unusable image or an over-long prompt is skipped, by name. Several processes
under torchrun divide the questions.

Several benchmarks are answered by each policy in one play, and have rows of their own.

Results are committed once, at the end. Until then every turn and verdict is journalled, policy by policy, so an
interrupted evaluation resumes where it was, and no judged answer is given or judged again.

Raises UserError when every question is skipped or the judge's replies are no verdicts. Raises ServiceDown when tools or
the judge are down for too long.
"""

from __future__ import annotations

import asyncio
import sys
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig
from torchtune import config as tune_config
from torchtune import training, utils
from torchtune.recipe_interfaces import FTRecipeInterface

from gog import benchmarks, catalog, finite_json, metrics, served_models, spec, trajectory_zip, workflows
from gog.agent import Workflow
from gog.dataset import Question
from gog.engine import Engine, Limits
from gog.images import Image
from gog.spec import EvaluateConfig
from gog.tool_client import Toolbox
from gog.trajectory import Trajectory
from gog_recipes.models import lora, policy_model
from gog_recipes.rollout import engine
from gog_recipes.rollout import evaluation_table as table
from gog_recipes.rollout.chat import ChatEngine
from gog_recipes.rollout.played import gather_whole
from gog_recipes.rollout.question_pool import QuestionPool
from gog_recipes.rollout.rollouts import Rollouts
from gog_recipes.rollout.scoring import RewardConfig
from gog_recipes.runtime import checkpoint, config, ranks, resumption
from gog_recipes.runtime.stage import Stage


@dataclass(frozen=True)
class Policy:
    """What is evaluated under a name."""

    gaze: str | None = None
    """How expressions are searched; None for the stage's setting."""
    served: bool = False
    """Whether the stage's endpoint serves it, so that its weights are not here."""
    answer_only: bool = False
    """Whether it must answer without searching."""
    workflow: Workflow | None = None
    """Searches in its place; it has no calls left after those."""
    max_calls: int | None = None
    """Tool calls at most; None for the stage's setting."""


POLICIES = {
    "direct": Policy(answer_only=True),
    "whole-image": Policy(gaze="off"),
    "first-candidate": Policy(gaze="direct"),
    "prompted": Policy(),
    "full-search": Policy(gaze="off", workflow=workflows.full_search, max_calls=workflows.CALLS),
    "sft": Policy(),
    "grpo": Policy(),
    "endpoint-direct": Policy(served=True, answer_only=True),
    "endpoint": Policy(served=True),
}
"""How each of spec.POLICIES plays, with the adapters that it has there."""


class EvaluateRecipe(FTRecipeInterface):
    """Compares policies; commits rows, comparisons and sample trajectories as one checkpoint."""

    def __init__(self, cfg: EvaluateConfig) -> None:
        self.cfg = cfg
        self.device = utils.get_device(None)
        training.set_seed(cfg.seed)
        self.ranks = ranks.init(self.device, patience_seconds=cfg.tools.outage.patience_seconds)
        self.stage = Stage(cfg, self.ranks)

    def setup(self) -> None:
        """Loads the base model once, the adapters of every policy, and the questions.

        Raises:
            UserError: for inputs that are missing, do not belong together or cannot be used.
        """
        used = {kind for name in self.cfg.policies for kind in spec.POLICIES[name]}
        self.parents = {kind: self.stage.input(kind) for kind in sorted(used)}
        for name in self.cfg.policies:
            resumption.require_chain([self.parents[kind] for kind in spec.POLICIES[name]], self.cfg.store.uri)
        self.saved = {kind: self.stage.folder(manifest) for kind, manifest in self.parents.items()}
        if not all(POLICIES[name].served for name in self.cfg.policies):
            base = self.stage.model
            self.processor = policy_model.load_processor(base)
            loaded = policy_model.load_base(base, self.device, self.cfg.base_quantization)
            self.model = lora.beside(loaded, self.saved)
            self.vision = policy_model.vision_of(self.model, self.processor, self.cfg.feature_cache_bytes)
        self.benchmark_of: dict[str, str] = {}
        self.pool = QuestionPool(*self._questions())

    def _questions(self) -> tuple[Path, list[Question]]:
        """The dataset's folder, and the questions of all benchmarks. Raises UserError for one of another size, or a part.

        The ids of several benchmarks may be the same, so they are prefixed by their benchmark's name.
        """
        wanted, asked = self.cfg.compared_on, []
        for each in wanted:
            benchmarks.check_whole(each.called, each.expected, self.cfg.questions)
        folder, found = self.stage.questions_of(*(each.split for each in wanted))
        for each, questions in zip(wanted, found, strict=True):
            benchmarks.check(each.called, len(questions), each.expected, where=str(folder / f"{each.split}.jsonl"))
            for question in questions[: self.cfg.questions]:
                name = f"{each.called}/{question.id}" if len(wanted) > 1 else question.id
                self.benchmark_of[name] = each.called
                asked.append(question.model_copy(update={"id": name}))
        return folder, asked

    def _settings(self, policy: Policy) -> EvaluateConfig:
        """The stage's settings, as they hold for a policy."""
        update: dict[str, Any] = {"gaze": policy.gaze or self.cfg.gaze}
        if policy.max_calls is not None:
            update["max_calls"] = policy.max_calls
        if policy.served and self.cfg.endpoint is not None:
            given = self.cfg.endpoint
            update |= {"max_tokens": given.context_tokens, "max_turn_tokens": given.max_tokens}
        return self.cfg.model_copy(update=update)

    def _sampler(self, name: str, settings: EvaluateConfig) -> Engine:
        """What samples the turns of the policy of a name, whose adapters take part from now on."""
        limits = Limits(settings.max_tokens, settings.max_turn_tokens, settings.temperature)
        if POLICIES[name].served:
            assert self.cfg.endpoint is not None, "its settings require one"
            return ChatEngine(self.cfg.endpoint, limits, self.cfg.concurrent_episodes, self.stage)
        chain = spec.POLICIES[name]
        lora.activate(self.model, chain)
        parts = engine.Parts(
            self.model, self.processor, self.vision, limits, self.cfg.concurrent_episodes,
            saved=[self.saved[kind] for kind in chain], stage=self.stage, settings=self.cfg,
        )  # fmt: skip
        return engine.create(self.cfg.engine, parts)

    async def train(self) -> dict[str, list[Trajectory]]:
        """The trajectories of each policy, in the order of the questions."""
        played: dict[str, list[Trajectory]] = {}
        self.images: dict[str, Image] = {}
        self.kept: dict[str, list[Trajectory]] = {}
        self.skipped: dict[str, str] = {}
        served: dict[str, dict[str, int]] = {"endpoint": {}, "judge": {}}
        kept = self._shown()
        journals = self.stage.journals(list(self.parents.values()))
        async with Toolbox.of_stage(self.cfg, self.stage.watch()) as toolbox:
            for name in self.cfg.policies:
                policy = POLICIES[name]
                settings = self._settings(policy)
                sampler = self._sampler(name, settings)
                rollouts = Rollouts(
                    sampler,
                    toolbox,
                    settings,
                    self.pool,
                    self.stage.key,
                    self.cfg.seed,
                    RewardConfig(tool_failures="keep"),
                    policy.answer_only,
                    self.ranks,
                    self.stage.tracer,
                    shown_of=kept,
                    log=self.stage.log,
                    journals=journals,
                    interruption=self.stage.interruption,
                    tools=catalog.offered(self.cfg.endpoints),
                    workflow=policy.workflow,
                )
                with self.stage.interruptible():
                    result = await rollouts.play(self.pool.questions, self.cfg.samples, step=0, policy=name)
                played[name] = result.trajectories
                await sampler.close()
                if isinstance(sampler, ChatEngine):
                    served["endpoint"] = served_models.total([served["endpoint"], sampler.served_by.counts()])
                self.skipped |= rollouts.skipped
                for items in table.by_benchmark(played[name], self.benchmark_of).values():
                    table.require_verdicts(name, items)
                shown = [item for item in played[name] if item.question_id in kept]
                self.kept[name] = gather_whole(self.ranks, shown, [result.groups[index] for index in result.own])
                self.images.update(rollouts.shown(self.kept[name]))
                accuracy = {key: table.accuracy(value) for key, value in played.items()}
                metrics.record_accuracy(accuracy)
                self.stage.report(len(played), len(self.cfg.policies), accuracy=accuracy)
            served["judge"] = toolbox.judged_by.counts()
        everywhere = self.ranks.gather(served)
        self.served_by = {name: served_models.total([each[name] for each in everywhere]) for name in served}
        return played

    def _shown(self) -> set[str]:
        """Questions whose trajectories are kept for the report: the first of each benchmark."""
        by_benchmark = defaultdict(list)
        for question in self.pool.questions:
            by_benchmark[self.benchmark_of[question.id]].append(question.id)
        share = -(-self.cfg.keep_trajectories // len(by_benchmark))
        return {each for ids in by_benchmark.values() for each in ids[:share]}

    def save_checkpoint(self, played: dict[str, list[Trajectory]]) -> None:
        """Commits table, comparisons, answers and some trajectories, and logs the table."""
        path = {name: self.stage.workdir / name for name in ("results.json", "answers.jsonl", "trajectories.zip")}
        split = {name: table.by_benchmark(items, self.benchmark_of) for name, items in played.items()}
        rows = table.rows(split)
        compared = table.comparisons(split, resamples=self.cfg.bootstrap, seed=self.cfg.seed)
        results = {"rows": rows, "comparisons": compared, "means": table.means(rows), "served_by": self.served_by}
        path["results.json"].write_text(finite_json.dumps(results, indent=1))
        with path["answers.jsonl"].open("w") as stream:
            for line in table.answers(split):
                stream.write(finite_json.dumps(line) + "\n")
        kept = [item for name in played for item in self.kept[name]]
        trajectory_zip.write(path["trajectories.zip"], kept, self.images)
        accuracy = {name: table.accuracy(trajectories) for name, trajectories in played.items()}
        meta = {"accuracy": accuracy, "n": len(self.pool.questions), **checkpoint.skipped(self.skipped)}
        self.stage.publish(1, path, meta=meta, parents=list(self.parents.values()))
        for row in rows:
            low, high = row["ci95"]
            self.stage.log(f"{row['policy']:16s} {row['benchmark']:12s} {row['accuracy']:.3f}  [{low:.3f}, {high:.3f}]")

        for message in filter(None, (served_models.change(*each) for each in self.served_by.items())):
            self.stage.log(message)

    def cleanup(self) -> None:
        self.stage.end()
        ranks.shutdown(self.ranks)


@tune_config.parse
def recipe_main(cfg: DictConfig) -> None:
    def run() -> None:
        recipe = EvaluateRecipe(config.typed(EvaluateConfig, cfg))
        if recipe.stage.is_done(*(each.split for each in recipe.cfg.compared_on)):
            recipe.cleanup()
            return
        recipe.setup()
        recipe.save_checkpoint(asyncio.run(recipe.train()))
        recipe.cleanup()

    config.exit_with(run)


if __name__ == "__main__":
    sys.exit(recipe_main())

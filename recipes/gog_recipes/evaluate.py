"""Evaluation: every policy on the same held-out questions, with intervals and paired comparisons.

    tune run recipes/gog_recipes/evaluate.py --config recipes/gog_recipes/configs/tiny/evaluate.yaml

Policies: direct (may not search), whole-image (image search of the whole image only), first-candidate (searches the
best-scored candidate unseen), prompted (the base model), sft, grpo. The first three have the SFT weights. All policies
share one base model, beside which their adapters lie; those of a policy take part while it plays. They share its vision
tower, too, so an image is encoded once for all of them. endpoint, and endpoint-direct (may not search), are a model that
gog does not train, behind OpenAI's chat protocol.

A question touched by a tool failure counts as the policy left it: a user's question would be answered no better. Only
questions that the judge could not decide are left out, and their number is printed; where it decided none, the attempt
fails and is retried. A question with an unusable image or an over-long prompt is skipped, by name. Several processes
under torchrun divide the questions.

Results are committed once, at the end. Until then every turn and verdict is journalled, policy by policy, so an
interrupted evaluation resumes where it was, and no judged answer is given or judged again.

Raises UserError when every question is skipped or the judge's replies are no verdicts. Raises ServiceDown when tools or
the judge are down for too long.
"""

from __future__ import annotations

import asyncio
import itertools
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from omegaconf import DictConfig
from torchtune import config as tune_config
from torchtune import training, utils
from torchtune.recipe_interfaces import FTRecipeInterface

from gog import catalog, exclusion, finite_json, metrics, stats, trajectory_zip
from gog.engine import Engine, Limits
from gog.errors import ServiceDown
from gog.images import Image
from gog.spec import EvaluateConfig
from gog.tool_client import Toolbox
from gog.trajectory import Trajectory
from gog_recipes.models import lora, policy_model
from gog_recipes.rollout import engine
from gog_recipes.rollout.chat import ChatEngine
from gog_recipes.rollout.played import gather_whole
from gog_recipes.rollout.question_pool import QuestionPool
from gog_recipes.rollout.rollout_stats import measure
from gog_recipes.rollout.rollouts import Rollouts
from gog_recipes.rollout.scoring import RewardConfig
from gog_recipes.runtime import checkpoint, config, ranks
from gog_recipes.runtime.stage import Stage


@dataclass(frozen=True)
class Policy:
    """What is evaluated under a name."""

    weights: str
    """A key of CHAINS, or ENDPOINT."""
    gaze: str | None = None
    """How expressions are searched; None for the stage's setting."""
    answer_only: bool = False
    """Whether it must answer without searching."""


ENDPOINT = "endpoint"
"""Weights of policies that the stage's endpoint serves: none of them are here."""
POLICIES = {
    "direct": Policy("sft", answer_only=True),
    "whole-image": Policy("sft", gaze="off"),
    "first-candidate": Policy("sft", gaze="direct"),
    "prompted": Policy("base"),
    "sft": Policy("sft"),
    "grpo": Policy("grpo"),
    "endpoint-direct": Policy(ENDPOINT, answer_only=True),
    "endpoint": Policy(ENDPOINT),
}

CHAINS: dict[str, tuple[str, ...]] = {"base": (), "sft": ("sft",), "grpo": ("sft", "grpo")}
"""Stages whose adapters make up the weights of that name, in the order in which they were trained."""


class EvaluateRecipe(FTRecipeInterface):
    """Compares policies; commits rows, comparisons and sample trajectories as one checkpoint."""

    def __init__(self, cfg: EvaluateConfig) -> None:
        self.cfg = cfg
        self.device = utils.get_device(None)
        training.set_seed(cfg.seed)
        self.ranks = ranks.init(self.device)
        self.stage = Stage(cfg, self.ranks)

    def setup(self) -> None:
        """Loads the base model once, the adapters of every policy, and the questions. Raises UserError."""
        weights = {POLICIES[name].weights for name in self.cfg.policies} - {ENDPOINT}
        used = {kind for name in weights for kind in CHAINS[name]}
        self.parents = {kind: self.stage.input(kind) for kind in sorted(used)}
        self.saved = {kind: self.stage.folder(manifest) for kind, manifest in self.parents.items()}
        if weights:
            base = self.stage.model
            self.processor = policy_model.load_processor(base)
            loaded = policy_model.load_base(base, self.device, self.cfg.base_quantization)
            self.model = lora.beside(loaded, self.saved)
            self.vision = policy_model.vision_of(self.model, self.processor, self.cfg.feature_cache_bytes)
        folder, questions = self.stage.questions(self.cfg.split)
        self.pool = QuestionPool(folder, questions[: self.cfg.questions])

    def _settings(self, policy: Policy) -> EvaluateConfig:
        """The stage's settings, as they hold for a policy."""
        update: dict[str, Any] = {"gaze": policy.gaze or self.cfg.gaze}
        if policy.weights == ENDPOINT and self.cfg.endpoint is not None:
            given = self.cfg.endpoint
            update |= {"max_tokens": given.context_tokens, "max_turn_tokens": given.max_tokens}
        return self.cfg.model_copy(update=update)

    def _sampler(self, policy: Policy, settings: EvaluateConfig) -> Engine:
        """What samples the turns of a policy, whose adapters take part from now on."""
        limits = Limits(settings.max_tokens, settings.max_turn_tokens, settings.temperature)
        if policy.weights == ENDPOINT:
            assert self.cfg.endpoint is not None, "its settings require one"
            return ChatEngine(self.cfg.endpoint, limits, self.cfg.concurrent_episodes, self.stage)
        chain = CHAINS[policy.weights]
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
        kept = {question.id for question in self.pool.questions[: self.cfg.keep_trajectories]}
        journals = self.stage.journals(list(self.parents.values()))
        async with Toolbox.of_stage(self.cfg, self.stage.watch()) as toolbox:
            for name in self.cfg.policies:
                policy = POLICIES[name]
                settings = self._settings(policy)
                sampler = self._sampler(policy, settings)
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
                )
                with self.stage.interruption.deferred():
                    result = await rollouts.play(self.pool.questions, 1, step=0, policy=name)
                played[name] = result.trajectories
                await sampler.close()
                self.skipped |= rollouts.skipped
                _require_verdicts(name, played[name])
                shown = [item for item in played[name] if item.question_id in kept]
                self.kept[name] = gather_whole(self.ranks, shown, [result.groups[index] for index in result.own])
                self.images.update(rollouts.shown(self.kept[name]))
                accuracy = {key: _accuracy(value) for key, value in played.items()}
                metrics.record_accuracy(accuracy)
                self.stage.report(len(played), len(self.cfg.policies), accuracy=accuracy)
        return played

    def rows(self, played: dict[str, list[Trajectory]]) -> list[dict[str, Any]]:
        """The table, one row per policy."""
        return [table_row(name, self.cfg.split, trajectories) for name, trajectories in played.items()]

    def comparisons(self, played: dict[str, list[Trajectory]]) -> list[dict[str, Any]]:
        """Every later policy against every earlier one, over the questions for which both have a verdict."""
        found = []
        for first, second in itertools.combinations(played, 2):
            pairs = [
                (b.reward.accuracy, a.reward.accuracy)
                for a, b in _by_question(played[first], played[second])
                if a.reward and b.reward and a.reward.accuracy is not None and b.reward.accuracy is not None
            ]
            if not pairs:
                continue
            difference, low, high = stats.paired_bootstrap(
                *zip(*pairs, strict=True), resamples=self.cfg.bootstrap, seed=self.cfg.seed
            )
            found.append({"a": second, "b": first, "n": len(pairs), "difference": difference, "ci95": [low, high]})
        return found

    def save_checkpoint(self, played: dict[str, list[Trajectory]]) -> None:
        """Commits table, comparisons, answers and some trajectories, and logs the table."""
        path = {name: self.stage.workdir / name for name in ("results.json", "answers.jsonl", "trajectories.zip")}
        results = {"rows": self.rows(played), "comparisons": self.comparisons(played)}
        path["results.json"].write_text(finite_json.dumps(results, indent=1))
        with path["answers.jsonl"].open("w") as stream:
            for name, trajectories in played.items():
                for item in trajectories:
                    line = {
                        "policy": name,
                        "question_id": item.question_id,
                        "answer": item.answer,
                        "accuracy": item.reward and item.reward.accuracy,
                    }
                    stream.write(finite_json.dumps(line) + "\n")
        kept = [item for name in played for item in self.kept[name]]
        trajectory_zip.write(path["trajectories.zip"], kept, self.images)
        accuracy = {name: _accuracy(trajectories) for name, trajectories in played.items()}
        meta = {"accuracy": accuracy, "n": len(self.pool.questions), **checkpoint.skipped(self.skipped)}
        self.stage.publish(1, path, meta=meta, parents=list(self.parents.values()))
        for row in self.rows(played):
            low, high = row["ci95"]
            self.stage.log(f"{row['policy']:16s} {row['accuracy']:.3f}  [{low:.3f}, {high:.3f}]")

    def cleanup(self) -> None:
        self.stage.end()
        ranks.shutdown(self.ranks)


def _by_question(first: Sequence[Trajectory], second: Sequence[Trajectory]) -> Iterator[tuple[Trajectory, Trajectory]]:
    """Pairs of trajectories of the same question; one that a policy skipped has no pair."""
    others = {item.question_id: item for item in second}
    return ((item, others[item.question_id]) for item in first if item.question_id in others)


def _judged(trajectories: Sequence[Trajectory]) -> list[Trajectory]:
    return [item for item in trajectories if item.reward is not None and item.reward.accuracy is not None]


def _require_verdicts(policy: str, trajectories: Sequence[Trajectory]) -> None:
    """Raises ServiceDown where no question was decided: an accuracy of nothing is not 0."""
    if not _judged(trajectories):
        cause = exclusion.cause(trajectories)
        raise ServiceDown("judge", f"none of {len(trajectories)} answers of {policy} was decided: {cause.reason}")


def _accuracy(trajectories: Sequence[Trajectory]) -> float:
    return stats.mean([item.reward.accuracy or 0.0 for item in _judged(trajectories) if item.reward])


def table_row(policy: str, benchmark: str, trajectories: Sequence[Trajectory]) -> dict[str, Any]:
    """One row of the evaluation table.

    Args:
        policy: its name
        benchmark: name of the questions' split
        trajectories: one per question, at least one of them judged

    Returns:
        Figures over the judged trajectories; latencies, in seconds, are those of all episodes, played concurrently.
    """
    judged = _judged(trajectories)
    right = sum(1 for item in judged if item.reward and item.reward.accuracy == 1.0)
    measures = measure(judged)
    seconds = [item.seconds for item in trajectories]
    kinds = sorted({item.kind for item in judged if item.kind})
    return {
        "policy": policy,
        "benchmark": benchmark,
        "n": len(judged),
        "undecided": len(trajectories) - len(judged),
        "accuracy": right / max(1, len(judged)),
        "ci95": list(stats.wilson(right, len(judged))),
        "format_mean": measures.format,
        "tool_calls_mean": measures.tool_calls,
        "latency_p50_s": stats.percentile(seconds, 0.5),
        "latency_p95_s": stats.percentile(seconds, 0.95),
        "behaviour": measures.behaviour,
        "choice_accuracy": measures.choice_accuracy,
        "tool_failure_ratio": measures.tool_failure_ratio,
        "usd_per_question": sum(item.usd for item in trajectories) / len(trajectories),
        "usd_per_correct": sum(item.usd for item in trajectories) / right if right else None,
        "by_kind": {
            kind: {"n": len(own), "accuracy": _accuracy(own)}
            for kind in kinds
            if (own := [i for i in judged if i.kind == kind])
        },
        "stops": {
            stop: count for stop in sorted({i.stop for i in judged}) if (count := sum(i.stop == stop for i in judged))
        },
    }


@tune_config.parse
def recipe_main(cfg: DictConfig) -> None:
    def run() -> None:
        recipe = EvaluateRecipe(config.typed(EvaluateConfig, cfg))
        if recipe.stage.is_done(recipe.cfg.split):
            recipe.cleanup()
            return
        recipe.setup()
        recipe.save_checkpoint(asyncio.run(recipe.train()))
        recipe.cleanup()

    config.exit_with(run)


if __name__ == "__main__":
    sys.exit(recipe_main())

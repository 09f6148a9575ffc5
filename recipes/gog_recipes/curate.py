"""Curation: a teacher plays demonstrations for SFT through the live tools.

    python -m gog_recipes.curate --config recipes/gog_recipes/configs/tiny/curate.yaml key=value   (or `tune run`)

Features
    - the teacher plays whole episodes with the run's own tools, in the run's own way of gazing, so SFT learns from what
      RL will meet
    - every demonstration is judged, so that its quality is known; none is filtered out by that (the teacher of the
      embedded world slips on purpose, see gog_recipes.world.teacher)
    - demonstrations with a tool failure are kept, because they show a retry
    - a question whose image cannot be used is skipped, by name
    - deterministic given seed and tools; needs no torch
    - demonstrations are committed once, at the end; until then every judged one is journalled, so an interrupted curation
      plays and judges none of them again (one that was under way begins again, because the teacher's state is not kept)
    - one process, because it waits for tools, which more processes would not speed up

Raises UserError for a dataset without evidence marks, for too few questions, and if the judge fails too often.
"""

from __future__ import annotations

import asyncio
import random
import sys
import time
import zlib

from gog import behaviour, dataset, images, judging, metrics, rewards, trajectory_zip, wording
from gog.agent import Episode
from gog.dataset import Question
from gog.errors import QuestionSkipped, UserError
from gog.images import Image
from gog.spec import CurateConfig
from gog.tool_client import Toolbox
from gog.trajectory import Trajectory
from gog_recipes.rollout import journals
from gog_recipes.runtime import config, ranks
from gog_recipes.runtime.stage import Stage
from gog_recipes.world.teacher import ScriptedTeacher


class CurateRecipe:
    """Makes demonstrations of `trajectories` questions and commits them as the stage's only checkpoint."""

    def __init__(self, cfg: CurateConfig) -> None:
        self.cfg = cfg
        self.stage = Stage(cfg)
        self.images: dict[str, Image] = {}
        self.skipped: list[str] = []

    def setup(self) -> None:
        """Samples the questions. Raises UserError if there are too few, or without evidence marks."""
        self.folder, questions = self.stage.questions("train")
        if len(questions) < self.cfg.trajectories:
            raise UserError(
                f"{wording.plural(self.cfg.trajectories, 'trajectory', 'trajectories')} from "
                f"{wording.plural(len(questions), 'question')}",
                where="trajectories",
                remedy=f"ask for at most {len(questions)}",
            )
        unmarked = next((question for question in questions if not question.evidence.kind), None)
        if unmarked is not None:
            raise UserError(
                f"question {unmarked.id} has no evidence",
                where=str(self.folder),
                remedy="the scripted teacher needs it",
            )
        self.questions = random.Random(self.cfg.seed).sample(questions, self.cfg.trajectories)
        documents = list(dataset.read_lines(self.folder / "corpus.jsonl", dataset.Document))
        self.names = [document.title for document in documents]
        words = {word for document in documents for word in document.text.split()}
        self.facts = sorted(word for word in words if any(char.isdigit() for char in word))

    async def curate(self) -> list[Trajectory]:
        """One judged demonstration per question, in the order of the questions, without those that were skipped."""
        metrics.initialise_rollouts(self.stage.key)
        slots, done = asyncio.Semaphore(self.cfg.concurrent_episodes), 0

        async def demonstrate(question: Question) -> Trajectory | None:
            nonlocal done
            async with slots:
                try:
                    trajectory = await self._demonstrate(question)
                except QuestionSkipped as error:
                    self._skip(question, error)
                    trajectory = None
            done += 1
            self.stage.report(done, len(self.questions), skipped=len(self.skipped))
            return trajectory

        async def demonstrate_all() -> list[Trajectory | None]:
            return await asyncio.gather(*(demonstrate(question) for question in self.questions))

        opened = self.stage.journals([], needs_model=False).open(
            ranks.SINGLE, self.questions, policy="teacher", step=0, weights="", whole=None
        )
        with self.stage.interruption.deferred():
            async with Toolbox.of_stage(self.cfg, self.stage.watch()) as self.toolbox, opened as self.journal:
                if line := await journals.resumed_line(self.journal, ranks.SINGLE, self.questions, 1, "demonstrations"):
                    self.stage.log(line)
                played = await self.stage.interruption.race(demonstrate_all())
        made = [trajectory for trajectory in played if trajectory is not None]
        if not made:
            raise UserError("every question was skipped", where=str(self.folder), remedy="see the log for the reasons")
        judging.check([item.judge_failure for item in made])
        return made

    def _skip(self, question: Question, error: QuestionSkipped) -> None:
        self.skipped.append(question.id)
        self.stage.skip(f"question {question.id}", str(error))

    async def _demonstrate(self, question: Question) -> Trajectory:
        """A judged demonstration. Raises QuestionSkipped if the question's image cannot be used."""
        rng = random.Random(zlib.crc32(f"{self.cfg.seed}:{question.id}".encode()))
        guesses = self.names if question.evidence.kind == "name" else self.facts
        teacher = ScriptedTeacher(question, rng, self.cfg.teacher_accuracy, guesses)
        try:
            image = await asyncio.to_thread(images.read, self.folder / question.image)
        except UserError as error:
            raise QuestionSkipped(error.what, where=error.where, remedy=error.remedy) from None
        (resumed,) = await self.journal.resumed(question, 1)
        if resumed is not None and resumed.found.trajectory is not None:
            self.images |= {image.hash: image, **resumed.images}
            return resumed.found.trajectory
        line = self.journal.line(question, 0, None)
        episode = Episode(question, image, teacher, self.toolbox, self.cfg, self.cfg.model.style, keeper=line)
        teacher.follow(episode)
        name = f"teacher-{question.id}"
        with self.stage.tracer.episode(name) as span:
            trajectory = await episode.run()
            verdict = await self.toolbox.judge(question.question, question.answers, trajectory.answer or "")
            accuracy = None if verdict.value is None else float(verdict.value)
            reward = rewards.reward(accuracy, trajectory.well_formed)
            judged = {
                "reward": reward,
                "judge_failure": verdict.failure_record,
                "judge_decisions": verdict.decisions,
                "judge_usd": verdict.usd,
            }
            trajectory = trajectory.model_copy(update={"id": name, "policy": "teacher", **judged})
            span.record(trajectory)
        self.images.update(episode.images)
        if line is not None and verdict.failure is None:
            line.end(trajectory)
        metrics.record_trajectory(self.stage.key, "judge" if accuracy is None else "counted")
        return trajectory

    def save_checkpoint(self, trajectories: list[Trajectory], seconds: float) -> None:
        """Commits the demonstrations.

        Args:
            trajectories: what `curate` returned.
            seconds: time that it took.
        """
        path = self.stage.workdir / "trajectories.zip"
        trajectory_zip.write(path, trajectories, self.images)
        judged = [item.reward.accuracy for item in trajectories if item.reward and item.reward.accuracy is not None]
        meta = {
            "trajectories": len(trajectories),
            "skipped": len(self.skipped),
            "behaviour": behaviour.shares(trajectories),
            "accuracy": sum(judged) / max(1, len(judged)),
            "teacher_accuracy": self.cfg.teacher_accuracy,
            "seconds": round(seconds, 2),
        }
        self.stage.report(len(trajectories), len(trajectories), **meta)
        self.stage.publish(1, {"trajectories.zip": path}, meta=meta, parents=[])


def main() -> None:
    ranks.refuse_several("curate")
    recipe = CurateRecipe(config.from_command_line(CurateConfig, sys.argv[1:]))
    if recipe.stage.is_done("train"):
        recipe.stage.end()
        return
    started = time.monotonic()
    recipe.setup()
    trajectories = asyncio.run(recipe.curate())
    recipe.save_checkpoint(trajectories, time.monotonic() - started)
    recipe.stage.end()


if __name__ == "__main__":
    config.exit_with(main)

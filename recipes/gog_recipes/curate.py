"""Curation: a teacher plays demonstrations for SFT through the live tools, and rules decide which are kept.

    python -m gog_recipes.curate --config recipes/gog_recipes/configs/tiny/curate.yaml key=value   (or `tune run`)

Features
    - questions are screened before anything is spent on them: a benchmark's (`against`), repeated ones, those that contain
      their answer; those are left out of RL, too
    - with an `endpoint`, its model answers each question without search several times; what it always knows is left out
    - the teacher plays whole episodes with the run's own tools, in the run's own way of gazing, so SFT learns from what
      RL will meet: scripted (gog_recipes.world.teacher, which slips on purpose if asked to), or the model of `endpoint`
    - every demonstration is judged and checked by the rules of `verify` (gog.curation); `search_share` balances those with
      and without search
    - demonstrations with a tool failure are kept, because they show a retry
    - what became of each question is a line of samples.jsonl in the checkpoint, and a count in status and report
    - a question whose image cannot be used is skipped, by name
    - deterministic given seed and tools, with the scripted teacher; that needs no torch
    - demonstrations are committed once, at the end; until then every judged one is journalled, so an interrupted curation
      plays and judges none of them again (one of the scripted teacher that was under way begins again, because its state
      is not kept)
    - one process, because it waits for tools, which more processes would not speed up

Raises UserError for too few questions, for a dataset without evidence marks with the scripted teacher, if the rules leave
no demonstration, and if the judge fails too often.
"""

from __future__ import annotations

import asyncio
import random
import sys
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from gog import behaviour, curation, dataset, images, judging, metrics, rewards, trajectory_zip, wording
from gog.agent import Episode
from gog.dataset import Question
from gog.errors import QuestionSkipped, UserError
from gog.images import Image
from gog.spec import CurateConfig
from gog.tool_client import Toolbox
from gog.trajectory import Trajectory
from gog_recipes.data import ledger, screening
from gog_recipes.data.ledger import Ledger
from gog_recipes.rollout import journals
from gog_recipes.runtime import config, ranks
from gog_recipes.runtime.stage import Stage
from gog_recipes.world.teacher import ScriptedTeacher

if TYPE_CHECKING:
    from gog_recipes.rollout.asked import Asked


class CurateRecipe:
    """Makes demonstrations of up to `trajectories` questions and commits them as the stage's only checkpoint."""

    def __init__(self, cfg: CurateConfig) -> None:
        self.cfg = cfg
        self.stage = Stage(cfg)
        self.images: dict[str, Image] = {}
        self.skipped: list[str] = []

    def setup(self) -> None:
        """Draws the questions. Raises UserError if there are too few, or the teacher cannot play them."""
        self.folder, questions = self.stage.questions("train")
        if len(questions) < self.cfg.trajectories:
            raise UserError(
                f"{wording.plural(self.cfg.trajectories, 'trajectory', 'trajectories')} from "
                f"{wording.plural(len(questions), 'question')}",
                where="trajectories",
                remedy=f"ask for at most {len(questions)}",
            )
        drawn = min(len(questions), max(self.cfg.trajectories, self.cfg.candidates or 0))
        self.questions = random.Random(self.cfg.seed).sample(questions, drawn)
        names = {question.id for question in self.questions}
        self.undrawn = [question for question in questions if question.id not in names]
        if self.cfg.teacher == "scripted":
            self._prepare_script(questions)
        elif self.cfg.model.style == "terse":
            raise UserError(
                "the tiny model does not know the words of a model behind an endpoint",
                where="teacher",
                remedy="use the scripted teacher, or another base model",
            )
        teacher = self.cfg.endpoint.model if self.cfg.teacher == "endpoint" and self.cfg.endpoint else "scripted"
        self.ledger = Ledger(self.questions, teacher)

    def _prepare_script(self, questions: Sequence[Question]) -> None:
        unmarked = next((question for question in questions if not question.evidence.kind), None)
        if unmarked is not None:
            raise UserError(
                f"question {unmarked.id} has no evidence",
                where=str(self.folder),
                remedy="the scripted teacher needs it; teacher: endpoint does not",
            )
        documents = list(dataset.read_lines(self.folder / "corpus.jsonl", dataset.Document))
        self.names = [document.title for document in documents]
        words = {word for document in documents for word in document.text.split()}
        self.facts = sorted(word for word in words if any(char.isdigit() for char in word)) or self.names

    async def curate(self) -> list[Trajectory]:
        """The judged demonstrations that are kept, at most one per question, in the order of the questions."""
        metrics.initialise_rollouts(self.stage.key)
        self._screen()
        async with Toolbox.of_stage(self.cfg, self.stage.watch()) as self.toolbox:
            with self.stage.interruptible():
                self._require_some(self._open())
                await self._leave_out_certain()
                self._require_some(self._open())
                made = await (self._scripted() if self.cfg.teacher == "scripted" else self._of_endpoint())
        return self._kept(made)

    def _open(self) -> list[Question]:
        """The questions that nothing has left out so far."""
        return [question for question in self.questions if self.ledger.is_open(question.id)]

    def _reporter(self, total: int) -> Callable[[int], None]:
        """Reports how many of `total` questions are done."""
        return lambda done: self.stage.report(done, total, skipped=len(self.skipped), dropped=self.ledger.dropped())

    def _screen(self) -> None:
        """Leaves out questions by their own words and images, before anything is spent on them. Those that were not drawn
        are looked at, too, because RL learns from all of `train`."""
        benchmarks = [
            screening.benchmark_folder(given, self.cfg.store, self.stage.common / "against" / str(number))
            for number, given in enumerate(self.cfg.against)
        ]
        known = screening.known(benchmarks)
        for question, rule, reason in screening.screen(self.folder, self.questions, self.cfg.verify, known):
            self.ledger.drop(question.id, rule, reason)
        rules = [rule for rule in self.cfg.verify if rule == "giveaway"]  # repetitions need the image of every question
        barred = list(screening.screen(self.folder, self.undrawn, rules, known))
        for question, rule, reason in barred:
            self.ledger.bar(question, rule, reason)
        if barred:
            self.stage.log(f"{wording.plural(len(barred), 'more question')} of train will be left out of RL")

    async def _leave_out_certain(self) -> None:
        """Leaves out the questions that the model of the endpoint answers right every time without search."""
        if self.cfg.endpoint is None or not self.cfg.uncertainty_samples:
            return
        samples = self.cfg.uncertainty_samples
        questions = self._open()
        verdicts_of = await self._asked().verdicts(questions, samples, self._reporter(len(questions)))
        for question, verdicts in verdicts_of.items():
            self.ledger.note(question, right_without_search=verdicts.count(1.0), answers_without_search=len(verdicts))
            if curation.is_certain(verdicts):
                self.ledger.drop(question, "certain", f"answered right {samples} of {samples} times without search")

    def _asked(self) -> Asked:
        from gog_recipes.rollout.asked import Asked  # with torch, which the scripted teacher does not need

        return Asked(self.cfg, self.stage, self.toolbox, self.folder)

    async def _of_endpoint(self) -> dict[str, list[Trajectory]]:
        """The judged demonstrations of the model of the endpoint, by question, without those that were skipped."""
        asked, questions = self._asked(), self._open()
        made = await asked.demonstrations(questions, self.cfg.attempts, self._reporter(len(questions)))
        self.images.update(asked.images)
        for question, reason in asked.skipped.items():
            self._skip(question, reason)
        return made

    async def _scripted(self) -> dict[str, list[Trajectory]]:
        """One judged demonstration of the scripted teacher per question, without those that were skipped."""
        questions = self._open()
        slots, done, report = asyncio.Semaphore(self.cfg.concurrent_episodes), 0, self._reporter(len(questions))

        async def demonstrate(question: Question) -> Trajectory | None:
            nonlocal done
            async with slots:
                try:
                    trajectory = await self._demonstrate(question)
                except QuestionSkipped as error:
                    self._skip(question.id, str(error))
                    trajectory = None
            done += 1
            report(done)
            return trajectory

        async def demonstrate_all() -> list[Trajectory | None]:
            return await asyncio.gather(*(demonstrate(question) for question in questions))

        opened = self.stage.journals([], needs_model=False).open(
            ranks.SINGLE, questions, policy="teacher", step=0, weights="", whole=None
        )
        async with opened as self.journal:
            if line := await journals.resumed_line(self.journal, ranks.SINGLE, questions, 1, "demonstrations"):
                self.stage.log(line)
            played = await self.stage.interruption.race(demonstrate_all())
        made = [trajectory for trajectory in played if trajectory is not None]
        if not made:
            raise UserError("every question was skipped", where=str(self.folder), remedy="see the log for the reasons")
        judging.check([item.judge_failure for item in made])
        return {trajectory.question_id: [trajectory] for trajectory in made}

    def _kept(self, made: Mapping[str, Sequence[Trajectory]]) -> list[Trajectory]:
        """The demonstrations that break no rule, balanced, at most `trajectories`. Raises UserError if none is left."""
        passed = []
        for question in self._open():
            faults = [(item, curation.fault(item, self.cfg.verify)) for item in made.get(question.id, ())]
            found = next((item for item, (rule, _) in faults if not rule), None)
            if found is not None:
                passed.append(found)
            elif faults:
                self.ledger.drop(question.id, *faults[0][1])
        for name in self._surplus(passed):
            self.ledger.drop(
                name, "balance", f"more than a share of {self.cfg.search_share} that searches, or does not"
            )
        balanced = [item for item in passed if self.ledger.is_open(item.question_id)]
        for item in balanced[self.cfg.trajectories :]:
            self.ledger.drop(item.question_id, "enough", f"{self.cfg.trajectories} are kept already")
        kept = balanced[: self.cfg.trajectories]
        for item in kept:
            self.ledger.keep(item)
        self.stage.log(self.ledger.table())
        self._require_some(kept)
        return kept

    def _require_some(self, left: Sequence[object]) -> None:
        """Raises UserError where the rules leave nothing."""
        if not left:
            raise UserError(
                f"no demonstration is left: {self.ledger.table()}",
                where="stages.curate",
                remedy="draw more candidates, or see docs/dataset.md for the rules",
            )

    def _surplus(self, passed: Sequence[Trajectory]) -> list[str]:
        """Questions to leave out for the balance of search and no search."""
        if self.cfg.search_share is None:
            return []
        sides: tuple[list[str], list[str]] = ([], [])
        for item in passed:
            sides[behaviour.classify(item) == "none"].append(item.question_id)
        return curation.surplus(*sides, self.cfg.search_share)

    def _skip(self, question_id: str, reason: str) -> None:
        self.skipped.append(question_id)
        self.ledger.drop(question_id, "skipped", reason)
        self.stage.skip(f"question {question_id}", reason)

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
            "dropped": self.ledger.dropped(),
            "behaviour": behaviour.shares(trajectories),
            "accuracy": sum(judged) / max(1, len(judged)),
            "teacher_accuracy": self.cfg.teacher_accuracy,
            "seconds": round(seconds, 2),
        }
        self.stage.report(len(trajectories), len(trajectories), **meta)
        samples = self.ledger.write(self.stage.workdir / ledger.FILE)
        self.stage.publish(1, {path.name: path, samples.name: samples}, meta=meta, parents=[])


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

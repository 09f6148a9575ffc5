"""Questions in, judged trajectories out: every episode of a step at once, in one event loop.

A group is one question's samples. Groups start as places in the engine become free; each episode plays on its own, and
the judge is called as soon as its answer is there. Results keep the order of the questions, whichever finished first.
With several ranks each plays its share of the questions, and all of them get all trajectories.

While a tool or the judge is down, calls of it wait inside the toolbox (`gog.outage`): episodes hold their places, so no
more are started than the engine has, and nothing is lost. A question that cannot be played is skipped and reported.
"""

from __future__ import annotations

import asyncio
import time
import zlib
from collections.abc import Callable, Container, Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from gog import behaviour, catalog, judging, metrics, outage, prompts, rewards, tool_actions, tracing, trajectory_zip
from gog.agent import Episode, Session
from gog.dataset import Question
from gog.engine import Engine
from gog.errors import QuestionSkipped, UserError
from gog.images import Image
from gog.spec import AgentSettings
from gog.tool_types import Reply
from gog.trajectory import Failure, Trajectory
from gog_recipes.rollout.played import Played, Skipped, collect
from gog_recipes.rollout.question_pool import QuestionPool
from gog_recipes.runtime import monitor
from gog_recipes.runtime.ranks import SINGLE, Ranks

T = TypeVar("T")
RECENT_VERDICTS = 200
"""Verdicts over which the judge's success rate is taken, at least."""


class Services(tool_actions.Tools, Protocol):
    """The tools of an episode, and the judge."""

    async def judge(self, question: str, answers: Sequence[str], answer: str) -> Reply[bool]:
        """Whether an answer is correct."""
        ...


@dataclass(frozen=True)
class RewardConfig:
    """How a trajectory is rewarded; see gog.rewards."""

    format_weight: float = 0.1
    """λ in r = (1 - λ) · accuracy + λ · format."""
    search_penalty: float = 0.0
    """Accuracy is multiplied by 1 minus this when a search was made."""
    failures: str = "mask"
    """What becomes of trajectories that a tool failure touched: mask, drop or keep."""


@dataclass
class Rollouts:
    """Plays questions with one engine and one toolbox."""

    engine: Engine
    """Samples the turns."""
    toolbox: Services
    """Calls the tools and the judge."""
    settings: AgentSettings
    """Caps of an episode, and how expressions are searched."""
    pool: QuestionPool
    """Where images of questions are read."""
    stage: str
    """Key of the stage, for metrics."""
    seed: int
    """Decides the sampling noise together with step, question and sample, so a repeated step repeats its samples."""
    scoring: RewardConfig = RewardConfig()
    """How trajectories are rewarded."""
    answer_only: bool = False
    """Whether the policy must answer without searching."""
    ranks: Ranks = SINGLE
    """The processes that share the questions."""
    tracer: tracing.NoopTracer = tracing.NOOP
    """Records the episodes' spans."""
    levels: Mapping[str, str] = field(default_factory=dict)
    """Difficulty by question id, where it is known."""
    shown_of: Container[str] | None = None
    """Ids of the questions whose trajectories `shown` may be called with; None: every question of the newest play."""
    log: Callable[[str], None] = lambda _: None
    """Takes a line for the stage's log."""
    images: dict[str, Image] = field(default_factory=dict)
    """The images of these questions' episodes, by content hash; of this rank's newest play."""
    skipped: dict[str, str] = field(default_factory=dict)
    """Why questions were skipped, by question id, over all plays."""
    _verdicts: list[Failure | None] = field(default_factory=list)

    def __post_init__(self) -> None:
        metrics.initialise_rollouts(self.stage)
        self.tools = frozenset() if self.answer_only else catalog.SEARCH_TOOLS

    async def play(
        self,
        questions: Sequence[Question],
        samples: int,
        *,
        step: int,
        policy: str,
        on_group: Callable[[int, list[Trajectory]], None] | None = None,
    ) -> Played:
        """Plays `samples` episodes of each question. All ranks at once.

        Args:
            questions: in any order; alike on all ranks.
            samples: trajectories per question.
            step: number of the rollout, which decides the sampling noise; recorded with the trajectories.
            policy: name of the policy; recorded with the trajectories.
            on_group: called with the number of this rank's questions that are done and the newest group, which is empty
                for a question that was skipped.

        Raises:
            ServiceDown: a tool or the judge was down for longer than the stage waits.
            UserError: every question was skipped; the judge's replies are no verdicts; a tool refuses every call.
        """
        begun = time.monotonic()
        self.images, own = {}, self.ranks.shard(questions)
        at_once = max(1, self.engine.capacity // samples)
        places, done, prefetched = asyncio.Semaphore(at_once), 0, 0

        async def play_one(number: int) -> list[Trajectory] | Skipped:
            nonlocal done, prefetched
            async with places:
                if number >= prefetched:  # the prompts that start with this one are encoded together
                    prefetched = number + at_once
                    self._prefetch(own[number:prefetched])
                played = await self._group(own[number], samples, step, policy)
            done += 1
            if on_group is not None:
                on_group(done, [] if isinstance(played, Skipped) else played)
            return played

        played = collect(self.ranks, await _all_or_none(play_one(number) for number in range(len(own))))
        if self.ranks.is_main:
            metrics.record_rollout(time.monotonic() - begun)
        monitor.gather_counts(self.ranks)
        self._check_skipped(played)
        self._check_judge(played.trajectories)
        return played

    def shown(self, trajectories: Sequence[Trajectory]) -> dict[str, Image]:
        """The images that these trajectories show, by content hash, whichever rank met them. All ranks at once."""
        wanted = {image for item in trajectories for image in trajectory_zip.shown(item)}
        own = {image: self.images[image] for image in wanted & self.images.keys()}
        return {digest: found for met in self.ranks.gather(own) for digest, found in met.items()}

    def _prefetch(self, questions: Sequence[Question]) -> None:
        images = []
        for question in questions:
            try:
                images.append(self.pool.image(question))
            except QuestionSkipped:
                continue  # reported when the question's turn comes
        self.engine.prefetch(images)

    async def _group(self, question: Question, samples: int, step: int, policy: str) -> list[Trajectory] | Skipped:
        """The trajectories of a question."""
        seeds = [(self.seed, step, zlib.crc32(question.id.encode()), sample) for sample in range(samples)]
        text = prompts.prompt(question.question, style=self.engine.style, tools=self.tools, gaze=self.settings.gaze)
        facts = {"policy": policy, "step": step, "level": self.levels.get(question.id, "")}
        try:
            image = self.pool.image(question)
            sessions = await self.engine.open(text, [image], seeds, suppress=self._forbidden_tags())
        except QuestionSkipped as error:
            return Skipped(question.id, error.sentence())
        try:
            return await _all_or_none(
                self._sample(question, image, session, {**facts, "sample": sample})
                for sample, session in enumerate(sessions)
            )
        except QuestionSkipped as error:  # an image that a tool returned
            return Skipped(question.id, error.sentence())
        finally:
            for session in sessions:  # an episode that was cancelled before it started has not closed its own
                session.close()

    async def _sample(
        self, question: Question, image: Image, session: Session, facts: Mapping[str, object]
    ) -> Trajectory:
        """One trajectory with its facts: policy, step, sample, level."""
        name = f"{facts['policy']}-{facts['step']}-{question.id}-{facts['sample']}"
        with self.tracer.episode(name) as span:
            trajectory = await self._episode(question, image, session)
            trajectory = trajectory.model_copy(update={"id": name, **facts})
            span.record(trajectory)
        return trajectory

    def _forbidden_tags(self) -> tuple[str, ...]:
        """Opening tags of the tools that the policy may not use."""
        allowed = {tool.tag for tool in catalog.TOOLS if tool.name in self.tools}
        return tuple(f"<{tag}>" for tag in catalog.ACTION_TAGS if tag not in allowed)

    async def _episode(self, question: Question, image: Image, session: Session) -> Trajectory:
        """Plays and rewards one episode. The trajectory records whether it counts."""
        style = self.engine.style
        episode = Episode(question, image, session, self.toolbox, self.settings, style, tools=self.tools)
        trajectory = await episode.run()
        if self.shown_of is None or question.id in self.shown_of:
            self.images.update(episode.images)
        accuracy: float | None = 0.0
        if trajectory.answer is not None:
            verdict = await self._judge(question, trajectory.answer)
            accuracy = None if verdict.value is None else float(verdict.value)
            trajectory = trajectory.model_copy(update={"judge_failure": Failure.of(verdict.failure)})
        reward = rewards.reward(
            accuracy,
            trajectory.well_formed,
            format_weight=self.scoring.format_weight,
            searched=behaviour.classify(trajectory) != "none",
            search_penalty=self.scoring.search_penalty,
        )
        trajectory = trajectory.model_copy(update={"reward": reward})
        excluded = rewards.exclusion(trajectory, self.scoring.failures)
        status = "counted" if not excluded else "judge" if excluded == "judge" else "tool_failure"
        metrics.record_trajectory(self.stage, status)
        return trajectory.model_copy(update={"excluded": excluded})

    async def _judge(self, question: Question, answer: str) -> Reply[bool]:
        """The verdict on an answer. A judge that did not reply is called again.

        An outage counts as one after several failures in a row, and only then do calls wait for its end. Calling again
        makes sure that the answers which met its first failures are judged, too.
        """
        for _ in range(outage.FAILURES):
            reply = await self.toolbox.judge(question.question, question.answers, answer)
            if reply.failure is None or reply.failure.kind not in outage.UNREACHABLE:
                break
        return reply

    def _check_skipped(self, played: Played) -> None:
        """Logs the questions that were skipped for the first time."""
        for each in played.skipped:
            if each.question_id not in self.skipped:
                self.skipped[each.question_id] = each.reason
                self.log(f"question {each.question_id} is skipped: {each.reason}")
                if self.ranks.is_main:
                    metrics.record_skipped(self.stage)
        if played.skipped and not played.groups:
            first = played.skipped[0]
            raise UserError(
                f"all {len(played.skipped)} questions were skipped, {first.question_id} because of {first.reason}",
                where=f"{self.pool.folder}",
                remedy="see the log for the reasons of the others",
            )

    def _check_judge(self, trajectories: Sequence[Trajectory]) -> None:
        """Checks the success rate over these verdicts, and over earlier ones where these are few."""
        verdicts = [item.judge_failure for item in trajectories if item.answer is not None]
        self._verdicts = [*self._verdicts, *verdicts][-max(RECENT_VERDICTS, len(verdicts)) :]
        judging.check(self._verdicts)


async def _all_or_none(coroutines: Iterable[Coroutine[object, object, T]]) -> list[T]:
    """The results of all, in order. The first that raises cancels the others, and all of them have ended by then."""
    tasks = [asyncio.ensure_future(coroutine) for coroutine in coroutines]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

"""Questions in, judged trajectories out: every episode of a step at once, in one event loop.

A group is one question's samples. Groups start as places in the engine become free; each episode plays on its own, and
the judge is called as soon as its answer is there. Results keep the order of the questions, whichever finished first.
With several ranks each plays its share of the questions, keeps those trajectories, and gets outlines of the others'.

Every finished turn is journalled before the episode samples the next one (`gog.journal`). What an earlier attempt left
is taken over: judged trajectories as they are, the others from their last turn on.

While a tool or the judge is down, calls of it wait inside the toolbox (`gog.outage`): episodes hold their places, so no
more are started than the engine has, and nothing is lost. A question that cannot be played is skipped and reported.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
import zlib
from collections.abc import AsyncIterator, Callable, Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from gog import catalog, failure_rules, judging, metrics, prompts, tracing, trajectory_zip
from gog.agent import Episode, Session, Workflow
from gog.dataset import Question
from gog.engine import Engine
from gog.errors import NotFinite, QuestionSkipped, UserError
from gog.images import Image
from gog.spec import AgentSettings
from gog.trajectory import Failure, Trajectory, outline
from gog_recipes.rollout import ended, journals, verdicts
from gog_recipes.rollout.journals import Journals, PlayJournal, Resumed
from gog_recipes.rollout.ongoing import Ongoing, all_or_none
from gog_recipes.rollout.places import Places
from gog_recipes.rollout.played import Played, Skipped, collect
from gog_recipes.rollout.question_pool import QuestionPool
from gog_recipes.rollout.scoring import RewardConfig
from gog_recipes.runtime import monitor, timers
from gog_recipes.runtime.interruption import Interrupted, Interruption
from gog_recipes.runtime.ranks import SINGLE, Ranks

RECENT_VERDICTS = 200
"""Verdicts over which the judge's success rate is taken, at least."""


@dataclass
class Rollouts:
    """Plays questions with one engine and one toolbox."""

    engine: Engine
    """Samples the turns."""
    toolbox: verdicts.Services
    """Calls the tools and the judge."""
    settings: AgentSettings
    """Caps of an episode, and how expressions are searched."""
    pool: QuestionPool
    """Where images of questions are read."""
    stage: str
    """Key of the stage, for metrics."""
    seed: int
    """Decides the sampling noise together with step, question and sample, so a repeated step repeats its samples."""
    scoring: RewardConfig = field(default_factory=RewardConfig)
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
    """Ids of the questions whose trajectories are kept whole, with their images; None: every question. Of the others only
    outlines are kept."""
    journals: Journals | None = None
    """Journals of the stage's plays; None: what this process loses is played again."""
    tools: frozenset[str] = catalog.SEARCH_TOOLS
    """Names of the tools that the policy may call; none with `answer_only`."""
    workflow: Workflow | None = None
    """Writes the first turns of each episode in place of the policy."""
    weights: dict[int, str] = field(default_factory=dict)
    """Digest of the weights by version, where a play may meet several. A turn of an earlier attempt counts as sampled by a
    version only if its weights had this digest."""
    log: Callable[[str], None] = lambda _: None
    """Takes a line for the stage's log."""
    images: dict[str, Image] = field(default_factory=dict)
    """The images of these questions' episodes, by content hash; of the play that finished last on this rank."""
    skipped: dict[str, str] = field(default_factory=dict)
    """Why questions were skipped, by question id, over all plays."""
    interruption: Interruption = field(default_factory=Interruption)
    """Ends a play early when this process is asked to end."""
    timer: timers.StepTimer = field(default_factory=timers.StepTimer)
    """Learns when episodes wait for tools and for the judge."""
    _verdicts: list[Failure | None] = field(default_factory=list)
    _open_plays: list[Ongoing] = field(default_factory=list)
    _too_old: int = 0
    _places: Places = field(init=False)

    def __post_init__(self) -> None:
        metrics.initialise_rollouts(self.stage)
        if self.answer_only:
            self.tools = frozenset()

    async def play(self, questions: Sequence[Question], samples: int, **options: Any) -> Played:
        """Plays `samples` episodes of each question: `begin`, whose arguments these are, then `finish`. All ranks at once."""
        return await self.finish(await self.begin(questions, samples, **options))

    async def begin(
        self,
        questions: Sequence[Question],
        samples: int,
        *,
        step: int,
        policy: str,
        weights: str = "",
        on_group: Callable[[int, list[Trajectory]], None] | None = None,
        refill: bool = False,
        oldest: int = 0,
    ) -> Ongoing:
        """Begins a play, which goes on beside the caller. All ranks at once.

        Args:
            questions: in any order; alike on all ranks.
            samples: trajectories per question.
            step: number of the rollout, which decides the sampling noise; recorded with the trajectories.
            policy: name of the policy; recorded with the trajectories.
            weights: digest of the policy's weights, which names the journal of the play; empty for a play that may meet
                several of them.
            on_group: called with the number of this rank's questions that are done and the newest group, which is empty
                for a question that was skipped.
            refill: whether this adds to the play that finished last, whose images are kept then. All of its questions may
                be skipped, and a rank may have none.
            oldest: version of the weights; what an earlier attempt sampled with older ones is played anew.
        """
        own, closing = self.ranks.shard(questions), contextlib.AsyncExitStack()
        journal = await closing.enter_async_context(self._journal(own, policy, step, weights))
        play = Ongoing(own, samples, step, policy, journal, time.monotonic(), refill, oldest, closing)
        try:
            what = f"step {step}" if step else policy
            if line := await journals.resumed_line(journal, self.ranks, own, samples, what):
                self.log(line)
            report = on_group or (lambda done, newest: None)
            for name, taken in self._taken(play):
                play.found[name] = taken
                report(len(play.found), taken)
        except BaseException:
            await play.abandon()
            raise
        at_once = max(1, self.engine.capacity // samples)
        if not self._open_plays:
            self._places = Places(at_once)
        self._open_plays.append(play)
        play.work = asyncio.ensure_future(self._play_all(play, at_once, report))
        return play

    async def finish(self, play: Ongoing) -> Played:
        """What became of a play that has begun, once it ends. All ranks at once.

        Raises:
            ServiceDown: a tool or the judge was down for longer than the stage waits.
            Interrupted: a rank was asked to end. What its episodes have finished is in the journal.
            UserError: every question was skipped; the judge's replies are no verdicts; a tool refuses every call.
        """
        assert play.work is not None
        try:
            with contextlib.suppress(Interrupted):
                await self.interruption.race(play.work)
        finally:
            self._open_plays.remove(play)
            await play.abandon()
        if self._open_plays and self.ranks.size > 1:  # they go on while this rank waits for the others
            await asyncio.to_thread(self.ranks.gather, None)
        if any(self.ranks.gather(self.interruption.requested and not play.is_done)):
            raise Interrupted
        self.images = {**(self.images if play.adds else {}), **play.images}
        self._too_old += play.too_old
        seconds = time.monotonic() - play.begun
        played = collect(self.ranks, play.outcome(self.weights))
        if self.ranks.is_main:
            metrics.record_rollout(seconds)
        monitor.gather_counts(self.ranks)
        self._check_skipped(played, play.adds)
        self._check_judge(played.trajectories)
        return played

    async def abandon(self) -> None:
        """Ends every play that has begun and was not finished."""
        while self._open_plays:
            await self._open_plays.pop().abandon()

    async def _play_all(
        self, play: Ongoing, at_once: int, report: Callable[[int, list[Trajectory]], None]
    ) -> list[None]:
        """Plays the questions of this rank that are left. report: as `on_group` of `begin`."""
        left = [question for question in play.own if question.id not in play.found]
        prefetched = 0
        prefetching: asyncio.Task[None] | None = None

        async def play_one(number: int) -> None:
            nonlocal prefetched, prefetching
            async with self._places.of(play.step):
                if number >= prefetched:  # the prompts that start with this one are encoded together
                    prefetched = number + at_once
                    prefetching = asyncio.create_task(self._prefetch(left[number:prefetched]))
                if prefetching is not None:
                    await prefetching
                played = await self._group(left[number], play)
            play.found[left[number].id] = played
            report(len(play.found), [] if isinstance(played, Skipped) else played)

        with self.timer.play():
            return await all_or_none(play_one(number) for number in range(len(left)))

    def take_too_old(self) -> int:
        """Trajectories of this rank that were played anew since the last call, because older weights had sampled them."""
        taken, self._too_old = self._too_old, 0
        return taken

    def shown(self, trajectories: Sequence[Trajectory]) -> dict[str, Image]:
        """The images that these trajectories show, by content hash, whichever rank met them. All ranks at once."""
        wanted = {image for item in trajectories for image in trajectory_zip.shown(item)}
        own = {image: self.images[image] for image in wanted & self.images.keys()}
        return {digest: found for met in self.ranks.gather(own) for digest, found in met.items()}

    @contextlib.asynccontextmanager
    async def _journal(
        self, questions: Sequence[Question], policy: str, step: int, weights: str
    ) -> AsyncIterator[PlayJournal]:
        if self.journals is None:
            yield PlayJournal()
            return
        opened = self.journals.open(
            self.ranks, questions, policy=policy, step=step, weights=weights, whole=self.shown_of
        )
        async with opened as journal:
            yield journal

    def _taken(self, play: Ongoing) -> Iterator[tuple[str, list[Trajectory]]]:
        """Questions that an earlier attempt has judged and of which outlines suffice, with these."""
        for question in play.own:
            taken = None if self._is_whole(question) else play.journal.outlines(question, play.samples)
            if taken is not None:
                yield question.id, taken

    def _is_whole(self, question: Question) -> bool:
        """Whether the question's trajectories are kept with tokens and texts."""
        return self.shown_of is None or question.id in self.shown_of

    async def _prefetch(self, questions: Sequence[Question]) -> None:
        images = []
        for question in questions:
            try:
                images.append(await self.pool.image(question))
            except QuestionSkipped:
                continue  # reported when the question's turn comes
        self.engine.prefetch(images)

    async def _group(self, question: Question, play: Ongoing) -> list[Trajectory] | Skipped:
        """The trajectories of a question."""
        facts = {"policy": play.policy, "step": play.step, "level": self.levels.get(question.id, "")}
        resumed = play.within_bound(await play.journal.resumed(question, play.samples))
        try:
            with self.timer.episode():
                image = await self.pool.image(question)
                sessions = await self._open(question, image, play.step, resumed)
        except QuestionSkipped as error:
            return Skipped(question.id, error.sentence())
        try:
            group = await all_or_none(
                self._sample(question, image, sessions[sample], {**facts, "sample": sample}, resumed[sample], play)
                for sample in range(play.samples)
            )
            self._count(group, resumed)
            return group
        except QuestionSkipped as error:  # an image that a tool returned
            return Skipped(question.id, error.sentence())
        finally:
            for session in sessions:  # an episode that was cancelled before it started has not closed its own
                session.close()

    async def _open(
        self, question: Question, image: Image, step: int, resumed: Sequence[Resumed | None]
    ) -> list[Session]:
        """A session for each sample; one that ended in an earlier attempt needs no place in the engine."""
        text = prompts.prompt(question.question, style=self.engine.style, tools=self.tools, gaze=self.settings.gaze)
        seeds = [(self.seed, step, zlib.crc32(question.id.encode()), sample) for sample in range(len(resumed))]
        going = [sample for sample, each in enumerate(resumed) if each is None or each.found.stop is None]
        earlier = [each.found.segments if each is not None else () for each in (resumed[sample] for sample in going)]
        shown = {name: found for each in resumed if each is not None for name, found in each.images.items()}
        if shown:
            self.engine.prefetch(list(shown.values()))  # the trainer needs their features, too
        opened: Sequence[Session] = ()
        if going:
            opened = await self.engine.open(
                text,
                [image, *shown.values()],
                [seeds[sample] for sample in going],
                suppress=self._forbidden_tags(),
                resume=earlier if any(earlier) else None,
            )
        sessions = dict(zip(going, opened, strict=True))
        return [
            sessions.get(sample) or ended.EndedSession(each.found.segments if each is not None else ())
            for sample, each in enumerate(resumed)
        ]

    async def _sample(
        self,
        question: Question,
        image: Image,
        session: Session,
        facts: Mapping[str, object],
        resumed: Resumed | None,
        play: Ongoing,
    ) -> Trajectory:
        """One trajectory with its facts: policy, step, sample, level."""
        whole = self._is_whole(question)
        sample = int(str(facts["sample"]))
        name = f"{facts['policy']}-{facts['step']}-{question.id}-{sample}"
        if resumed is not None and resumed.found.trajectory is not None:
            if whole:
                play.images |= {image.hash: image, **resumed.images}
            return resumed.found.trajectory.model_copy(update=dict(facts))
        line = play.journal.line(question, sample, resumed, self.weights)
        episode = Episode(
            question, image, session, self.toolbox, self.settings, self.engine.style, tools=self.tools, keeper=line,
            workflow=self.workflow, waiting=lambda: self.timer.episode_waits("tools"),
        )  # fmt: skip
        if resumed is not None:
            episode.restore(resumed.found, resumed.images)
        with self.timer.episode(name), self.tracer.episode(name) as span:
            try:
                trajectory = await episode.run()
            except NotFinite as error:
                raise UserError(f"trajectory {name}: {error.what}", where=error.where, remedy=error.remedy) from None
            trajectory = await self._judged(question, trajectory)
            trajectory = trajectory.model_copy(update={"id": name, **facts})
            span.record(trajectory)
        if whole:
            play.images.update(episode.images)
        if line is not None and trajectory.judge_failure is None:  # without a verdict the judge is called again
            line.end(trajectory)
        return trajectory if whole else outline(trajectory)

    def _forbidden_tags(self) -> tuple[str, ...]:
        """Opening tags of the tools that the policy may not use. Without an optional tool its tag may be written, and is
        refused like any other action that the run does not have."""
        allowed = {tool.tag for tool in catalog.TOOLS if tool.name in self.tools or (tool.optional and self.tools)}
        return tuple(f"<{tag}>" for tag in catalog.ACTION_TAGS if tag not in allowed)

    async def _judged(self, question: Question, trajectory: Trajectory) -> Trajectory:
        """Rewards a trajectory, and records whether it counts."""
        accuracy: float | None = 0.0
        if trajectory.answer is not None:
            verdict = await verdicts.ask(self.toolbox, question, trajectory.answer, self.timer)
            accuracy = None if verdict.value is None else float(verdict.value)
            given = {
                "judge_failure": verdict.failure_record,
                "judge_decisions": verdict.decisions,
                "judge_usd": verdict.usd,
            }
            trajectory = trajectory.model_copy(update=given)
        reward = self.scoring.reward(trajectory, accuracy, max_tokens=self.settings.max_tokens)
        trajectory = trajectory.model_copy(update={"reward": reward})
        excluded = failure_rules.excluded(trajectory, self.scoring.tool_failures)
        return trajectory.model_copy(update={"excluded": excluded})

    def _count(self, group: Sequence[Trajectory], resumed: Sequence[Resumed | None]) -> None:
        """Counts the trajectories of a group by what becomes of them in it; earlier attempts have counted their own."""
        treated = failure_rules.treat(group, failure_rules.Settings(self.scoring.tool_failures))
        for each, earlier in zip(treated, resumed, strict=True):
            if earlier is None or earlier.found.trajectory is None:
                status = "counted" if not each.excluded else "judge" if each.excluded == "judge" else "tool_failure"
                metrics.record_trajectory(self.stage, status)

    def _check_skipped(self, played: Played, refill: bool) -> None:
        """Logs the questions that were skipped for the first time. Raises UserError where nothing else was played."""
        for each in played.skipped:
            if each.question_id not in self.skipped:
                self.skipped[each.question_id] = each.reason
                self.log(f"question {each.question_id} is skipped: {each.reason}")
                if self.ranks.is_main:
                    metrics.record_skipped(self.stage)
        if played.skipped and not played.groups and not refill:
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

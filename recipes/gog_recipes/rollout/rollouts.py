"""Questions in, judged trajectories out: every episode of a step at once, in one event loop.

A group is one question's samples. Groups start as rows of the engine become free; each episode plays on its own; the
judge is asked as soon as an answer is there. Order in = order out, whatever finished first. With several ranks each
plays its share of the questions, and all of them get all trajectories.
"""

from __future__ import annotations

import asyncio
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from gog import behaviour, catalog, images, judging, metrics, rewards, stats, tracing, trajectory_zip
from gog.agent import Episode
from gog.dataset import Question
from gog.images import Image
from gog.spec import AgentSettings
from gog.tool_actions import SEARCH_TOOLS
from gog.tool_client import Toolbox
from gog.trajectory import Failure, Trajectory
from gog_recipes.rollout.transformers import TransformersEngine, TransformersSession
from gog_recipes.runtime import monitor
from gog_recipes.runtime.ranks import SINGLE, Ranks

RECENT_VERDICTS = 200
"""Answers over which the judge's success is taken, at least."""
SEARCH_TAGS = tuple(f"<{tag}>" for tag in catalog.ACTION_TAGS)


@dataclass(frozen=True)
class QuestionPool:
    """Questions with their images, which are read when first asked for and kept."""

    folder: Path
    questions: Sequence[Question]
    _images: dict[str, Image] = field(default_factory=dict)

    def image(self, question: Question) -> Image:
        if question.image not in self._images:
            self._images[question.image] = images.read(self.folder / question.image)
        return self._images[question.image]


@dataclass(frozen=True)
class RewardConfig:
    """How a trajectory is rewarded; see gog.rewards. failures: mask, drop or keep."""

    format_weight: float = 0.1
    search_penalty: float = 0.0
    failures: str = "mask"


@dataclass
class Rollouts:
    """Plays questions with one engine and one toolbox.

    seed, step and question decide the sampling noise, so a repeated step repeats its samples. answer_only: the policy
    may not search (direct answering). levels: of difficulty, by question id, where they are known.
    """

    engine: TransformersEngine
    toolbox: Toolbox
    settings: AgentSettings
    pool: QuestionPool
    stage: str
    seed: int
    scoring: RewardConfig = RewardConfig()
    answer_only: bool = False
    ranks: Ranks = SINGLE
    tracer: tracing.NoopTracer = tracing.NOOP
    levels: Mapping[str, str] = field(default_factory=dict)
    images: dict[str, Image] = field(default_factory=dict)
    _verdicts: list[Failure | None] = field(default_factory=list)

    def __post_init__(self) -> None:
        metrics.initialise_rollouts(self.stage)

    async def play(
        self,
        questions: Sequence[Question],
        samples: int,
        *,
        step: int,
        policy: str,
        on_group: Callable[[int, list[Trajectory]], None] | None = None,
    ) -> list[list[Trajectory]]:
        """One group of `samples` trajectories per question. Raises UserError when the judge fails too often.

        on_group: called with the number of groups done and the newest, as they finish; of this rank only.
        """
        begun = time.monotonic()
        self.images, questions = {}, self.ranks.shard(questions)
        at_once = max(1, self.engine.decoder.rows // samples)
        slots, done = asyncio.Semaphore(at_once), 0

        async def group(number: int) -> list[Trajectory]:
            nonlocal done
            async with slots:
                if self.pool.image(questions[number]).hash not in self.engine.vision:
                    coming = questions[number : number + at_once]  # their prompts will be wanted soon: one wide pass
                    self.engine.vision.add([self.pool.image(question) for question in coming])
                played = await self._group(questions[number], samples, step, policy)
            done += 1
            if on_group is not None:
                on_group(done, played)
            return played

        own = await asyncio.gather(*(group(number) for number in range(len(questions))))
        groups = self.ranks.unshard(own)
        if self.ranks.is_main:
            metrics.record_rollout(time.monotonic() - begun)
        monitor.put_together(self.ranks)
        self._check_judge([trajectory for group in groups for trajectory in group])
        return groups

    def shown(self, trajectories: Sequence[Trajectory]) -> dict[str, Image]:
        """The images that these trajectories show, whichever rank met them; by content hash."""
        wanted = {image for item in trajectories for image in trajectory_zip.shown(item)}
        own = {image: self.images[image] for image in wanted & self.images.keys()}
        return {digest: found for met in self.ranks.gather(own) for digest, found in met.items()}

    async def _group(self, question: Question, samples: int, step: int, policy: str) -> list[Trajectory]:
        image = self.pool.image(question)
        seeds = [(self.seed, step, zlib.crc32(question.id.encode()), sample) for sample in range(samples)]
        forbidden = SEARCH_TAGS if self.answer_only else ()
        tools, gaze = self._tools(), self.settings.gaze
        sessions = self.engine.open(question.question, image, seeds, forbidden_tags=forbidden, tools=tools, gaze=gaze)

        async def play(sample: int, session: TransformersSession) -> Trajectory:
            name = f"{policy}-{step}-{question.id}-{sample}"
            with self.tracer.episode(name) as span:
                trajectory = await self._episode(question, image, session)
                level = self.levels.get(question.id, "")
                named = {"id": name, "policy": policy, "step": step, "sample": sample, "level": level}
                trajectory = trajectory.model_copy(update=named)
                span.record(trajectory)
            return trajectory

        return await asyncio.gather(*(play(sample, session) for sample, session in enumerate(sessions)))

    async def _episode(self, question: Question, image: Image, session: TransformersSession) -> Trajectory:
        style, tools = self.engine.processor.style, self._tools()
        episode = Episode(question, image, session, self.toolbox, self.settings, style, tools=tools)
        trajectory = await episode.run()
        self.images.update(episode.images)
        accuracy: float | None = 0.0
        if trajectory.answer is not None:
            verdict = await self.toolbox.judge(question.question, question.answers, trajectory.answer)
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

    def _tools(self) -> frozenset[str]:
        """Names of the tools that the policy may use."""
        return frozenset() if self.answer_only else SEARCH_TOOLS

    def _check_judge(self, trajectories: Sequence[Trajectory]) -> None:
        """Looks at these verdicts, and at earlier ones where these are few."""
        verdicts = [item.judge_failure for item in trajectories if item.answer is not None]
        self._verdicts = [*self._verdicts, *verdicts][-max(RECENT_VERDICTS, len(verdicts)) :]
        judging.check(self._verdicts)


@dataclass(frozen=True)
class RolloutStats:
    """What a set of trajectories came to; shares and means over all of them unless said otherwise."""

    n: int
    accuracy: float
    format: float
    reward: float
    reward_std: float
    tool_calls: float
    tool_failure_ratio: float
    excluded: int
    choice_accuracy: float | None
    behaviour: dict[str, float]


def measure(trajectories: Sequence[Trajectory]) -> RolloutStats:
    """Accuracy, format and reward over the counted trajectories; calls, failures and behaviour over all."""
    counted = [item.reward for item in trajectories if not item.excluded and item.reward is not None]
    totals = [reward.total for reward in counted if reward.total is not None]
    calls = sum(item.tool_calls for item in trajectories)
    failed = sum(len(item.failures) for item in trajectories)
    choices = [right for item in trajectories if (right := behaviour.chose_right(item)) is not None]
    mean_reward = stats.mean(totals)
    return RolloutStats(
        n=len(trajectories),
        accuracy=stats.mean([reward.accuracy or 0.0 for reward in counted]),
        format=stats.mean([reward.format for reward in counted]),
        reward=mean_reward,
        reward_std=stats.mean([(total - mean_reward) ** 2 for total in totals]) ** 0.5,
        tool_calls=calls / max(1, len(trajectories)),
        tool_failure_ratio=failed / max(1, calls),
        excluded=len(trajectories) - len(counted),
        choice_accuracy=stats.mean([float(right) for right in choices]) if choices else None,
        behaviour={name: round(share, 4) for name, share in behaviour.shares(trajectories).items()},
    )

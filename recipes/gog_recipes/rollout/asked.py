"""A model behind a chat endpoint at work for a curation: answers without search, and whole demonstrations with tools.

Both are plays of `Rollouts`, so turns and verdicts are journalled, outages waited out, and costs counted, as everywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from gog import catalog
from gog.dataset import Question
from gog.engine import Limits
from gog.images import Image
from gog.spec import CurateConfig
from gog.tool_client import Toolbox
from gog.trajectory import Trajectory
from gog_recipes.rollout.chat import ChatEngine
from gog_recipes.rollout.played import Played
from gog_recipes.rollout.question_pool import QuestionPool
from gog_recipes.rollout.rollouts import Rollouts
from gog_recipes.rollout.scoring import RewardConfig
from gog_recipes.runtime.stage import Stage

ANSWERS, TEACHER = "uncertainty", "teacher"
"""Names of the two policies in journals and trajectories."""


class Asked:
    """The endpoint of a curation.

    Args:
        cfg: of the stage; its endpoint is set.
        stage: the stage.
        toolbox: tools and judge.
        folder: of the dataset.
    """

    def __init__(self, cfg: CurateConfig, stage: Stage, toolbox: Toolbox, folder: Path) -> None:
        assert cfg.endpoint is not None, "its settings require one"
        update = {"max_tokens": cfg.endpoint.context_tokens, "max_turn_tokens": cfg.endpoint.max_tokens}
        self.cfg, self.stage, self.toolbox = cfg.model_copy(update=update), stage, toolbox
        self.endpoint, self.folder = cfg.endpoint, folder
        self.images: dict[str, Image] = {}
        self.skipped: dict[str, str] = {}

    async def verdicts(
        self, questions: Sequence[Question], samples: int, done: Callable[[int], None]
    ) -> dict[str, list[float | None]]:
        """Verdicts on the model's answers without search, by question id.

        Args:
            questions: what is asked.
            samples: answers per question.
            done: called with the number of questions that are done.
        """
        played = await self._play(questions, samples, ANSWERS, done, direct=True)
        return {
            group[0].question_id: [item.reward.accuracy if item.reward is not None else None for item in group]
            for group in played.groups
        }

    async def demonstrations(
        self, questions: Sequence[Question], attempts: int, done: Callable[[int], None]
    ) -> dict[str, list[Trajectory]]:
        """The model's judged episodes with the run's tools, by question id, as text: SFT tokenizes them.

        Args:
            questions: what is asked.
            attempts: episodes per question.
            done: called with the number of questions that are done.
        """
        played = await self._play(questions, attempts, TEACHER, done, direct=False)
        return {
            group[0].question_id: [item.model_copy(update={"segments": ()}) for item in group]
            for group in played.groups
        }

    async def _play(
        self, questions: Sequence[Question], samples: int, policy: str, done: Callable[[int], None], *, direct: bool
    ) -> Played:
        limits = Limits(self.cfg.max_tokens, self.cfg.max_turn_tokens, self.cfg.temperature)
        engine = ChatEngine(self.endpoint, limits, self.cfg.concurrent_episodes, self.stage)
        rollouts = Rollouts(
            engine,
            self.toolbox,
            self.cfg,
            QuestionPool(self.folder, questions),
            self.stage.key,
            self.cfg.seed,
            RewardConfig(tool_failures="keep"),
            direct,
            tracer=self.stage.tracer,
            shown_of=() if direct else None,
            log=self.stage.log,
            journals=self.stage.journals([], needs_model=False),
            interruption=self.stage.interruption,
            tools=catalog.offered(self.cfg.endpoints),
        )
        try:
            played = await rollouts.play(
                questions, samples, step=0, policy=policy, on_group=lambda count, group: done(count)
            )
        finally:
            await engine.close()
        self.images.update(rollouts.images)
        self.skipped |= rollouts.skipped
        return played

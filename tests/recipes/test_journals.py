"""Rollouts that resume from the journal: what an earlier process finished is neither sampled, called nor judged again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from PIL import Image as PILImage
from support.builders import FakeTools, answer, gaze, ground, make_grounding, make_image, make_question
from support.scripted_engine import ScriptedEngine

from gog.dataset import Question
from gog.spec import AgentSettings
from gog.store import Store
from gog.tool_types import FailureKind, Reply, ToolFailure
from gog.trajectory import Trajectory
from gog_recipes.rollout import journals
from gog_recipes.rollout.journals import Journals
from gog_recipes.rollout.ongoing import Ongoing
from gog_recipes.rollout.played import Played
from gog_recipes.rollout.question_pool import QuestionPool
from gog_recipes.rollout.rollouts import Rollouts
from gog_recipes.runtime.interruption import Interrupted, Interruption
from gog_recipes.runtime.ranks import Ranks

TURNS = [ground(), gaze(2), answer("Ada")]


class Killed(BaseException):
    """The process ends here."""


@dataclass
class Services(FakeTools):
    """Tools and a judge of which the n-th call kills the process."""

    killed_at: int = 0
    """Number of the call, tools and judge together, that kills the process; 0 for none."""
    judged: list[str] = field(default_factory=list)
    """The questions that the judge was asked about."""
    verdicts: list[bool | None] = field(default_factory=list)
    """Its first verdicts; None for a failure. Later ones are right answers."""

    def _reply(self, tool: str, asked: str, found: Any) -> Any:
        self._count()
        return super()._reply(tool, asked, found)

    async def judge(self, question: str, answers: Sequence[str], answer: str) -> Reply[bool]:
        self._count()
        self.judged.append(question)
        verdict = self.verdicts.pop(0) if self.verdicts else answer in answers
        if verdict is None:
            return Reply(None, ToolFailure("judge", FailureKind.UNDECIDED, "perhaps"), attempts=1)
        return Reply(verdict, attempts=1)

    def _count(self) -> None:
        if self.killed_at and len(self.calls) + len(self.judged) + 1 >= self.killed_at:
            raise Killed


@dataclass
class Attempt:
    """A process that plays the questions, with a journal in the store."""

    folder: Path
    killed_at: int = 0
    decided_by: str = "settings"
    ranks: Ranks = field(default_factory=Ranks)
    shown_of: Any = None
    verdicts: list[bool | None] = field(default_factory=list)
    turns: Callable[[str, Any], Sequence[str]] = lambda prompt, seed: TURNS
    samples: int = 2

    def __post_init__(self) -> None:
        self.lines: list[str] = []
        self.engine = ScriptedEngine(self.turns)
        self.services = Services(grounding=make_grounding(3), killed_at=self.killed_at, verdicts=self.verdicts)
        self.store = Store(self.folder / "store")
        self.rollouts = Rollouts(
            self.engine,
            self.services,
            AgentSettings(),
            QuestionPool(self.folder, questions()),
            "test",
            seed=3,
            ranks=self.ranks,
            shown_of=self.shown_of,
            journals=Journals(self.store, "test", self.decided_by, pause=0.0),
            log=self.lines.append,
        )

    def play(self, *, step: int = 1, weights: str = "w") -> Played:
        return asyncio.run(
            self.rollouts.play(self.rollouts.pool.questions, self.samples, step=step, policy="sft", weights=weights)
        )

    def dies(self) -> Attempt:
        with pytest.raises(Killed):
            self.play()
        return self

    @property
    def generated(self) -> int:
        """Turns that were sampled."""
        return self.engine.counters["steps"]


def questions() -> list[Question]:
    return [make_question(f"q{n}", image=f"q{n}.png", question=f"question {n} ?") for n in range(3)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number in range(3):
        PILImage.fromarray(make_image(number).pixels).save(tmp_path / f"q{number}.png")
    return tmp_path


def comparable(played: Played) -> list[Trajectory]:
    return [
        item.model_copy(
            update={"seconds": 0.0, "turns": tuple(t.model_copy(update={"seconds": 0.0}) for t in item.turns)}
        )
        for item in played.trajectories
    ]


@pytest.mark.parametrize("call", range(1, 19))
def test_killed_at_any_call_the_next_process_ends_with_the_same_trajectories(folder: Path, call: int) -> None:
    straight = Attempt(folder, decided_by="another").play()
    killed = Attempt(folder, killed_at=call).dies()
    resumed = Attempt(folder)
    assert comparable(resumed.play()) == comparable(Played(straight.groups, straight.own, straight.skipped))
    calls = len(killed.services.calls) + len(resumed.services.calls)
    assert 12 <= calls <= 12 + 6, "of each episode at most the call under way is repeated"


def test_what_was_judged_is_not_judged_again(folder: Path) -> None:
    killed = Attempt(folder, killed_at=16).dies()
    resumed = Attempt(folder)
    resumed.play()
    assert len(killed.services.judged) >= 3
    assert len(killed.services.judged) + len(resumed.services.judged) == 6


def test_a_second_process_that_finds_everything_done_samples_and_calls_nothing(folder: Path) -> None:
    first = Attempt(folder)
    whole = first.play()
    again = Attempt(folder)
    assert comparable(again.play()) == comparable(whole)
    assert (again.generated, again.services.calls, again.services.judged) == (0, [], [])
    assert again.rollouts.images.keys() == first.rollouts.images.keys()


@pytest.mark.parametrize(
    ("call", "line"),
    [
        (3, "resumed step 1: 0 trajectories finished, 3 turns taken over, 3 to play"),
        (5, "resumed step 1: 1 trajectory finished, 2 turns taken over, 2 to play"),
        (0, "resumed step 1: 3 trajectories finished, 0 turns taken over, 0 to play"),
    ],
)
def test_a_resumed_play_logs_what_it_took_over_in_one_line(folder: Path, call: int, line: str) -> None:
    first = Attempt(folder, killed_at=call, samples=1)
    first.engine.capacity = first.engine.places = 1  # one episode after the other, whichever turn is durable first
    first.dies() if call else first.play()
    resumed = Attempt(folder, samples=1)
    resumed.play()
    assert (first.lines, resumed.lines) == ([], [line])


def test_a_resumed_play_of_several_ranks_logs_the_sum(folder: Path) -> None:
    class Two(Ranks):
        def gather(self, item: Any) -> list[Any]:
            return [item, (1, 2, 4)]

    Attempt(folder).play()
    line = asyncio.run(_resumed_line(Attempt(folder, ranks=Two(0, 1))))
    assert line == "resumed sft: 7 trajectories finished, 2 turns taken over, 3 to play"


async def _resumed_line(attempt: Attempt) -> str:
    rollouts = attempt.rollouts
    async with rollouts._journal(rollouts.pool.questions, "sft", 1, "w") as journal:
        return await journals.resumed_line(journal, attempt.ranks, rollouts.pool.questions, 2, "sft")


def test_no_turn_that_was_finished_is_sampled_again(folder: Path) -> None:
    killed = Attempt(folder, killed_at=9).dies()
    resumed = Attempt(folder)
    resumed.play()
    assert killed.generated + resumed.generated <= 18 + 6, "of each episode at most one turn is lost"


@pytest.mark.parametrize("other", [{"decided_by": "other settings"}, {"weights": "other"}, {"step": 2}], ids=str)
def test_a_journal_of_other_settings_weights_or_another_step_is_not_used(folder: Path, other: dict[str, Any]) -> None:
    Attempt(folder).play()
    stale = dict(other)
    attempt = Attempt(folder, decided_by=stale.pop("decided_by", "settings"))
    attempt.play(**stale)
    assert attempt.generated == 18


def test_a_step_that_is_played_again_in_one_process_is_played_anew(folder: Path) -> None:
    attempt = Attempt(folder)
    attempt.play()
    attempt.play()
    assert attempt.generated == 36


def test_after_a_second_play_a_restart_resumes_the_second_one(folder: Path) -> None:
    first = Attempt(folder, turns=lambda prompt, seed: [answer("Bob")])
    first.play()
    first.services.killed_at = 9
    first.engine.script = lambda prompt, seed: TURNS
    first.dies()
    trajectories = Attempt(folder).play().trajectories
    assert {item.answer for item in trajectories} == {"Ada"}


def test_an_answer_without_a_verdict_is_judged_again_and_nothing_else(folder: Path) -> None:
    first = Attempt(folder, verdicts=[True, None, True])
    assert sum(item.judge_failure is not None for item in first.play().trajectories) == 1
    second = Attempt(folder)
    played = second.play()
    assert [item.judge_failure for item in played.trajectories] == [None] * 6
    assert (second.generated, second.services.calls, len(second.services.judged)) == (0, [], 1)


def test_of_questions_that_will_not_be_shown_only_outlines_are_kept_and_resumed(folder: Path) -> None:
    first = Attempt(folder, shown_of={"q1"})
    played, again = first.play(), Attempt(folder, shown_of={"q1"}).play()
    for result in (played, again):
        assert [bool(item.segments) for item in result.trajectories] == [False, False, True, True, False, False]
    assert comparable(again) == comparable(played)


def test_a_damaged_journal_costs_what_it_held_and_no_more(folder: Path) -> None:
    straight = Attempt(folder).play()
    store = Store(folder / "store")
    last = store.objects("journal/")[-1]
    path = folder / "store" / last.key
    path.write_bytes(path.read_bytes()[:-5])
    again = Attempt(folder)
    assert comparable(again.play()) == comparable(straight)
    assert 0 < again.generated + len(again.services.judged) < 18


class Platform(Services):
    """Asks the process to end at the second tool call."""

    interruption: Interruption

    def _count(self) -> None:
        if len(self.calls) == 1:
            self.interruption.request()


def test_an_interrupted_play_starts_no_more_episodes_and_loses_no_finished_turn(folder: Path) -> None:
    first = Attempt(folder)
    first.engine.capacity = first.engine.places = 2
    first.rollouts.toolbox = Platform(grounding=make_grounding(3))
    first.rollouts.toolbox.interruption = first.rollouts.interruption
    with pytest.raises(Interrupted):
        first.play()
    assert all(session.closed for session in first.engine.sessions) and len(first.engine.sessions) == 2
    second = Attempt(folder)
    second.play()
    assert 18 <= first.generated + second.generated <= 18 + 2


@dataclass(frozen=True)
class OneOf(Ranks):
    """One of several ranks, which exchanges nothing."""

    def gather(self, item: Any) -> list[Any]:
        return [item] if not isinstance(item, list) else [item] + [[]] * (self.size - 1)

    def broadcast(self, item: Any) -> Any:
        return FIRST.setdefault(self.size, item) if not self.is_main else FIRST.__setitem__(self.size, item) or item


FIRST: dict[int, Any] = {}
"""What rank 0 sent last, by number of ranks."""


def test_another_number_of_ranks_takes_over_what_earlier_ranks_left(folder: Path) -> None:
    for rank in range(2):
        attempt = Attempt(folder, ranks=OneOf(rank, 2))
        asyncio.run(_own_share(attempt))
    alone = Attempt(folder)
    alone.play()
    assert (alone.generated, alone.services.judged) == (0, [])


async def _own_share(attempt: Attempt) -> None:
    """Plays one rank's questions, without the exchange that ends a play."""
    rollouts = attempt.rollouts
    own = rollouts.ranks.shard(rollouts.pool.questions)
    async with rollouts._journal(own, "sft", 1, "w") as journal:
        for question in own:
            await rollouts._group(question, Ongoing(own, 2, 1, "sft", journal, begun=0))

"""Where the wall time of a step goes: every moment is one part's, whatever overlaps."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from PIL import Image as PILImage
from support.builders import answer, make_image, make_question, now, run, text_search
from support.scripted_engine import ScriptedEngine
from support.services import FakeServices

from gog import step_metrics
from gog.spec import AgentSettings
from gog_recipes.rollout.question_pool import QuestionPool
from gog_recipes.rollout.rollouts import Rollouts
from gog_recipes.runtime import timers
from gog_recipes.runtime.timers import StepTimer, StepTimes


class Clock:
    """A clock that stands still but for `sleep`."""

    now = 100.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def test_a_part_within_a_part_has_its_own_time() -> None:
    clock = Clock()
    timer = StepTimer(clock)
    with timer.part("train"):
        clock.sleep(2)
        with timer.part("reference"):
            clock.sleep(3)
        clock.sleep(4)
    with timer.part("sync"):
        clock.sleep(1)
    found = timer.take()
    assert found.parts == {"idle": 0, "train": 6, "reference": 3, "sync": 1} and found.total == 10


def test_the_parts_of_a_step_add_up_to_its_wall_time_and_the_next_one_begins_at_its_end() -> None:
    clock = Clock()
    timer = StepTimer(clock)
    with timer.part("other"):
        for seconds in (0.1, 0.7):
            clock.sleep(seconds)
            with timer.waiting(), timer.play(), timer.episode():
                clock.sleep(seconds)
            clock.sleep(seconds)
            assert timer.take().parts == pytest.approx({"other": 2 * seconds, "rollout": seconds, "idle": 0}, abs=1e-9)


def test_a_rank_that_waits_for_others_is_idle_in_the_middle_of_its_update() -> None:
    clock = Clock()
    timer = StepTimer(clock)
    with timer.part("train"):
        clock.sleep(5)
        with timer.waiting():
            clock.sleep(2)
    found = timer.take()
    assert (found.parts["train"], found.parts["idle"], found.busy, found.trainer) == (5, 2, 5, 5)


def test_time_is_waiting_for_tools_only_while_no_episode_can_proceed() -> None:
    clock = Clock()
    timer = StepTimer(clock)
    with timer.play():
        with timer.episode():
            with timer.episode(), timer.episode_waits("tools"):
                clock.sleep(1)  # the other one is sampled meanwhile
            with timer.episode_waits("judge"):
                clock.sleep(2)
                with timer.episode(), timer.episode_waits("tools"):
                    clock.sleep(4)
        found = timer.take()
    assert (found.parts["rollout"], found.parts["judge"], found.parts["tools"]) == (1, 2, 4)
    assert found.tools_overlapped == 1 and found.engine == 1


def test_what_the_trainer_does_comes_first_and_hides_the_rollouts() -> None:
    clock = Clock()
    timer = StepTimer(clock)
    with timer.play(), timer.episode(), timer.part("train"):
        clock.sleep(3)  # the engine samples in the background
        with timer.episode_waits("tools"):
            clock.sleep(5)
        with timer.waiting():
            clock.sleep(2)
    found = timer.take()
    assert found.parts["train"] == 8 and found.parts["rollout"] == 2
    assert (found.engine, found.tools_overlapped) == (5, 5)
    expected = {"trainer_idle": 0.2, "engine_idle": 0.5, "tools_overlapped_seconds": 5}
    assert timers.idle([found]) == pytest.approx(expected)


def test_the_slowest_rank_shows_beside_the_mean() -> None:
    fast = StepTimes({"rollout": 1.0, "train": 4.0, "idle": 5.0})
    slow = StepTimes({"rollout": 6.0, "train": 4.0})
    found = timers.figures([fast, slow])
    assert found["seconds"] == 10 and found["slowest_rank"] == 1
    assert (found["seconds_rollout"], found["seconds_idle"]) == (3.5, 2.5)
    assert (found["slowest_rollout"], found["slowest_train"]) == (6, 4) and "slowest_idle" not in found
    assert not [name for name in timers.figures([fast]) if name.startswith("slowest")]


def test_every_part_has_a_row_for_its_mean_and_for_the_slowest_rank() -> None:
    rows = {row.key for row in step_metrics.METRICS}
    every = StepTimes({part.name: 1.0 for part in step_metrics.PARTS})
    assert {*timers.figures([every, every]), *timers.idle([every])} <= rows


# ---- rollouts in fake time


class SlowServices(FakeServices):
    """Tools and a judge that take a stated time."""

    tool_seconds, judge_seconds = 0.0, 0.0

    async def search_text(self, query: str) -> Any:
        await asyncio.sleep(self.tool_seconds)
        return await super().search_text(query)

    async def judge(self, question: str, answers: Any, answer: str) -> Any:
        await asyncio.sleep(self.judge_seconds)
        return await super().judge(question, answers, answer)


def time_of(folder: Path, *, tool: float = 0.0, judge: float = 0.0, turns: list[float] | None = None) -> StepTimes:
    """Of a step whose questions are searched for once; turns: seconds that a turn of each question takes."""
    turns = turns or [1.0]
    asked = [make_question(f"q{n}", image=f"q{n}.png", question=f"question {n} ?") for n in range(len(turns))]
    for number in range(len(turns)):
        PILImage.fromarray(make_image(number).pixels).save(folder / f"q{number}.png")
    engine = ScriptedEngine(
        lambda prompt, seed: [text_search("the ring"), answer("Ada")],
        seconds=lambda prompt: turns[int(prompt.rpartition("question ")[2].split()[0])],
    )
    services = SlowServices()
    services.tool_seconds, services.judge_seconds = tool, judge

    async def play() -> StepTimes:
        timer = StepTimer(now)
        pool = QuestionPool(folder, asked)
        rollouts = Rollouts(engine, services, AgentSettings(), pool, "test", seed=3, timer=timer)
        await rollouts.play(asked, 2, step=1, policy="sft")
        found = timer.take()
        assert found.total == pytest.approx(now())
        return found

    return run(play())


def test_a_slow_tool_moves_time_to_tools_and_a_slow_judge_to_judge(tmp_path: Path) -> None:
    quick, slow, judged = time_of(tmp_path), time_of(tmp_path, tool=30.0), time_of(tmp_path, judge=7.0)
    assert quick.parts["rollout"] == slow.parts["rollout"] == judged.parts["rollout"] == pytest.approx(2.0)
    assert slow.parts["tools"] - quick.parts.get("tools", 0.0) == pytest.approx(30.0)
    assert judged.parts["judge"] - quick.parts["judge"] == pytest.approx(7.0)


def test_a_tool_that_is_hidden_behind_other_episodes_costs_no_time(tmp_path: Path) -> None:
    found = time_of(tmp_path, tool=3.0, turns=[1.0, 8.0])
    assert found.parts["rollout"] == pytest.approx(16.0)  # the other question's turns
    assert found.parts["tools"] == pytest.approx(3.0, abs=0.3) and found.tools_overlapped == pytest.approx(3.0, abs=0.3)

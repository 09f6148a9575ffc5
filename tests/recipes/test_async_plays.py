"""Plays that run ahead of the updates: when they begin, what they share, and what becomes of them when a stage ends."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image as PILImage
from support.builders import answer, ground, make_grounding, make_image, make_question, run
from support.scripted_engine import ScriptedEngine
from support.services import FakeServices

from gog.dataset import Question
from gog.spec import AgentSettings, GRPOConfig
from gog.store import Store
from gog_recipes.rollout import async_plays
from gog_recipes.rollout.async_plays import AsyncPlays
from gog_recipes.rollout.journals import Journals
from gog_recipes.rollout.ongoing import Ongoing
from gog_recipes.rollout.places import Places
from gog_recipes.rollout.question_pool import QuestionPool
from gog_recipes.rollout.rollouts import Rollouts
from gog_recipes.runtime.interruption import Interrupted, Interruption
from gog_recipes.runtime.timers import StepTimer

NEEDED = {"model": {"base": "tiny"}, "data": {"world": {}}, "store": {"uri": "file:///unused"}}


def stage(*, ends: bool = False) -> Any:
    return SimpleNamespace(is_interrupted=lambda: ends)


def begun(*, steps: int, bound: int, versions: list[int]) -> list[list[int]]:
    """The steps whose plays have begun at each version, where each step is learned as soon as it may be."""
    seen: list[int] = []

    async def begin(step: int) -> Ongoing:
        seen.append(step)
        return SimpleNamespace(step=step)  # type: ignore[return-value]

    async def train() -> list[list[int]]:
        ahead, found = AsyncPlays(begin, steps, bound), []
        for version in versions:
            await ahead.fill(version, stage())
            found.append(list(seen))
            taken = ahead.take(version)
            assert taken is not None and taken.step == version and ahead.take(version) is None
        return found

    return asyncio.run(train())


def test_a_play_begins_when_the_weights_are_at_most_the_bound_older_than_those_that_learn_from_it() -> None:
    assert begun(steps=9, bound=2, versions=[0, 1, 2]) == [[0, 1, 2], [0, 1, 2, 3], [0, 1, 2, 3, 4]]


def test_with_a_bound_of_0_a_play_begins_with_its_own_step() -> None:
    assert begun(steps=9, bound=0, versions=[0, 1, 2]) == [[0], [0, 1], [0, 1, 2]]


def test_no_play_begins_beyond_the_last_step() -> None:
    assert begun(steps=4, bound=2, versions=[2, 3]) == [[2, 3], [2, 3]]


def test_a_stage_that_was_asked_to_end_begins_nothing() -> None:
    ahead = AsyncPlays(lambda step: pytest.fail("it began"), 9, 2)
    with pytest.raises(Interrupted):
        asyncio.run(ahead.fill(0, stage(ends=True)))


def test_a_bound_of_0_in_a_manifest_is_refused_with_its_field() -> None:
    with pytest.raises(
        ValueError, match=r"async\.maxStaleness\n.*0 is the synchronous loop, the default: remove async"
    ):
        GRPOConfig.model_validate(NEEDED | {"async": {"maxStaleness": 0}})


def test_the_setting_is_read_in_both_spellings_and_is_off_by_default() -> None:
    assert GRPOConfig.model_validate(NEEDED).asynchronous is None
    for written in (
        {"async": {"maxStaleness": 3}},
        {"async": {"max_staleness": 3}},
        {"asynchronous": {"max_staleness": 3}},
    ):
        made = GRPOConfig.model_validate(NEEDED | written).asynchronous
        assert made is not None and made.max_staleness == 3


# ---- dividing the time


class Busy:
    """An engine for which turns wait until it has made so many steps, a second each."""

    def __init__(self, steps: int) -> None:
        self.left, self.now, self.held = steps, 0.0, 0

    @property
    def busy(self) -> bool:
        self.left, self.now = self.left - 1, self.now + 1
        return self.left >= 0

    async def hold(self) -> None:
        self.held += 1


def test_after_a_pass_the_engine_computes_as_long_as_the_pass_did_and_no_longer_than_turns_wait() -> None:
    def spent(engine: Any) -> float:
        asyncio.run(async_plays.yield_to(engine, 6.0, lambda: engine.now))
        return engine.now

    assert (spent(Busy(100)), spent(Busy(3))) == (6.0, 4.0)


def test_after_a_pass_episodes_go_on_to_their_next_requests_although_no_turn_waits_in_this_process() -> None:
    async def requests() -> int:
        sent = 0

        async def episode() -> None:
            nonlocal sent
            while True:  # an answer is read, images are prepared, the next request is built: in worker threads
                for _ in range(3):
                    await asyncio.to_thread(lambda: None)
                sent += 1

        playing = asyncio.create_task(episode())
        await async_plays.yield_to(Busy(0), 10.0)  # type: ignore[arg-type]
        playing.cancel()
        return sent

    assert asyncio.run(requests()) > 1


def test_turns_end_before_the_weights_change_and_the_update_gives_its_result() -> None:
    engine: Any = Busy(0)
    held: list[int] = []

    def parts() -> Iterator[bool]:
        for weights_change in (False, False, True):
            held.append(engine.held)
            yield weights_change
        held.append(engine.held)
        return "done"

    assert asyncio.run(async_plays.interleaved(parts(), engine, StepTimer())) == "done"  # type: ignore[arg-type]
    assert held == [0, 0, 0, 1]


# ---- plays of several steps at once


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number in range(6):
        PILImage.fromarray(make_image(number).pixels).save(tmp_path / f"q{number}.png")
    return tmp_path


def questions(first: int, count: int) -> list[Question]:
    return [make_question(f"q{n}", image=f"q{n}.png", question=f"question {n} ?") for n in range(first, first + count)]


def make_rollouts(folder: Path, engine: ScriptedEngine | None = None, **fields: Any) -> Rollouts:
    engine = engine or ScriptedEngine(lambda prompt, seed: [ground(), answer("Ada")])
    services = FakeServices(grounding=make_grounding(3))
    return Rollouts(engine, services, AgentSettings(), QuestionPool(folder, []), "test", seed=3, **fields)


async def begin(rollouts: Rollouts, step: int, asked: list[Question], **options: Any) -> Ongoing:
    return await rollouts.begin(asked, 2, step=step, policy="grpo", **options)


def test_a_later_step_is_played_while_an_earlier_one_waits_and_each_keeps_its_own_images(folder: Path) -> None:
    rollouts = make_rollouts(folder)

    async def play() -> tuple[bool, set[str], set[str]]:
        first, second = await begin(rollouts, 1, questions(0, 2)), await begin(rollouts, 2, questions(2, 2))
        await rollouts.finish(first)
        images, done = set(rollouts.images), second.is_done
        played = await rollouts.finish(second)
        assert [item.id for item in played.trajectories] == [f"grpo-2-q{n}-{k}" for n in (2, 3) for k in (0, 1)]
        return done, images, set(rollouts.images)

    done, images, later = run(play())
    assert done, "the second play went on while the first one was awaited"
    assert {make_image(n).hash for n in (0, 1)} <= images and {make_image(n).hash for n in (2, 3)} <= later
    assert not {make_image(n).hash for n in (2, 3)} & images


def test_plays_share_the_places_of_the_engine_and_earlier_steps_come_first(folder: Path) -> None:
    engine = ScriptedEngine(lambda prompt, seed: [answer("Ada")], capacity=4)  # two groups at once
    rollouts = make_rollouts(folder, engine)

    async def play() -> None:
        plays = [await begin(rollouts, step + 1, questions(2 * step, 2)) for step in range(3)]
        for each in plays:
            await rollouts.finish(each)

    run(play())
    opened = [session.seed[1] for session in engine.sessions]
    assert opened == sorted(opened) == [1] * 4 + [2] * 4 + [3] * 4


def test_what_is_added_to_an_earlier_step_comes_before_what_waits_of_a_later_one(folder: Path) -> None:
    engine = ScriptedEngine(lambda prompt, seed: [answer("Ada")], capacity=2, seconds=lambda prompt: 1.0)
    rollouts = make_rollouts(folder, engine)

    async def play() -> None:
        first, second = await begin(rollouts, 1, questions(0, 1)), await begin(rollouts, 2, questions(1, 3))
        await rollouts.finish(first)
        await rollouts.finish(await begin(rollouts, 1, questions(4, 1), refill=True))
        await rollouts.finish(second)

    run(play())
    assert [session.seed[1] for session in engine.sessions] == [1, 1, 2, 2, 1, 1, 2, 2, 2, 2]


def test_a_group_that_no_longer_waits_leaves_its_place_to_the_next() -> None:
    async def play() -> list[str]:
        places, entered = Places(1), []

        async def enter(step: int, name: str) -> None:
            async with places.of(step):
                entered.append(name)
                await asyncio.sleep(0)

        waiting = [asyncio.create_task(enter(step, name)) for step, name in ((1, "first"), (1, "gone"), (2, "next"))]
        await asyncio.sleep(0)
        waiting[1].cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        await enter(1, "free")
        return entered

    assert asyncio.run(play()) == ["first", "next", "free"]


def journalled(folder: Path, engine: ScriptedEngine | None = None, **fields: Any) -> Rollouts:
    journals = Journals(Store(folder / "store"), "test", "settings", pause=0.0, ahead=2)
    return make_rollouts(folder, engine, journals=journals, **fields)


def test_a_stage_that_is_asked_to_end_keeps_the_turns_of_every_play_in_flight(folder: Path) -> None:
    interruption = Interruption()

    def script(prompt: str, seed: Any) -> list[str]:
        if seed[1] == 2:
            interruption.request()
        return [ground(), answer("Ada")]

    first = journalled(folder, ScriptedEngine(script), interruption=interruption)

    async def ended() -> None:
        plays = [await begin(first, step, questions(2 * step - 2, 2)) for step in (1, 2)]
        with pytest.raises(Interrupted):
            await first.finish(plays[0])
        await first.abandon()

    asyncio.run(ended())
    engine = ScriptedEngine(lambda prompt, seed: [ground(), answer("Ada")])
    asyncio.run(both(journalled(folder, engine)))
    assert first.engine.counters["steps"] > 0  # type: ignore[attr-defined]
    assert first.engine.counters["steps"] + engine.counters["steps"] == 16  # type: ignore[attr-defined]


async def both(rollouts: Rollouts) -> None:
    for each in [await begin(rollouts, step, questions(2 * step - 2, 2)) for step in (1, 2)]:
        await rollouts.finish(each)


def test_what_older_weights_than_allowed_have_sampled_is_played_anew_and_counted(folder: Path) -> None:
    asyncio.run(both(journalled(folder)))
    engine = ScriptedEngine(lambda prompt, seed: [answer("Ada")])
    resumed = journalled(folder, engine)

    async def play(oldest: int) -> None:
        await resumed.finish(await begin(resumed, 1, questions(0, 2), oldest=oldest))

    asyncio.run(play(0))
    assert (engine.counters["steps"], resumed.take_too_old()) == (0, 0)
    resumed = journalled(folder, engine)
    asyncio.run(play(1))  # the scripted engine samples with version 0
    assert (engine.counters["steps"], resumed.take_too_old(), resumed.take_too_old()) == (4, 4, 0)


def test_a_step_is_played_anew_although_a_later_play_has_begun_since(folder: Path) -> None:
    """Where failures spoiled it. Its journal must not be read again."""
    engine = ScriptedEngine(lambda prompt, seed: [answer("Ada")])
    rollouts = journalled(folder, engine)

    async def play() -> None:
        first, second = await begin(rollouts, 1, questions(0, 2)), await begin(rollouts, 2, questions(2, 2))
        await rollouts.finish(first)
        await rollouts.finish(await begin(rollouts, 1, questions(0, 2)))
        await rollouts.finish(second)

    asyncio.run(play())
    assert engine.counters["steps"] == 12


def played_by(rollouts: Rollouts, **options: Any) -> list[list[bool]]:
    """Of each trajectory of a step, for each of its tokens whether the weights of version 0 sampled it."""

    async def play() -> list[list[bool]]:
        played = await rollouts.finish(await begin(rollouts, 1, questions(0, 1), **options))
        return [item.sampled_by(0) for item in played.trajectories]

    return asyncio.run(play())


@pytest.mark.parametrize(("weights", "own"), [("a", True), ("b", False)])
def test_a_resumed_turn_is_of_a_version_only_if_its_weights_are_those_of_this_attempt(
    folder: Path, weights: str, own: bool
) -> None:
    assert all(map(all, played_by(journalled(folder, weights={0: "a"}))))
    engine = ScriptedEngine(lambda prompt, seed: [ground(), answer("Ada")])
    resumed = played_by(journalled(folder, engine, weights={0: weights}))
    assert engine.counters["steps"] == 0 and resumed and all(each and set(each) == {own} for each in resumed)


def test_turns_that_continue_a_resumed_trajectory_are_of_the_present_weights(folder: Path) -> None:
    interruption = Interruption()

    def script(prompt: str, seed: Any) -> list[str]:
        interruption.request()
        return [ground(), answer("Ada")]

    first = journalled(folder, ScriptedEngine(script, seconds=lambda prompt: 0.01), weights={0: "a"})
    first.interruption = interruption

    async def ended() -> None:
        play = await begin(first, 1, questions(0, 1))
        await asyncio.sleep(0.015)  # one turn of each
        with pytest.raises(Interrupted):
            await first.finish(play)

    asyncio.run(ended())
    resumed = played_by(journalled(folder, weights={0: "b"}))
    assert resumed == [[False] * len(ground()) + [True] * len(answer("Ada"))] * 2
    again = played_by(journalled(folder, weights={0: "a"}))
    assert again == [[True] * len(ground()) + [False] * len(answer("Ada"))] * 2

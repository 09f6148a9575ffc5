"""Rollouts over the engine protocol, played with an engine that has no model and tools that are not there."""

from __future__ import annotations

import asyncio
import dataclasses
import subprocess
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as PILImage
from support.builders import answer, make_image, make_question, run, text_search, think
from support.scripted_engine import ScriptedEngine, glance_then_answer
from support.services import FakeServices, PricedServices, WatchedServices

from gog import catalog, images, metrics, outage
from gog.dataset import Question
from gog.errors import NotFinite, ServiceDown, UserError
from gog.images import Image
from gog.outage import Waiting
from gog.spec import AgentSettings
from gog.tool_types import FailureKind
from gog.trajectory import Trajectory
from gog_recipes.rollout.played import Played
from gog_recipes.rollout.question_pool import QuestionPool
from gog_recipes.rollout.rollouts import Rollouts
from gog_recipes.rollout.scoring import RewardConfig
from gog_recipes.runtime.ranks import Ranks


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A dataset folder with the images q0.png to q5.png."""
    for number in range(6):
        PILImage.fromarray(make_image(number).pixels).save(tmp_path / f"q{number}.png")
    return tmp_path


def questions(count: int) -> list[Question]:
    return [make_question(f"q{n}", image=f"q{n}.png", question=f"question {n} ?") for n in range(count)]


def make_rollouts(folder: Path, engine: ScriptedEngine | None = None, services: Any = None, **fields: Any) -> Rollouts:
    asked = fields.pop("questions", questions(6))
    settings = AgentSettings(**fields.pop("settings", {}))
    pool = QuestionPool(folder, asked)
    return Rollouts(engine or ScriptedEngine(), services or FakeServices(), settings, pool, "test", seed=3, **fields)


def play(rollouts: Rollouts, samples: int = 2, *, step: int = 1, **options: Any) -> Played:
    return run(rollouts.play(rollouts.pool.questions, samples, step=step, policy="sft", **options))


def ids(groups: Sequence[Sequence[Trajectory]]) -> list[list[str]]:
    return [[item.id for item in group] for group in groups]


# ---- playing


def test_decisions_and_costs_of_calls_are_recorded_in_the_trajectory(folder: Path) -> None:
    engine = ScriptedEngine(lambda prompt, seed: [text_search("the ring"), answer("Ada")])
    (trajectory, *_), *_ = play(make_rollouts(folder, engine, PricedServices())).groups
    seen = trajectory.turns[0].observation
    assert seen is not None and (seen.decisions, seen.waited, seen.usd) == (("waited", "retried"), 0.5, 0.01)
    assert (trajectory.judge_decisions, trajectory.judge_usd) == (("fell_back",), 0.002)
    assert trajectory.usd == pytest.approx(0.012)


def test_an_engine_without_a_model_plays_judged_trajectories(folder: Path) -> None:
    services = FakeServices()
    played = play(make_rollouts(folder, services=services, questions=questions(2)))
    assert ids(played.groups) == [["sft-1-q0-0", "sft-1-q0-1"], ["sft-1-q1-0", "sft-1-q1-1"]]
    assert [item.stop for item in played.trajectories] == ["answer"] * 4
    assert [item.reward.total for item in played.trajectories if item.reward] == [1.0] * 4
    assert services.asked("imageSearch") == [make_image(0).hash] * 2 + [make_image(1).hash] * 2
    assert services.judged == ["Ada"] * 4


def test_playing_needs_no_torch() -> None:
    program = "import sys, gog_recipes.rollout.rollouts; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_groups_keep_the_order_of_the_questions_whichever_ends_first(folder: Path) -> None:
    engine = ScriptedEngine(seconds=lambda prompt: 5.0 if "question 0" in prompt else 1.0)
    ended: list[tuple[int, str]] = []
    played = play(
        make_rollouts(folder, engine), on_group=lambda done, group: ended.append((done, group[0].question_id))
    )
    assert [group[0].question_id for group in played.groups] == [f"q{n}" for n in range(6)]
    assert ended[0] != (1, "q0") and [done for done, _ in ended] == [1, 2, 3, 4, 5, 6]


def test_no_more_conversations_are_open_than_the_engine_has_places(folder: Path) -> None:
    engine = ScriptedEngine(capacity=4, seconds=lambda _: 1.0)  # opening a fifth would raise
    assert len(play(make_rollouts(folder, engine)).trajectories) == 12
    assert engine.places == 4 and all(session.closed for session in engine.sessions)


def test_noise_depends_on_seed_step_question_and_sample_alone(folder: Path) -> None:
    def seeds(asked: list[Question], step: int) -> dict[tuple[str, int], Any]:
        engine = ScriptedEngine()
        play(make_rollouts(folder, engine, questions=asked), step=step)
        return {(each.prompt, each.seed[-1]): each.seed for each in engine.sessions}

    one, other = seeds(questions(3), 1), seeds(list(reversed(questions(3))), 1)
    assert one == other
    assert len(set(one.values())) == 6
    assert not set(one.values()) & set(seeds(questions(3), 2).values())


def test_images_of_prompts_are_announced_by_the_engines_width(folder: Path) -> None:
    engine = ScriptedEngine(capacity=4)
    play(make_rollouts(folder, engine))
    assert [[image.hash for image in images] for images in engine.prefetched] == [
        [make_image(n).hash, make_image(n + 1).hash] for n in (0, 2, 4)
    ]


def test_a_policy_that_may_only_answer_is_kept_from_every_search(folder: Path) -> None:
    engine, services = ScriptedEngine(), FakeServices()
    played = play(make_rollouts(folder, engine, services, questions=questions(1), answer_only=True))
    assert engine.suppressed == [tuple(f"<{tag}>" for tag in catalog.ACTION_TAGS)]
    assert {"<img_search>", "<text_search>"} <= set(engine.suppressed[0])
    assert services.calls == []
    assert [item.tool_calls for item in played.trajectories] == [0, 0]


def test_a_policy_that_may_search_has_nothing_suppressed(folder: Path) -> None:
    engine = ScriptedEngine()
    play(make_rollouts(folder, engine, questions=questions(1)))
    assert engine.suppressed == [()]


def test_images_are_kept_of_the_questions_that_will_be_shown(folder: Path) -> None:
    rollouts = make_rollouts(folder, shown_of={"q1"})
    played = play(rollouts)
    assert set(rollouts.images) == {make_image(1).hash}
    assert set(rollouts.shown(played.groups[1])) == {make_image(1).hash}


# ---- questions that cannot be played


def test_a_prompt_that_leaves_no_room_skips_its_question_alone(folder: Path) -> None:
    asked, lines = questions(3), []
    asked[1] = asked[1].model_copy(update={"question": "long " * 1000})
    rollouts = make_rollouts(folder, ScriptedEngine(limit=5000), questions=asked, log=lines.append)
    played = play(rollouts)
    assert [group[0].question_id for group in played.groups] == ["q0", "q2"]
    assert [each.question_id for each in played.skipped] == ["q1"]
    assert "the limit is 5000" in played.skipped[0].reason
    assert lines == [f"question q1 is skipped: {played.skipped[0].reason}"]


def test_a_question_is_reported_as_skipped_once_however_often_it_is_played(folder: Path) -> None:
    asked, lines = questions(2), []
    asked[1] = asked[1].model_copy(update={"image": "missing.png"})
    rollouts = make_rollouts(folder, questions=asked, log=lines.append)
    for step in (1, 2):
        assert [each.question_id for each in play(rollouts, step=step).skipped] == ["q1"]
    assert len(lines) == 1 and "missing.png" in lines[0]
    assert list(rollouts.skipped) == ["q1"]


def test_groups_that_were_skipped_are_done_and_empty(folder: Path) -> None:
    asked, seen = questions(2), []
    asked[0] = asked[0].model_copy(update={"image": "missing.png"})
    play(make_rollouts(folder, questions=asked), on_group=lambda done, group: seen.append((done, len(group))))
    assert sorted(seen) == [(1, 0), (2, 2)]


def test_a_play_of_which_every_question_is_skipped_is_the_users_to_correct(folder: Path) -> None:
    with pytest.raises(UserError, match=r"all 6 questions were skipped, q0 because of .*the limit is 10"):
        play(make_rollouts(folder, ScriptedEngine(limit=10)))


def test_a_refill_keeps_the_images_of_the_play_that_it_adds_to(folder: Path) -> None:
    rollouts = make_rollouts(folder)

    async def refilled() -> None:
        await rollouts.play(rollouts.pool.questions[:2], 2, step=1, policy="sft")
        before = set(rollouts.images)
        await rollouts.play(rollouts.pool.questions[2:4], 2, step=1, policy="sft", refill=True)
        assert before < set(rollouts.images)
        await rollouts.play(rollouts.pool.questions[4:], 2, step=2, policy="sft")
        assert not before & set(rollouts.images)

    run(refilled())


def test_a_refill_of_which_every_question_is_skipped_adds_nothing(folder: Path) -> None:
    played = play(make_rollouts(folder, ScriptedEngine(limit=10)), refill=True)
    assert not played.groups and len(played.skipped) == 6


def test_each_rank_knows_which_of_the_groups_it_played(folder: Path) -> None:
    asked = questions(5)
    asked[2] = asked[2].model_copy(update={"image": "missing.png"})  # the second question of rank 0

    @dataclass(frozen=True)
    class Alone(Ranks):
        """One of two ranks: the other's results are those that it would have played."""

        def gather(self, item: Any) -> list[Any]:
            return others if isinstance(item, list) and len(item) == len(others[self.rank]) else [item]

    def at(rank: int) -> Played:
        return play(make_rollouts(folder, questions=asked, ranks=Alone(rank, 2)), samples=1)

    others: list[list[Any]] = [[], []]
    everything = play(make_rollouts(folder, questions=asked), samples=1)
    by_id = {group[0].question_id: group for group in everything.groups}
    slots = [by_id.get(question.id, everything.skipped[0]) for question in asked]
    others = [slots[0::2], slots[1::2]]
    first, second = at(0), at(1)
    assert [group[0].question_id for group in first.groups] == ["q0", "q1", "q3", "q4"]
    assert (first.own, second.own) == ([0, 3], [1, 2])


class SpoiledEngine(ScriptedEngine):
    """An engine of which the second conversation about question 1 gets a number that is none."""

    async def open(self, prompt: str, *given: Any, **options: Any) -> Sequence[Any]:
        async def fail() -> Any:
            raise NotFinite("no number", where="model", remedy="check the images")

        opened = await super().open(prompt, *given, **options)
        if "question 1" in prompt:
            opened[1].generate = fail  # type: ignore[method-assign]
        return opened


def test_a_log_prob_that_is_not_finite_stops_the_play_and_names_its_trajectory(folder: Path) -> None:
    with pytest.raises(UserError, match=r"^model: trajectory sft-1-q1-1: no number \(check the images\)$"):
        play(make_rollouts(folder, SpoiledEngine()))


# ---- the judge


def test_a_judge_that_did_not_reply_is_called_again(folder: Path) -> None:
    services = FakeServices(judge_outcomes=[FailureKind.TIMEOUT, FailureKind.CONNECTION])
    (trajectory,) = play(make_rollouts(folder, services=services, questions=questions(1)), samples=1).trajectories
    assert len(services.judged) == 3
    assert trajectory.excluded == "" and trajectory.judge_failure is None


def test_a_judge_that_replied_without_a_verdict_is_not(folder: Path) -> None:
    services = FakeServices(judge_outcomes=[FailureKind.MALFORMED])
    (trajectory,) = play(make_rollouts(folder, services=services, questions=questions(1)), samples=1).trajectories
    assert len(services.judged) == 1
    assert trajectory.excluded == "judge" and trajectory.judge_failure is not None


def test_a_judge_that_decides_fewer_than_95_of_100_answers_stops_the_play_with_a_remedy(folder: Path) -> None:
    undecided: list[FailureKind | None] = [FailureKind.UNDECIDED] * 2
    with pytest.raises(
        UserError, match=r"decided only 22 of 24 answers; the last failure: undecided: on purpose"
    ) as caught:
        play(make_rollouts(folder, services=FakeServices(judge_outcomes=undecided)), samples=4)
    assert caught.value.where == "endpoints.judge" and "replies Yes or No" in caught.value.remedy
    assert play(make_rollouts(folder, services=FakeServices(judge_outcomes=undecided[:1])), samples=4).groups


def test_verdicts_of_earlier_plays_count_where_the_newest_are_few(folder: Path) -> None:
    services = FakeServices(judge_outcomes=[FailureKind.UNDECIDED])
    rollouts = make_rollouts(folder, services=services)
    play(rollouts)
    services.judge_outcomes = [FailureKind.UNDECIDED]
    with pytest.raises(UserError, match="decided only 22 of 24 answers"):
        play(rollouts, step=2)


def test_an_outage_of_the_judge_costs_no_trajectory(folder: Path) -> None:
    services = WatchedServices(down_to=60)
    played = play(make_rollouts(folder, services=services))
    assert [item.excluded for item in played.trajectories] == [""] * 12
    assert [item.judge_failure for item in played.trajectories] == [None] * 12
    assert isinstance(services.reports[0], Waiting) and services.reports[-1] is None


def test_an_outage_ends_the_play_when_the_patience_is_used_up_and_frees_every_place(folder: Path) -> None:
    engine = ScriptedEngine()
    services = WatchedServices(down_to=10_000, patience=30)
    with pytest.raises(ServiceDown, match=r"judge: down for 3\d s: connection: refused"):
        play(make_rollouts(folder, engine, services))
    assert engine.places == engine.capacity


def test_while_a_tool_is_down_no_more_episodes_start_than_have_a_place(folder: Path) -> None:
    engine = ScriptedEngine(capacity=2)
    services = WatchedServices(service="imageSearch", down_to=60)

    async def scenario() -> int:
        rollouts = make_rollouts(folder, engine, services)
        playing = asyncio.ensure_future(rollouts.play(rollouts.pool.questions, 1, step=1, policy="sft"))
        await asyncio.sleep(50)
        opened = len(engine.sessions)
        played = await playing
        assert len(played.trajectories) == 6
        return opened

    # Failures before the outage was noticed reached episodes, which then went on to answer.
    assert run(scenario()) <= outage.FAILURES + engine.capacity


def test_failures_of_tools_exclude_a_trajectory_and_spoil_no_other(folder: Path) -> None:
    services = FakeServices(failing={"textSearch": FailureKind.TIMEOUT})

    def script(prompt: str, seed: Any) -> Sequence[str]:
        return [text_search(), answer("Ada")] if seed[-1] == 0 else glance_then_answer(prompt, seed)

    played = play(make_rollouts(folder, ScriptedEngine(script), services, questions=questions(1)))
    assert [item.excluded for item in played.trajectories] == ["tool failure: textSearch timeout", ""]


@pytest.mark.parametrize(("rule", "counts"), [("exclude", (3, 1)), ("drop", (2, 2)), ("keep", (4, 0))])
def test_trajectories_are_counted_by_what_the_failure_rule_makes_of_their_group(
    folder: Path, rule: Any, counts: tuple[int, int]
) -> None:
    def script(prompt: str, seed: Any) -> Sequence[str]:
        fails = "question 0" in prompt and seed[-1] == 0
        return [text_search(), answer("Ada")] if fails else glance_then_answer(prompt, seed)

    services = FakeServices(failing={"textSearch": FailureKind.TIMEOUT})
    rollouts = make_rollouts(
        folder, ScriptedEngine(script), services, questions=questions(2), scoring=RewardConfig(tool_failures=rule)
    )
    rollouts.stage = f"counted-{rule}"
    play(rollouts)
    assert tuple(finished(rollouts.stage, status) for status in ("counted", "tool_failure")) == counts


def finished(stage: str, status: str) -> int:
    labels = {"stage": stage, "status": status}
    return int(metrics.REGISTRY.get_sample_value("gog_rollout_trajectories_total", labels) or 0)


# ---- the pool


def test_the_pool_keeps_images_within_its_bytes(folder: Path) -> None:
    one = make_image(0).pixels.nbytes
    pool = QuestionPool(folder, questions(6), cache_bytes=2 * one)
    first = [asyncio.run(pool.image(question)) for question in pool.questions[:3]]
    assert (
        asyncio.run(pool.image(pool.questions[2])) is first[2]
        and asyncio.run(pool.image(pool.questions[1])) is first[1]
    )
    again = asyncio.run(pool.image(pool.questions[0]))
    assert again is not first[0] and np.array_equal(again.pixels, first[0].pixels)


def test_the_pool_keeps_an_image_that_is_larger_than_its_bytes_while_it_is_the_newest(folder: Path) -> None:
    pool = QuestionPool(folder, questions(2), cache_bytes=1)
    assert asyncio.run(pool.image(pool.questions[0])) is asyncio.run(pool.image(pool.questions[0]))


def test_images_are_read_and_hashed_outside_the_engine_s_loop(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One of 12 megapixels takes a quarter of a second, in which no conversation would advance."""
    threads: list[threading.Thread] = []
    read = images.read
    monkeypatch.setattr(images, "read", lambda path: (threads.append(threading.current_thread()), read(path))[1])
    pool = QuestionPool(folder, questions(2))

    async def ask_twice_at_once() -> list[Image]:
        return await asyncio.gather(*(pool.image(pool.questions[0]) for _ in range(2)))

    first, second = asyncio.run(ask_twice_at_once())
    assert first is second and "hash" in vars(first)
    assert threads and threading.main_thread() not in threads


def test_a_turn_without_an_action_is_never_judged(folder: Path) -> None:
    services = FakeServices()
    engine = ScriptedEngine(lambda *_: [think("nothing")])
    (trajectory,) = play(make_rollouts(folder, engine, services, questions=questions(1)), samples=1).trajectories
    assert services.judged == [] and trajectory.reward is not None and trajectory.reward.accuracy == 0.0
    assert dataclasses.is_dataclass(engine)

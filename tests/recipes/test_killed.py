"""Stages killed by SIGKILL in mid-step and mid-episode, as real processes: the next attempt equals an uninterrupted one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from support.killed_stage import SETTINGS, Judge, Run

from gog.trajectory import Segment

SAMPLES = {"grpo": 15, "stratify": 18, "evaluate": 12}
"""Trajectories of a play. Those of `evaluate` have questions of their own, so no two of them share a verdict."""


def case(kind: str, ranks: int, then: int, *marks: Any) -> Any:
    return pytest.param(kind, ranks, then, id=f"{kind} of {ranks}, then {then}", marks=marks)


@pytest.mark.parametrize(
    ("kind", "ranks", "then"),
    [
        case("grpo", 1, 1),
        case("grpo", 2, 2, pytest.mark.exhaustive),
        case("grpo", 2, 1, pytest.mark.exhaustive),
        case("grpo", 1, 2, pytest.mark.slow),
        case("stratify", 1, 1, pytest.mark.slow),
        case("stratify", 2, 1, pytest.mark.exhaustive),
        case("evaluate", 1, 1, pytest.mark.slow),
        case("evaluate", 2, 2, pytest.mark.exhaustive),
    ],
)
def test_a_stage_that_is_killed_repeats_neither_finished_turns_nor_verdicts(
    kind: str,
    ranks: int,
    then: int,
    chain: Path,
    make: Any,
    endpoints: dict[str, str],
    judge: Judge,
    uninterrupted: Callable[[str, int], Run],
    tmp_path: Path,
) -> None:
    step = 2 if kind == "grpo" else 0
    straight = uninterrupted(kind, ranks)
    killed = Run(kind, chain, tmp_path, make, SETTINGS[kind] | {"endpoints": endpoints | {"judge": judge.url}})
    killed.kill_at(ranks, 3, step)
    judged, tokens = killed.journal(step)
    before, judge.asked = judge.asked, Counter()
    killed.finish(then)
    taken = f"sft: {len(judged)}" if kind != "grpo" else "step 1: 15"
    if kind == "grpo" and ranks == then:  # the last bits of an update depend on the number of ranks
        taken = f"step {step}: {len(judged)}"
    assert f"{killed.config.key}: resumed {taken} trajector" in killed.log()
    assert killed.result() == straight.result()
    assert killed.store.objects("journal/") == [], "a checkpoint deletes its journals"
    if kind == "evaluate":
        assert not [pair for pair in judged if judge.asked[pair]], "a verdict that was kept is asked for again"
        assert max((before + judge.asked).values()) <= 2
    if kind == "grpo":
        assert killed.lines()[0]["generated_tokens"] == 0, "a step whose play had finished is not sampled again"
    if ranks == then:
        assert sum(judge.asked.values()) <= SAMPLES[kind] - len(judged)
        if kind == "grpo":
            assert any(line["updates"] == 2 for line in killed.lines())
            assert killed.weights() == straight.weights(), "the resumed run equals the uninterrupted one bit for bit"
            assert killed.lines()[1]["generated_tokens"] <= straight.lines()[1]["generated_tokens"] - tokens


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [1, 2])
def test_a_stage_killed_while_it_plays_ahead_continues_every_episode_where_its_journal_ends(
    ranks: int, chain: Path, make: Any, tmp_path: Path
) -> None:
    ahead = {"async": {"max_staleness": 2}, "steps": 4, "save_every": 4, "keep_trajectories": 15}
    killed = Run("grpo", chain, tmp_path, make, SETTINGS["grpo"] | ahead)
    killed.kill_at(ranks, 3, 4)
    kept = killed.found(4)
    earlier = {step: len(killed.found(step)) for step in (1, 2, 3)}
    assert all(earlier.values()), "the steps before are in journals, too, as no checkpoint holds them"
    killed.finish(ranks)
    assert [line["step"] for line in killed.lines()] == [1, 2, 3, 4]
    assert all(line["staleness"] <= 2 and not line["dropped_stale"] for line in killed.lines())
    ended = {(item.question_id, item.sample): item.segments for item in killed.trajectories()}
    assert sum(bool(each.segments) for each in kept.values()) >= 3
    for key, each in kept.items():
        taken = ended[key][: len(each.segments)]
        assert unnamed(taken) == unnamed(each.segments), "a turn that was finished is sampled again"
        assert all(segment.weights for segment in each.segments if segment.source == "model")


def unnamed(segments: Sequence[Segment]) -> list[Segment]:
    """Segments without the digest of the weights that sampled them, which the journal names."""
    return [segment.model_copy(update={"weights": ""}) for segment in segments]


@pytest.mark.slow
def test_sft_killed_after_steps_that_no_checkpoint_holds_repeats_the_uninterrupted_run_bit_for_bit(
    chain: Path, make: Any, uninterrupted: Callable[[str, int], Run], tmp_path: Path
) -> None:
    """Of two ranks: test_ranks."""
    straight, killed = uninterrupted("sft", 1), Run("sft", chain, tmp_path, make, SETTINGS["sft"])
    killed.kill(killed.started(1, until=lambda: killed.steps() >= 15))
    assert killed.newest().step < killed.steps() < 40
    killed.finish()
    assert (killed.result(), killed.tensors()) == (straight.result(), straight.tensors())

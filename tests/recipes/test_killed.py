"""Stages killed by SIGKILL in mid-episode, as real processes: the next attempt repeats no finished turn and no verdict."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from support.killed_stage import Judge, Run

SETTINGS: dict[str, dict[str, Any]] = {
    "grpo": {
        "levels": ["easy", "1", "2"],
        "questions_per_step": 5,
        "group_size": 3,
        "steps": 2,
        "save_every": 2,
        "deterministic": True,
    },
    "stratify": {"stage": "again", "questions": 9, "rollouts": 2},
    "evaluate": {"policies": ["sft"], "questions": 12, "bootstrap": 100},
}
SAMPLES = {"grpo": 15, "stratify": 18, "evaluate": 12}
"""Trajectories of a play. Those of `evaluate` have questions of their own, so no two of them share a verdict."""
FEW = {"concurrent_episodes": 6}
"""Few episodes at once, so that a play takes several waves and a kill finds some trajectories finished, some not."""


def case(kind: str, ranks: int, then: int, *, fast: bool = False) -> Any:
    marks = () if fast else (pytest.mark.slow,)
    return pytest.param(kind, ranks, then, id=f"{kind} of {ranks}, then {then}", marks=marks)


@pytest.mark.parametrize(
    ("kind", "ranks", "then"),
    [
        case("grpo", 1, 1, fast=True),
        case("grpo", 2, 2),
        case("grpo", 2, 1),
        case("grpo", 1, 2),
        case("stratify", 1, 1),
        case("stratify", 2, 1),
        case("evaluate", 1, 1),
        case("evaluate", 2, 2),
    ],
)
def test_a_stage_that_is_killed_repeats_neither_finished_turns_nor_verdicts(
    kind: str, ranks: int, then: int, chain: Path, make: Any, endpoints: dict[str, str], judge: Judge, tmp_path: Path
) -> None:
    step = 2 if kind == "grpo" else 0
    for name in ("straight", "killed"):
        (tmp_path / name).mkdir()
    settings = SETTINGS[kind] | FEW | {"endpoints": endpoints | {"judge": judge.url}}
    straight = Run(kind, chain, tmp_path / "straight", make, settings)
    straight.finish(ranks)
    judge.asked = Counter()
    killed = Run(kind, chain, tmp_path / "killed", make, settings)
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
            assert killed.weights() == straight.weights(), "the resumed run equals the uninterrupted one bit for bit"
            assert killed.lines()[1]["generated_tokens"] <= straight.lines()[1]["generated_tokens"] - tokens

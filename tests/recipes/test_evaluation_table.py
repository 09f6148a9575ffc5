"""Rows of the evaluation's table."""

from __future__ import annotations

import pytest
from support.builders import make_trajectory, make_turn

from gog.trajectory import Candidate, Observation, Reward, Trajectory
from gog_recipes.rollout import evaluation_table as table
from gog_recipes.rollout.evaluation_table import table_row


def make_answered(accuracy: float | None, usd: float) -> Trajectory:
    """A trajectory that searched for so much money, and whose verdict cost 0.002 USD."""
    seen = Observation(text="a page", tool="textSearch", usd=usd)
    reward = Reward(accuracy=accuracy, format=1.0, total=accuracy)
    return make_trajectory(make_turn("text", observation=seen), make_turn("answer"), reward=reward, judge_usd=0.002)


def test_a_row_has_the_cost_of_a_question_and_of_a_correct_answer() -> None:
    row = table_row("grpo", "test", [make_answered(1.0, 0.01), make_answered(0.0, 0.03), make_answered(None, 0.02)])
    assert row["usd_per_question"] == pytest.approx(0.022)
    assert row["usd_per_correct"] == pytest.approx(0.066)


def test_a_policy_without_a_correct_answer_has_no_cost_of_one() -> None:
    assert table_row("direct", "test", [make_answered(0.0, 0.0)])["usd_per_correct"] is None


def test_a_row_has_the_share_of_the_tried_pages_that_were_read() -> None:
    def searched(read: int, failed: int) -> Trajectory:
        seen = Observation(text="a page", tool="textSearch", pages_read=read, pages_failed=failed)
        return make_trajectory(
            make_turn("text", observation=seen), make_turn("answer"), reward=Reward(accuracy=1.0, format=1.0, total=1.0)
        )

    assert table_row("grpo", "test", [searched(5, 1), searched(0, 2), searched(0, 0)])["page_success"] == pytest.approx(
        5 / 8
    )
    assert table_row("grpo", "test", [searched(0, 0)])["page_success"] is None


def verdict(question: str, accuracy: float | None, **facts: object) -> Trajectory:
    reward = Reward(accuracy=accuracy, format=1.0, total=accuracy)
    return make_trajectory(make_turn("answer"), question_id=question, reward=reward, **facts)


BENCHMARK_OF = {"a/1": "a", "a/2": "a", "b/1": "b", "b/2": "b", "b/3": "b", "b/4": "b"}


def split(**accuracies: list[float | None]) -> dict[str, dict[str, list[Trajectory]]]:
    """Trajectories of policies over the six questions of two benchmarks."""
    return {
        policy: table.by_benchmark(
            [verdict(name, value) for name, value in zip(BENCHMARK_OF, values, strict=True)], BENCHMARK_OF
        )
        for policy, values in accuracies.items()
    }


def test_means_weigh_each_benchmark_or_each_question_alike() -> None:
    played = split(sft=[1.0, 1.0, 0.0, 0.0, 0.0, 1.0])
    (mean,) = table.means(table.rows(played))
    assert mean == {"policy": "sft", "benchmarks": 2, "macro": pytest.approx(0.625), "micro": pytest.approx(0.5)}
    assert table.means(table.rows({"sft": {"a": played["sft"]["a"]}})) == []


def test_policies_are_compared_within_a_benchmark_on_questions_that_both_have_decided() -> None:
    played = split(sft=[0.0, 0.0, None, 0.0, 0.0, 0.0], grpo=[1.0, 1.0, 1.0, 1.0, None, 0.0])
    found = {row["benchmark"]: row for row in table.comparisons(played, resamples=100, seed=0)}
    assert {name: (row["a"], row["b"], row["n"], row["difference"]) for name, row in found.items()} == {
        "a": ("grpo", "sft", 2, 1.0),
        "b": ("grpo", "sft", 2, 0.5),
    }


def test_every_answer_has_a_line_with_its_benchmark_and_cost() -> None:
    lines = list(table.answers(split(sft=[1.0, 0.0, None, 0.0, 0.0, 1.0])))
    assert [line["question_id"] for line in lines] == list(BENCHMARK_OF)
    assert lines[2]["benchmark"] == "b" and lines[2]["accuracy"] is None
    assert {"tool_calls", "tokens", "seconds", "usd", "behaviour", "failures", "stop"} <= lines[0].keys()


def test_the_cost_aware_score_falls_with_tokens_and_rounds() -> None:
    def scored(turns: int, tokens: int) -> float:
        seen = Observation(text="a page", tool="textSearch")
        reward = Reward(accuracy=1.0, format=1.0, total=1.0)
        made = make_trajectory(
            *[make_turn("text", observation=seen)] * turns, make_turn("answer"), reward=reward, generated=tokens
        )
        return float(table_row("grpo", "test", [made])["cost_aware_score"])

    assert scored(0, 0) == 100.0
    assert scored(1, 1000) == pytest.approx(100 / 4) and scored(3, 1000) == pytest.approx(100 / 8)


REGION = (10.0, 10.0, 30.0, 30.0)
OFFERED = Observation(
    text="",
    tool="grounding",
    candidates=(
        Candidate(number=1, box=(50, 50, 70, 70), score=0.9),
        Candidate(number=2, box=(10, 10, 30, 31), score=0.8),
    ),
)


def gazing(*numbers: int) -> Trajectory:
    """Grounds once, then gazes at these candidates one after the other, and answers."""
    turns = [
        make_turn("gaze", selected=(number,), observation=Observation(text="", tool="imageSearch"))
        for number in numbers
    ]
    reward = Reward(accuracy=1.0, format=1.0, total=1.0)
    return make_trajectory(
        make_turn("ground", observation=OFFERED), *turns, make_turn("answer"), reward=reward, region=REGION
    )


def test_a_row_says_how_often_a_gaze_was_right_and_whether_a_wrong_one_was_corrected() -> None:
    row = table_row("grpo", "test", [gazing(2), gazing(1), gazing(1, 2), gazing(1, 1)])
    assert row["gaze_accuracy"] == pytest.approx(2 / 6)
    assert row["reflection_ratio"] == pytest.approx(1 / 4), "the same candidate again is no reflection"


def test_without_a_gaze_there_is_no_share_of_right_ones() -> None:
    row = table_row("direct", "test", [verdict("a/1", 1.0)])
    assert row["gaze_accuracy"] is None and row["reflection_ratio"] is None


def test_several_answers_to_a_question_give_its_mean_verdict_and_pass_at_k() -> None:
    answers = {"a/1": [1.0, 0.0, 0.0, 0.0], "a/2": [1.0, 1.0, 1.0, 1.0], "a/3": [0.0, None, 0.0, 0.0]}
    row = table_row("grpo", "test", [verdict(name, value) for name, values in answers.items() for value in values])
    assert (row["n"], row["undecided"]) == (3, 1)
    assert row["accuracy"] == pytest.approx(1.25 / 3)
    assert row["ci95"][0] < row["accuracy"] < row["ci95"][1]
    assert row["pass_at"] == {"1": pytest.approx(1.25 / 3), "2": pytest.approx(1.5 / 3), "4": 1.0}


def test_policies_that_answer_several_times_are_compared_question_by_question() -> None:
    played = {
        policy: {"a": [verdict("a/1", value) for value in values]}
        for policy, values in {"sft": [1.0, 0.0], "grpo": [1.0, 1.0]}.items()
    }
    (row,) = table.comparisons(played, resamples=100, seed=0)
    assert (row["n"], row["difference"]) == (1, 0.5)
    assert [line["question_id"] for line in table.answers(played)] == ["a/1"] * 4

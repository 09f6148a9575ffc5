"""The gate of an evaluation and the rule of a canary."""

from __future__ import annotations

import math
import random

import pytest

from gog import canary_rule, promotion
from gog.canary_rule import Chats
from gog.spec import CanarySpec, GateSpec


def verdicts(right: int, n: int, start: int = 0) -> dict[str, float]:
    return {f"q{start + number}": float(number < right) for number in range(n)}


def test_a_version_below_the_threshold_is_refused_with_both_figures():
    found = promotion.gate("a/1", verdicts(40, 100), GateSpec(min_accuracy=0.5))
    assert not found.is_open
    assert found.sentence == "a/1 answers 40.0% of 100 questions correctly, less than 50.0% (serve.gate.minAccuracy)"


def test_a_version_without_a_verdict_is_refused():
    assert not promotion.gate("a/1", {}, GateSpec()).is_open


def test_the_first_version_needs_the_threshold_only():
    assert promotion.gate("a/1", verdicts(50, 100), GateSpec(min_accuracy=0.5)).is_open


def test_a_version_that_is_worse_on_the_same_questions_is_refused():
    found = promotion.gate("a/2", verdicts(60, 200), GateSpec(), "a/1", verdicts(90, 200))
    assert not found.is_open
    assert "which is worse: -15.0% [" in found.sentence and "against a/1 on 200 questions of both" in found.sentence


def test_a_difference_within_chance_is_no_reason_to_refuse():
    old = verdicts(100, 200)
    new = dict(old, q0=0.0, q1=0.0, q150=1.0)
    assert promotion.gate("a/2", new, GateSpec(), "a/1", old).is_open


def test_versions_without_a_common_question_cannot_be_compared():
    found = promotion.gate("a/2", verdicts(90, 100), GateSpec(), "a/1", verdicts(10, 100, start=500))
    assert not found.is_open and "evaluated on other questions" in found.sentence
    assert not promotion.gate("a/2", verdicts(90, 100), GateSpec(), "a/1", None).is_open


def chats(n: int, failed: int = 0, malformed: int = 0, seconds: float = 1.0, spread: float = 0.1) -> Chats:
    """Chats of which half take longer and half shorter than `seconds`, by `spread` of the logarithm."""
    mean, answered = math.log(seconds), n - failed
    squares = answered * (mean * mean + spread * spread)
    return Chats(n, failed, malformed, answered * mean, squares)


RULE = CanarySpec(chats=100)


def test_a_canary_is_tested_after_each_fifth_of_its_window_and_only_then():
    assert canary_rule.look(chats(100), chats(19, failed=19), RULE, 0).decision == "wait"
    assert canary_rule.look(chats(100), chats(20, failed=20), RULE, 0).decision == "roll_back"
    assert canary_rule.look(chats(100), chats(39, failed=39), RULE, 1).decision == "wait", "it was tested at 20"


@pytest.mark.parametrize(
    ("new", "words"),
    [
        (chats(40, failed=12), "more chats fail (p = "),
        (chats(40, malformed=12), "more chats break the format (p = "),
        (chats(40, seconds=2.0), "a chat takes more than 1.5 times as long (p = "),
    ],
)
def test_a_version_that_is_worse_is_rolled_back_with_the_figures(new, words):
    found = canary_rule.look(chats(360, failed=3, malformed=2), new, RULE, 1)
    assert (found.decision, found.looks) == ("roll_back", 2)
    assert words in found.sentence and "against 3/360" in found.sentence


def test_a_version_that_no_test_found_worse_replaces_the_old_one_at_the_end():
    assert canary_rule.look(chats(700), chats(80, seconds=1.2), RULE, 3).decision == "wait"
    found = canary_rule.look(chats(900), chats(100, failed=1, seconds=1.2), RULE, 4)
    assert found.decision == "promote" and "so many show some" in found.sentence


def test_a_slowdown_within_the_bound_is_no_fault():
    assert canary_rule.slower(chats(500), chats(500, seconds=1.49), 1.5) > 0.5
    assert canary_rule.slower(chats(500), chats(1), 1.5) == 1.0


def test_a_version_that_is_no_worse_is_rolled_back_no_more_often_than_the_level():
    rng = random.Random(0)

    def play(n: int) -> Chats:
        failed = sum(rng.random() < 0.05 for _ in range(n))
        malformed = sum(rng.random() < 0.1 for _ in range(n - failed))
        logs = [rng.gauss(0, 0.5) for _ in range(n - failed)]
        return Chats(n, failed, malformed, sum(logs), sum(each * each for each in logs))

    def added(a: Chats, b: Chats) -> Chats:
        return Chats(*(getattr(a, name) + getattr(b, name) for name in Chats.__dataclass_fields__))

    def canary() -> str:
        old, new, looks = Chats(), Chats(), 0
        while True:
            old, new = added(old, play(180)), added(new, play(20))
            found = canary_rule.look(old, new, CanarySpec(chats=100, max_slowdown=1), looks)
            if found.decision != "wait":
                return found.decision
            looks = found.looks

    rolled_back = sum(canary() == "roll_back" for _ in range(300))
    assert rolled_back <= 0.05 * 300


def test_fishers_test_agrees_with_its_definition():
    assert canary_rule.fisher(3, 4, 1, 4) == pytest.approx(17 / 70)
    assert canary_rule.fisher(0, 10, 5, 10) == 1.0
    assert canary_rule.fisher(1, 1, 0, 0) == 1.0, "nothing to compare with"

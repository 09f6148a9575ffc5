"""Steps in which nothing is learned are counted in a row; too many of them are a warning, or end the stage."""

from __future__ import annotations

from typing import Any

import pytest

from gog.errors import UserError
from gog.spec import GRPOSettings
from gog_recipes.runtime import no_signal


def lines(learned: str, accuracy: float = 0.0) -> list[dict[str, Any]]:
    """A line for each letter: `x` is a step that learned, with accuracy 0.5; `-` is one without a signal."""
    return [
        {"learned": 8, "accuracy_mean": 0.5} if letter == "x" else {"learned": 0, "accuracy_mean": accuracy}
        for letter in learned
    ]


@pytest.mark.parametrize(("learned", "count"), [("", 0), ("x", 0), ("--", 2), ("-x--", 2), ("--x", 0)])
def test_only_the_last_steps_without_a_gap_count(learned: str, count: int) -> None:
    assert no_signal.in_a_row(lines(learned)) == count


def test_lines_of_a_log_without_the_figure_count_as_learned() -> None:
    assert no_signal.in_a_row([{"learned": 0}, {"reward_mean": 0.1}]) == 0


def test_the_warning_recurs_after_as_many_further_steps_and_not_before() -> None:
    settings = GRPOSettings(max_no_signal_steps=3)
    warned = [n for n in range(10) if no_signal.warning(lines("x" + "-" * n), settings)]
    assert warned == [3, 6, 9]


@pytest.mark.parametrize(
    ("before", "accuracy", "remedy"),
    [
        ("", 0.0, "too hard for this policy: add an easier level"),
        ("", 1.0, "too easy for this policy: train on a harder level"),
        ("", 0.4, "all samples succeed or all fail: raise groupSize or temperature"),
        ("xxx", 0.0, "right in 50% of its answers before: lower learningRate"),
    ],
)
def test_the_remedy_depends_on_how_often_the_policy_was_right(before: str, accuracy: float, remedy: str) -> None:
    warning = no_signal.warning([*lines(before), *lines("--", accuracy)], GRPOSettings(max_no_signal_steps=2))
    assert warning.startswith(
        "warning: stages.grpo.maxNoSignalSteps: all groups had zero reward variance in the last 2"
    )
    assert remedy in warning


def test_a_stage_that_is_to_stop_fails_as_the_users_to_correct() -> None:
    settings = GRPOSettings(max_no_signal_steps=2, no_signal="stop")
    assert no_signal.warning(lines("x-"), settings) == ""
    with pytest.raises(UserError, match=r"in the last 2 steps, so nothing was learned \(the policy was right"):
        no_signal.warning(lines("x--"), settings)

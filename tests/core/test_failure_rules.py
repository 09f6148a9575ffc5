"""What each rule makes of a trajectory with a tool failure: its reward, what is learned of it, and its advantage."""

from __future__ import annotations

from typing import get_args

import pytest
from pydantic import ValidationError
from support.builders import make_trajectory, make_turn

from gog import failure_rules, rewards
from gog.failure_rules import Settings
from gog.spec import GRPOConfig
from gog.spec.base import Advantages, ToolFailures
from gog.trajectory import Failure, Observation, Reward, Segment, Trajectory, outline

BROKEN = Failure(tool="textSearch", kind="timeout")
UNSET = {"model": {"base": "tiny"}, "data": {"world": {}}, "store": {"uri": "file:///unused"}}
REWARDS = {"right": Reward(accuracy=1, format=1, total=1.0), "wrong": Reward(accuracy=0, format=1, total=0.1)}


def make(turns: str = "", reward: str = "right", **fields: object) -> Trajectory:
    """A trajectory whose turns are `f`, a search that failed, or `s`, one that did not; at last it answers.

    Each turn has two tokens.
    """
    played = [
        make_turn("text", observation=Observation(text="", tool="textSearch", failures=(BROKEN,) * (each == "f")))
        for each in turns
    ] + [make_turn()]
    segments = [Segment(source="prompt", tokens=(1, 2))]
    for turn in range(len(played)):
        segments.append(Segment(source="model", tokens=(10 + turn, 20 + turn), logprobs=(-0.1 * turn, -0.5)))
        segments.append(Segment(source="observation", tokens=(3,)))
    given = {
        "failures": (BROKEN,) * turns.count("f"), "reward": REWARDS[reward], "segments": tuple(segments[:-1]),
    }  # fmt: skip
    return make_trajectory(*played, **(given | fields))


def learned(group: list[Trajectory], rule: ToolFailures, *, fatal: int = 3, estimator: Advantages = "centred"):
    settings = Settings(rule, fatal)
    return rewards.with_advantages([group], failures=settings, estimator=estimator)[0]


def totals(group: list[Trajectory], rule: ToolFailures) -> list[float | None]:
    return [each.total for each in failure_rules.treat(group, Settings(rule))]


GROUP = [make("s"), make("sf", "wrong"), make("", "wrong")]


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("exclude", [1.0, None, 0.1]),
        ("mask", [1.0, 0.1, 0.1]),
        ("drop", [None, None, None]),
        ("keep", [1.0, 0.1, 0.1]),
        ("zero", [1.0, 0.0, 0.1]),
        ("fatal-clamp", [1.0, 0.1, 0.1]),
    ],
)
def test_a_rule_decides_which_rewards_count_in_the_group(rule: ToolFailures, expected: list[float | None]) -> None:
    assert totals(GROUP, rule) == expected


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("exclude", [4, None, 2]),
        ("mask", [4, 2, 2]),  # the second turn's call failed
        ("drop", [None, None, None]),
        ("keep", [4, 6, 2]),
        ("zero", [4, 6, 2]),
        ("fatal-clamp", [4, 6, 2]),
    ],
)
def test_a_rule_decides_which_tokens_are_learned(rule: ToolFailures, expected: list[int | None]) -> None:
    found = learned(GROUP, rule)
    assert [None if item.advantage is None else sum(item.mask()) for item in found] == expected
    assert [sum(item.mask()) for item in found] == [len(item.model_logprobs()) for item in found]


@pytest.mark.parametrize("rule", get_args(ToolFailures))
def test_without_failures_every_rule_is_the_same(rule: ToolFailures) -> None:
    group = [make("s"), make("ss", "wrong"), make("", "wrong")]
    assert learned(group, rule) == learned(group, "exclude")
    assert all(not item.excluded and not item.treatment for item in learned(group, rule))


@pytest.mark.parametrize("rule", get_args(ToolFailures))
@pytest.mark.parametrize("reward", [None, Reward(accuracy=None, format=1, total=None)])
def test_an_unjudged_trajectory_is_excluded_by_every_rule(rule: ToolFailures, reward: Reward | None) -> None:
    undecided = make("", reward="right").model_copy(update={"reward": reward})
    first, second = learned([undecided, make()], rule)
    assert (first.excluded, first.advantage) == ("judge", None)
    assert (second.excluded, second.advantage) == ("", 0.0)  # drop concerns failures of tools only


def test_an_excluded_member_does_not_change_the_advantages_of_the_others() -> None:
    right, spoiled, wrong = GROUP
    alone, beside = learned([right, wrong], "exclude"), learned([right, spoiled, wrong], "exclude")
    assert [item.advantage for item in beside] == [alone[0].advantage, None, alone[1].advantage]


def test_why_a_trajectory_is_left_out_or_learned_differently_is_on_its_record() -> None:
    reasons = {rule: [item.excluded for item in learned(GROUP, rule)] for rule in ("exclude", "drop")}
    failed = "tool failure: textSearch timeout"
    assert reasons["exclude"] == ["", failed, ""]
    assert reasons["drop"] == [f"sample 0 of its group has a {failed}", failed, f"sample 0 of its group has a {failed}"]
    notes = {rule: learned(GROUP, rule)[1].treatment for rule in ("mask", "keep", "zero")}
    assert notes == {
        "mask": f"only its first turn is learned: {failed}", "keep": "", "zero": f"learned with reward 0: {failed}",
    }  # fmt: skip
    assert learned([make("fff"), make()], "fatal-clamp")[0].treatment == (
        f"no turn is learned, and advantage not below 0: 3 failed turns in a row, {failed}"
    )


@pytest.mark.parametrize(
    ("turns", "length", "expected"),
    [("f", 1, 0), ("sf", 1, 1), ("ff", 3, None), ("sfffs", 3, 1), ("ffsfff", 3, 3), ("fffff", 3, 0), ("ss", 1, None)],
)
def test_a_run_of_failures_begins_with_its_first_failed_turn(turns: str, length: int, expected: int | None) -> None:
    assert failure_rules.failed_run(make(turns), length) == expected
    assert failure_rules.failed_run(outline(make(turns)), length) == expected


def test_the_tokens_before_a_fatal_run_are_learned_and_never_pushed_down() -> None:
    up, down, right, wrong = make("sfffs"), make("sfffs", "wrong"), make(), make("", "wrong")
    found = learned([up, down, right, wrong], "fatal-clamp", estimator="group")
    plain = learned([up, down, right, wrong], "keep", estimator="group")
    assert [item.advantage for item in found] == [plain[0].advantage, 0.0, plain[2].advantage, plain[3].advantage]
    assert sum(found[0].mask()) == 2  # its first turn


def test_a_run_that_is_fatal_from_the_first_turn_counts_with_reward_0_and_is_not_learned() -> None:
    found = learned([make("fff"), make("", "wrong")], "fatal-clamp")
    assert [item.advantage for item in found] == [0.0, pytest.approx(0.05)]
    assert sum(found[0].mask()) == 0


def test_the_number_of_failures_that_are_fatal_is_a_setting() -> None:
    group = [make("sff", "wrong"), make()]
    assert sum(learned(group, "fatal-clamp")[0].mask()) == 8
    assert sum(learned(group, "fatal-clamp", fatal=2)[0].mask()) == 2


@pytest.mark.parametrize("rule", ["mask", "fatal-clamp"])
def test_a_trajectory_of_which_no_token_is_learned_has_no_signal(rule: ToolFailures) -> None:
    group = [make("fff"), make("fff", "wrong")]
    assert not rewards.has_signal(group, Settings(rule))
    assert rewards.has_signal(group, Settings("keep")) and not rewards.has_signal(group, Settings("exclude"))


def test_masked_tokens_keep_their_log_probabilities_and_can_be_read_again() -> None:
    (item, _) = learned([make("f"), make()], "mask")
    assert item.tokens() == make("f").tokens()
    assert failure_rules.unmasked(item.segments) == list(make("f").segments)


def test_an_outline_is_treated_like_the_whole_trajectory() -> None:
    for rule in get_args(ToolFailures):
        whole = learned(GROUP, rule)
        lines = learned([outline(item) for item in GROUP], rule)
        assert [(a.advantage, a.excluded, a.treatment) for a in whole] == [
            (b.advantage, b.excluded, b.treatment) for b in lines
        ]


def test_every_rule_that_the_spec_names_exists() -> None:
    assert set(get_args(ToolFailures)) == set(failure_rules.RULES)
    assert Settings.of(GRPOConfig.model_validate(UNSET)) == Settings("exclude", 3)


def test_an_unknown_rule_is_refused_with_its_field() -> None:
    with pytest.raises(ValidationError, match="toolFailures\n  Input should be 'exclude', 'mask'"):
        GRPOConfig.model_validate(UNSET | {"toolFailures": "ignore"})


def test_a_count_of_fatal_failures_without_its_rule_is_refused() -> None:
    GRPOConfig.model_validate(UNSET | {"toolFailures": "fatal-clamp", "fatalFailures": 2})
    with pytest.raises(ValidationError, match="fatalFailures is used by toolFailures fatal-clamp only"):
        GRPOConfig.model_validate(UNSET | {"fatalFailures": 2})

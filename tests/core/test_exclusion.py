"""Which steps of RL may be learned from when tools or the judge failed."""

from __future__ import annotations

import pytest
from support.builders import make_trajectory, make_turn, run

from gog import exclusion
from gog.errors import ServiceDown
from gog.trajectory import Failure

TIMEOUT = Failure(tool="imageSearch", kind="timeout", message="no answer in 10 s")
UNDECIDED = Failure(tool="judge", kind="undecided")


def make(turns=1, advantage=0.0, *failures, **fields):
    """A trajectory of so many turns; advantage None: it does not count."""
    steps = [make_turn("glance") for _ in range(turns - 1)]
    return make_trajectory(*steps, make_turn(), advantage=advantage, failures=failures, **fields)


def test_the_excluded_share_is_given_by_episode_length():
    groups = [
        [make(1), make(1), make(3, None, TIMEOUT)],
        [make(3), make(9, None, TIMEOUT), make(6, None, TIMEOUT)],
    ]
    found = exclusion.count(groups)
    assert (found.trajectories, found.excluded, found.share) == (6, 3, 0.5)
    assert found.by_turns.shares == {"1": 0.0, "3": 0.5, "6+": 1.0}
    assert found.by_turns.trajectories == {"1": 2, "3": 2, "6+": 2}
    assert found.by_calls.shares == {"0": 0.0, "2": 0.5, "5": 1.0, "6+": 1.0}
    assert found.by_calls.trajectories == {"0": 2, "2": 2, "5": 1, "6+": 1}


def test_what_failed_most_often_is_named_with_its_most_frequent_failure():
    other = Failure(tool="imageSearch", kind="connection")
    groups = [[make(2, None, TIMEOUT), make(2, None, TIMEOUT, other), make(1, None, judge_failure=UNDECIDED)]]
    found = exclusion.count(groups)
    assert found.cause == exclusion.Cause("imageSearch", "timeout: no answer in 10 s")


@pytest.mark.parametrize(
    ("groups", "allowed"),
    [
        ([[make(1, 0.0), make(1, 0.0)]], True),  # equal rewards: an ordinary step without a signal
        ([[make(1, 1.0), make(1, -1.0)], [make(2, None, TIMEOUT)] * 2], True),
        ([[make(1, 1.0), make(1, -1.0)], [make(2, None, TIMEOUT)] * 3], False),  # mostly survivors
        ([[make(1, 0.0), make(2, None, TIMEOUT)]] * 3, False),  # nothing to compare with
        ([[make(2, None, TIMEOUT)] * 2], False),
    ],
)
def test_a_step_of_survivors_is_not_learned_from(groups, allowed):
    assert exclusion.count(groups).allow(0.5) is allowed


def test_without_exclusions_even_a_single_trajectory_is_a_step():
    assert exclusion.count([[make(1, 0.0)]]).allow(0.0)


class Plays:
    """A clock, and plays of which all but the last are spoiled."""

    def __init__(self, spoiled: int) -> None:
        self.spoiled, self.now, self.made, self.pauses, self.reports = spoiled, 0.0, 0, [], []

    async def play(self):
        self.made += 1
        return self.made

    async def sleep(self, seconds):
        self.pauses.append(seconds)
        self.now += seconds

    def cause(self, number):
        return exclusion.Cause("imageSearch", "9 of 9 excluded") if number <= self.spoiled else None

    def run(self, patience):
        replay = exclusion.Replay(patience, self.reports.append, lambda: self.now, self.sleep)
        return run(replay.until_learnable(self.play, self.cause))


def test_a_play_that_is_not_spoiled_is_taken_at_once_and_nothing_is_reported():
    plays = Plays(spoiled=0)
    assert plays.run(600) == 1
    assert plays.pauses == plays.reports == []


def test_a_spoiled_play_is_repeated_until_one_can_be_learned_from():
    plays = Plays(spoiled=2)
    assert plays.run(600) == 3
    assert plays.pauses == [1, 2]
    assert [report and (report.service, report.seconds_left) for report in plays.reports] == [
        ("imageSearch", 600),
        ("imageSearch", 599),
        None,
    ]


def test_after_the_patience_is_used_up_the_attempt_fails_and_is_retried():
    plays = Plays(spoiled=1000)
    with pytest.raises(ServiceDown, match="imageSearch: 9 of 9 excluded, in 8 plays over 91 s"):
        plays.run(100)
    assert plays.pauses == [1, 2, 4, 8, 16, 30, 30]


def test_without_patience_a_spoiled_play_fails_at_once():
    with pytest.raises(ServiceDown):
        Plays(spoiled=1).run(0)

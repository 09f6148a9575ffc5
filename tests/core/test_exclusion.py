"""Which steps of RL may be learned from when tools or the judge failed."""

from __future__ import annotations

import pytest
from support.builders import make_trajectory, make_turn

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
    assert found.by_turns == {"1": 0.0, "3": 0.5, "6+": 1.0}


def test_what_failed_most_often_is_named_with_its_most_frequent_failure():
    other = Failure(tool="imageSearch", kind="connection")
    groups = [[make(2, None, TIMEOUT), make(2, None, TIMEOUT, other), make(1, None, judge_failure=UNDECIDED)]]
    found = exclusion.count(groups)
    assert (found.service, found.reason) == ("imageSearch", "timeout: no answer in 10 s")


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


def test_a_spoiled_play_is_repeated_at_growing_intervals_until_the_patience_is_used_up():
    now, pauses = 0.0, []
    replay = exclusion.Replay(100, lambda: now)
    for _ in range(7):
        waiting = replay.wait("imageSearch", "9 of 9 excluded")
        assert (waiting.seconds, waiting.seconds + waiting.seconds_left) == (now, 100)
        pauses.append(replay.pause)
        now += replay.pause
    assert pauses == [1, 2, 4, 8, 16, 30, 30] and now <= 100
    with pytest.raises(ServiceDown, match="imageSearch: 9 of 9 excluded, in 8 plays over 91 s"):
        replay.wait("imageSearch", "9 of 9 excluded")


def test_without_patience_a_spoiled_play_fails_at_once():
    with pytest.raises(ServiceDown):
        exclusion.Replay(0, lambda: 5.0).wait("judge", "no verdicts")

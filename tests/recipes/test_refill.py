"""Groups without a signal are replaced by those of further questions, within a bound."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gog.errors import UserError
from gog.spec import GRPOConfig
from gog_recipes.rollout import refill
from gog_recipes.rollout.played import Played, Skipped

NEEDED = {"model": {"base": "tiny"}, "data": {"world": {}}, "store": {"uri": "file:///unused"}}


class Player:
    """Plays questions, which are numbers; a group is its question and carries a signal if that is odd."""

    def __init__(self, *, skips=()):
        self.rounds, self.skips = [], skips

    async def __call__(self, questions, adds):
        assert adds == bool(self.rounds)
        self.rounds.append(list(questions))
        groups = [[each] for each in questions if each not in self.skips]
        skipped = [Skipped(str(each), "broken") for each in questions if each in self.skips]
        return Played(groups, [n for n in range(len(groups)) if n % 2 == 0], skipped)


def odd(group):
    return group[0] % 2 == 1


def fill(player, first, further, *, may_refill=lambda groups: True):
    counted = lambda groups: sum(map(odd, groups))  # noqa: E731
    return asyncio.run(refill.rounds(player, first, further, signals=counted, may_refill=may_refill))


def test_a_step_whose_groups_all_carry_a_signal_plays_nothing_more():
    player = Player()
    fill(player, [1, 3, 5], [7, 9])
    assert player.rounds == [[1, 3, 5]]


def test_further_questions_are_played_until_enough_groups_carry_a_signal():
    player = Player()
    played = fill(player, [1, 3, 2, 4], [6, 5, 8, 7, 10, 11, 13])
    assert player.rounds == [[1, 3, 2, 4], [6, 5, 8, 7]]  # two are missing, and half of the groups had a signal
    batch = refill.batch(played, 4, odd)
    assert batch.groups == [[1], [3], [5], [7]] and batch.replaced == [[2], [4], [6], [8]] and batch.missing == 0


def test_what_the_bound_leaves_missing_is_made_up_of_groups_without_a_signal_and_counted():
    played = fill(Player(), [1, 2, 4], [6, 3])
    batch = refill.batch(played, 3, odd)
    assert batch.groups == [[1], [2], [3]] and batch.replaced == [[4], [6]] and batch.missing == 1
    assert refill.line(7, 2, 3, 1.7) == (
        "step 7: 2 of 3 groups carry a signal, although stages.grpo.maxOversampling 1.7 was used up: raise it, or train on a "
        "level of other difficulty"
    )


def test_a_step_that_failures_spoiled_is_not_added_to():
    player = Player()
    fill(player, [2, 4], [1, 3], may_refill=lambda groups: False)
    assert player.rounds == [[2, 4]]


def test_questions_that_cannot_be_played_are_skipped_in_every_round():
    played = fill(Player(skips=(2, 6)), [2, 4], [6, 1, 3])
    assert [each.question_id for each in played.skipped] == ["2", "6"]
    assert refill.batch(played, 2, odd).groups == [[1], [3]]


def test_the_own_groups_of_a_rank_stay_its_own_through_rounds_and_selection():
    played = fill(Player(), [2, 4, 6], [1, 8, 3, 5, 7, 9])
    assert [played.groups[n] for n in played.own] == [[2], [6], [1], [3], [7]]
    batch = refill.batch(played, 3, odd)
    assert batch.groups == [[1], [3], [5], [7], [9]]
    assert [batch.groups[n] for n in batch.own] == [[1], [3], [7]]


@given(st.lists(st.integers(0, 99), min_size=1, max_size=8), st.lists(st.integers(0, 99), max_size=20))
def test_no_group_is_lost_none_with_a_signal_is_replaced_and_no_question_is_played_twice(first, further):
    player = Player()
    played = fill(player, first, further)
    assert [each for some in player.rounds for each in some] == [*first, *further][: len(played.groups)]
    batch = refill.batch(played, len(first), odd)
    assert sorted([*batch.groups, *batch.replaced]) == sorted(played.groups)
    assert not any(map(odd, batch.replaced)) and len(batch.groups) >= len(first)
    assert batch.missing == max(0, len(first) - sum(map(odd, played.groups)))
    assert not batch.missing or len(played.groups) == len(first) + len(further)


def configuration(**settings):
    return GRPOConfig.model_validate(NEEDED | {"questions_per_step": 8} | settings)


def test_a_refill_that_cannot_be_filled_is_refused_with_its_field():
    with pytest.raises(UserError, match="may play 24 different questions, and the chosen levels have 20") as caught:
        refill.require(configuration(max_oversampling=3), "group", 20)
    assert caught.value.where == "stages.grpo.maxOversampling" and "2.5 or less" in caught.value.remedy
    refill.require(configuration(max_oversampling=2.5), "group", 20)
    refill.require(configuration(), "batch", 8)


def test_a_refill_of_groups_that_carry_a_signal_without_variance_is_refused():
    with pytest.raises(UserError, match="advantages batch") as caught:
        refill.require(configuration(max_oversampling=2), "batch", 100)
    assert caught.value.where == "stages.grpo.maxOversampling"


def test_a_refill_without_a_further_question_is_refused_with_the_least_that_has_one():
    with pytest.raises(UserError, match=r"1\.12 times questionsPerStep 8 leaves no further question") as caught:
        refill.require(configuration(max_oversampling=1.12), "group", 100)
    assert caught.value.where == "stages.grpo.maxOversampling" and "1.13 or more" in caught.value.remedy
    refill.require(configuration(max_oversampling=1.13), "group", 100)

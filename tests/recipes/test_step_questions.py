"""Which questions a step takes, by curriculum, and which may refill it."""

from __future__ import annotations

import collections

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from gog.dataset import Question
from gog.errors import UserError
from gog.spec import GRPOConfig
from gog_recipes.rollout.step_questions import StepQuestions
from gog_recipes.runtime import curriculum

NEEDED = {"model": {"base": "tiny"}, "data": {"world": {}}, "store": {"uri": "file:///unused"}}


def questions(**counts):
    """So many questions of each level, named level-number."""
    names = {"easy": "easy", "one": "1", "two": "2"}
    levels = {f"{names[key]}-{n}": names[key] for key, count in counts.items() for n in range(count)}
    made = [Question(id=name, image="a.png", question="?", answers=("x",)) for name in levels]
    return made, levels


def steps_of(pool, **settings):
    given = NEEDED | {"questions_per_step": 8, "steps": 5, "levels": ["1", "2"], "curriculum": "annealed"}
    return StepQuestions(*pool, GRPOConfig.model_validate(given | settings))


def shares(order, steps=5):
    counted = [collections.Counter(each.id.partition("-")[0] for each in order.step(n)) for n in range(steps)]
    return [(each["1"], each["2"]) for each in counted]


def test_an_annealed_curriculum_moves_evenly_from_the_easiest_to_the_hardest_level():
    assert shares(steps_of(questions(one=30, two=30))) == [(8, 0), (6, 2), (4, 4), (2, 6), (0, 8)]
    assert shares(steps_of(questions(one=30, two=30), levels=["2", "1"]))[0] == (8, 0)


def test_a_level_that_is_too_small_for_its_share_gives_all_it_has():
    assert shares(steps_of(questions(one=3, two=30))) == [(3, 5), (3, 5), (3, 5), (2, 6), (0, 8)]


def test_a_mixed_curriculum_takes_levels_as_they_occur():
    order = steps_of(questions(one=8, two=32), curriculum="mixed")
    assert sum(one for one, _ in shares(order)) == 8 and sum(two for _, two in shares(order)) == 32


@given(st.lists(st.integers(1, 20), min_size=2, max_size=3), st.integers(1, 30), st.integers(1, 12))
def test_every_step_is_full_and_holds_no_question_twice(sizes, steps, size):
    pools, start = [], 0
    for count in sizes:
        pools.append(list(range(start, start + count)))
        start += count
    size = min(size, start)
    order = curriculum.Annealed(pools, size, steps, 3)
    for number in range(steps):
        assert len(set(order.step(number))) == size
        assert sum(curriculum.counts(number, steps, size, sizes)) == size


def test_a_question_of_a_level_comes_again_only_after_all_others_of_it():
    order = curriculum.Annealed([list(range(7)), list(range(7, 20))], 5, 40, 0)
    drawn = [index for number in range(40) for index in order.step(number)]
    for pool in (range(7), range(7, 20)):
        own = [index for index in drawn if index in pool]
        passes = [own[start : start + len(pool)] for start in range(0, len(own) - len(pool) + 1, len(pool))]
        assert passes and all(sorted(each) == list(pool) for each in passes)


def test_a_step_is_the_same_whichever_steps_were_looked_at_before():
    pool = questions(one=11, two=13)
    straight = steps_of(pool)
    steps = [straight.step(n) for n in range(5)]
    resumed = steps_of(pool)
    assert resumed.step(4) == steps[4] and resumed.step(1) == steps[1] and straight.step(0) == steps[0]
    assert steps_of(pool, seed=1).step(0) != steps[0]


def test_questions_that_refill_a_step_are_others_within_the_bound_and_of_its_levels_first():
    order = steps_of(questions(one=10, two=30), max_oversampling=1.5)
    first, further = order.step(0), order.further(0)
    assert len(further) == 4 and not {each.id for each in first} & {each.id for each in further}
    assert [each.id[0] for each in further] == ["1", "1", "2", "2"]
    assert steps_of(questions(one=10, two=30), max_oversampling=1.5).further(0) == further
    assert steps_of(questions(one=10, two=30)).further(0) == []


def test_the_levels_of_an_annealed_step_are_mixed_where_it_is_divided_among_updates():
    pool = questions(one=30, two=30)
    single, divided = steps_of(pool), steps_of(pool, updates_per_rollout=2)
    assert shares(divided) == shares(single)
    assert [each.id for each in divided.step(2)] == [each.id for each in steps_of(pool, updates_per_rollout=2).step(2)]
    levels = ["".join(each.id[0] for each in order.step(2)) for order in (single, divided)]
    assert levels[0] == "11112222" != levels[1]


def test_an_annealed_curriculum_of_one_level_is_refused_with_its_field():
    with pytest.raises(
        ValidationError, match="curriculum annealed moves from one level to another, and levels has only 2"
    ):
        steps_of(questions(two=30), levels=["2"])


def test_an_annealed_curriculum_without_questions_of_a_level_is_refused_with_its_field():
    with pytest.raises(UserError, match="no question has level 1") as caught:
        steps_of(questions(two=30))
    assert caught.value.where == "stages.grpo.curriculum"

"""The order of questions over the steps of a stage."""

from __future__ import annotations

import collections

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gog_recipes.runtime.order import Order

sizes = st.integers(1, 40).flatmap(lambda size: st.tuples(st.integers(size, 90), st.just(size)))


@given(sizes, st.integers(0, 5))
def test_a_step_never_holds_a_question_twice_and_a_pass_holds_each_once(shape, seed):
    count, size = shape
    order = Order(count, size, seed)
    steps = [order.step(number) for number in range(3 * count // size + 1)]
    assert all(len(set(step)) == size for step in steps)
    drawn = [index for step in steps for index in step]
    for start in range(0, len(drawn) - count + 1, count):
        assert collections.Counter(drawn[start : start + count]) == collections.Counter(range(count))


def test_a_step_is_the_same_whichever_steps_were_looked_at_before():
    straight, resumed = Order(45, 32, 7), Order(45, 32, 7)
    steps = [straight.step(number) for number in range(9)]
    assert resumed.step(8) == steps[8] and resumed.step(3) == steps[3]


def test_passes_and_seeds_differ_in_their_order():
    orders = [Order(40, 20, seed) for seed in (1, 2)]
    passes = [order.step(number) + order.step(number + 1) for order in orders for number in (0, 2)]
    assert len({tuple(one) for one in passes}) == 4


def test_steps_larger_than_the_pool_are_refused():
    with pytest.raises(ValueError, match="steps of 5 out of 4"):
        Order(4, 5, 0)

"""Which conversations share a pass."""

from __future__ import annotations

import random

from gog.trajectory import Segment
from gog_recipes.models import packing


def test_every_conversation_is_in_exactly_one_pass_and_no_pass_exceeds_the_budget():
    rng = random.Random(0)
    for _ in range(200):
        lengths = [rng.randint(1, 90) for _ in range(rng.randint(0, 40))]
        passes = packing.plan(lengths, 100)
        assert sorted(index for members in passes for index in members) == list(range(len(lengths)))
        assert all(sum(lengths[index] for index in members) <= 100 for members in passes)


def test_a_conversation_longer_than_the_budget_forms_a_pass_of_its_own():
    assert packing.plan([30, 250, 40, 100], 100) == [[1], [3], [0, 2]]


def test_first_fit_from_the_longest_on_wastes_little():
    rng = random.Random(1)
    lengths = [rng.randint(100, 3000) for _ in range(160)]
    assert len(packing.plan(lengths, 16_384)) == -(-sum(lengths) // 16_384)


def test_tokens_that_are_learned_are_the_models_own_except_a_first_one():
    prompt, turn = Segment(source="prompt", tokens=(1, 2)), Segment(source="model", tokens=(3, 4, 5))
    assert packing.learned([prompt, turn, prompt, turn]) == 6
    assert packing.learned([turn, prompt]) == 2
    assert packing.learned(packing.idle(7)) == 1

"""Which conversations share a pass, and which of them their prompt."""

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


def conversation(prompt, rest=3, images=("a",)):
    return (Segment(source="prompt", tokens=prompt, images=images), Segment(source="model", tokens=(7,) * rest))


def test_conversations_share_a_prompt_of_the_same_tokens_and_images_only():
    same = [conversation((1, 2, 3)), conversation((1, 2, 3), 5)]
    others = [conversation((1, 2, 4)), conversation((1, 2, 3), images=("b",)), conversation((1, 2))]
    assert packing.groups([same[0], *others, same[1]]) == [[0, 4], [1], [2], [3]]


def test_what_the_model_wrote_is_never_shared():
    turn, seen = Segment(source="model", tokens=(5,)), Segment(source="observation", tokens=(6,))
    rows = [(Segment(source="prompt", tokens=(1, 2)), turn, seen, turn)] * 2
    assert packing.groups(rows) == [[0, 1]] and packing.length(packing.opening(rows[0])) == 2
    assert packing.groups([(turn, seen)] * 2) == [[0], [1]]
    assert packing.groups([(Segment(source="prompt", tokens=(1,)),)] * 2) == [[0], [1]]


def test_a_shared_prompt_counts_once_and_a_group_that_is_too_long_is_divided():
    prompt = tuple(range(60))
    rows = [conversation(prompt, 10) for _ in range(4)] + [conversation((1,), 19)]
    assert packing.passes(rows, 120) == [[0, 1, 2, 3, 4]]
    assert packing.passes(rows, 100) == [[0, 1, 2, 3], [4]]
    assert packing.passes(rows, 80) == [[0, 1], [2, 3], [4]]
    assert packing.passes(rows, 69) == [[0], [1], [2], [3], [4]]


def test_groups_share_a_pass_up_to_a_bound_that_divides_none_of_them():
    rows = [conversation(prompt, 10) for prompt in [(1,) * 60] * 4 + [(2,) * 60] * 4 + [(3,) * 5] * 2]
    assert packing.passes(rows, 300) == [[0, 1, 2, 3, 4, 5, 6, 7, 8, 9]]
    assert packing.passes(rows, 300, 130) == [[0, 1, 2, 3, 8, 9], [4, 5, 6, 7]]
    assert packing.passes(rows, 300, 50) == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    assert packing.passes(rows, 80, 1000) == packing.passes(rows, 80)


def test_passes_of_groups_hold_every_conversation_once_and_fit():
    rng = random.Random(2)
    for _ in range(50):
        prompts = [tuple(rng.choices(range(9), k=rng.randint(1, 60))) for _ in range(5)]
        rows = [conversation(rng.choice(prompts), rng.randint(1, 40)) for _ in range(rng.randint(0, 30))]
        passes = packing.passes(rows, 100)
        assert sorted(index for members in passes for index in members) == list(range(len(rows)))
        for members in passes:
            own = [rows[index] for index in members]
            prompt_tokens = {row[0].tokens: len(row[0].tokens) for row in own}
            assert sum(prompt_tokens.values()) + sum(len(row[1].tokens) for row in own) <= 100

"""How the groups of a step are divided among its optimizer steps."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from support.builders import make_trajectory

from gog.spec import GRPOConfig
from gog_recipes.runtime import minibatches

NEEDED = {"model": {"base": "tiny"}, "data": {"world": {}}, "store": {"uri": "file:///unused"}}
ADVANTAGES = {"signal": (1.0, -1.0), "silent": (0.0, 0.0), "excluded": (None, None), "one left": (None, 0.5)}


def groups(*kinds):
    return [[make_trajectory(advantage=each) for each in ADVANTAGES[kind]] for kind in kinds]


def test_groups_with_a_signal_are_divided_evenly_and_in_the_order_of_their_questions():
    assert minibatches.divide(groups(*["signal"] * 7), 3) == [[0, 1, 2], [3, 4], [5, 6]]
    assert minibatches.divide(groups("signal", "silent", "silent", "signal"), 2) == [[0, 1], [2, 3]]


def test_one_mini_batch_has_every_group_that_counts():
    assert minibatches.divide(groups("silent", "signal", "excluded", "one left"), 1) == [[0, 1, 3]]


@given(st.lists(st.sampled_from(sorted(ADVANTAGES)), max_size=40), st.integers(1, 9))
def test_every_mini_batch_has_a_signal_and_as_many_groups_as_the_others(kinds, count):
    found = minibatches.divide(groups(*kinds), count)
    signal = [index for index, kind in enumerate(kinds) if kind in ("signal", "one left")]
    assert len(found) == min(count, len(signal)), "fewer where fewer groups have a signal, none without"
    for numbers in ([len(each) for each in found], [len(set(each) & set(signal)) for each in found]):
        assert not numbers or (min(numbers) >= 1 and max(numbers) - min(numbers) <= 1)
    wanted = [index for index, kind in enumerate(kinds) if kind != "excluded"] if signal else []
    assert sorted(index for each in found for index in each) == wanted


def test_fewer_optimizer_steps_than_were_asked_for_are_logged_with_the_setting():
    line = "step 3: 1 optimizer step and not stages.grpo.updatesPerRollout 4, because no more groups carry a signal"
    assert minibatches.line(3, 1, 4) == line


def test_more_updates_than_groups_are_refused_with_both_fields_and_a_remedy():
    GRPOConfig.model_validate(NEEDED | {"questionsPerStep": 8, "updatesPerRollout": 8})
    with pytest.raises(
        ValidationError, match=r"updatesPerRollout 9 .* questionsPerStep is 8: set it to 8 or less, or raise"
    ):
        GRPOConfig.model_validate(NEEDED | {"questionsPerStep": 8, "updatesPerRollout": 9})
    with pytest.raises(ValidationError, match="updatesPerRollout"):
        GRPOConfig.model_validate(NEEDED | {"updatesPerRollout": 0})

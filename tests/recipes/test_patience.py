"""When a step of the engine begins, and whom it advances."""

from __future__ import annotations

import numpy as np
import pytest

from gog.trajectory import Segment
from gog_recipes.models.kv_cache import Shared
from gog_recipes.rollout import scheduling
from gog_recipes.rollout.patience import LEAST, MOST, Patience
from gog_recipes.rollout.slots import Group, Slot

STEP = 0.01


def test_a_step_begins_at_once_when_most_are_there() -> None:
    assert Patience(STEP).left(0.0, ready=8, coming=0, away=8) == 0.0


def test_a_step_waits_for_observations_that_are_being_prepared_although_most_are_there() -> None:
    assert Patience(STEP).left(0.0, ready=15, coming=1, away=0) == STEP


def test_a_step_begins_when_none_has_come_for_as_long_as_a_step_takes() -> None:
    patience = Patience(STEP)
    assert patience.left(0.0, ready=1, coming=0, away=15) == STEP
    assert patience.left(0.6 * STEP, ready=2, coming=0, away=14) == STEP  # one came
    assert patience.left(1.2 * STEP, ready=2, coming=0, away=14) == pytest.approx(0.4 * STEP)
    assert patience.left(1.7 * STEP, ready=2, coming=0, away=14) == 0.0


@pytest.mark.parametrize(("seconds", "waited"), [(0.0, LEAST), (10.0, MOST)])
def test_a_wait_is_bounded_whatever_a_step_takes(seconds: float, waited: float) -> None:
    assert Patience(seconds).left(0.0, ready=1, coming=0, away=9) == waited


def test_nothing_is_waited_for_where_none_is_ready() -> None:
    assert Patience(STEP).left(0.0, ready=0, coming=3, away=1) == 0.0


def slot(number: int, pending: int) -> Slot:
    """A conversation of a prompt that was read, with some tokens to read."""
    opening = Segment(source="prompt", tokens=(1, 2, 3))
    made = Slot(number, np.random.default_rng(0), Group(), segments=[opening], shared=Shared([0], 3), cached=3)
    made.pending = [5] * pending
    return made


def chosen(ready: list[Slot]) -> list[int]:
    """The numbers of the conversations of the next step."""
    return [each.number for each in next(scheduling.choices(ready, 1000, alone=False))]


@pytest.mark.parametrize(("reading", "decoding", "passed"), [(1, 3, 2), (2, 4, 1), (4, 4, 0), (5, 2, 0), (1, 1, 0)])
def test_observations_are_read_once_they_have_waited_for_as_many_steps_as_their_reading_delays(
    reading: int, decoding: int, passed: int
) -> None:
    wide, narrow = [slot(n, 9) for n in range(reading)], [slot(100 + n, 1) for n in range(decoding)]
    steps = [chosen([*wide, *narrow]) for _ in range(passed + 1)]
    assert steps == [[each.number for each in narrow]] * passed + [[each.number for each in wide]]


def test_conversations_that_all_decode_are_advanced_together() -> None:
    assert chosen([slot(n, 1) for n in range(5)]) == [0, 1, 2, 3, 4]

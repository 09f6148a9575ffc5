"""How far a stage has come, as its object's status will hold it."""

from __future__ import annotations

import json

import hypothesis
import hypothesis.strategies as some
import pytest

from gog import progress

NUMBERS = some.floats(-1e3, 1e3)


def test_a_long_stage_tells_no_more_than_a_short_one():
    told = json.dumps(progress.course([step / 7 for step in range(100_000)]))
    assert len(told) < 500


@hypothesis.given(some.lists(NUMBERS, min_size=1, max_size=progress.POINTS))
def test_a_short_series_is_told_whole(values):
    assert progress.course(values) == pytest.approx(values, rel=1e-3)


@hypothesis.given(some.lists(NUMBERS, min_size=1, max_size=500))
def test_a_course_is_of_few_points_between_the_least_and_the_most(values):
    told = progress.course(values)
    assert len(told) == min(progress.POINTS, len(values))
    assert min(values) - 1 <= min(told) <= max(told) <= max(values) + 1


def test_nothing_has_no_course():
    assert progress.course([]) == []

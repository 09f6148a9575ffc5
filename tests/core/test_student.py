"""Student's t, against tables."""

from __future__ import annotations

import math

import pytest

from gog import student

TABLE = {1: 12.706, 2: 4.303, 3: 3.182, 5: 2.571, 10: 2.228, 30: 2.042, 120: 1.980, 500: 1.965, 1000: 1.962}
"""97.5 % quantiles by degrees of freedom."""


@pytest.mark.parametrize(("freedom", "value"), TABLE.items())
def test_quantiles_are_those_of_tables(freedom: int, value: float) -> None:
    assert student.quantile(0.975, freedom) == pytest.approx(value, abs=0.003)
    assert student.two_sided(value, freedom) == pytest.approx(0.05, abs=0.0003)


def test_chances_are_those_of_closed_forms() -> None:
    assert student.two_sided(1.0, 1) == pytest.approx(0.5)
    assert student.two_sided(3.0, 2) == pytest.approx(1 - 3 / math.sqrt(11))
    assert student.two_sided(0.0, 2.7) == pytest.approx(1.0)
    assert student.two_sided(math.inf, 2) == 0.0
    assert student.two_sided(5.0, 2) == pytest.approx(student.two_sided(-5.0, 2))


def test_the_change_to_the_normal_distribution_is_smooth() -> None:
    below, above = (student.two_sided(2.5, student.LARGE + step) for step in (-0.01, 0.0))
    assert below == pytest.approx(above, rel=0.03)

"""Exit codes of a trainer mean the same on one machine and on a cluster."""

from __future__ import annotations

import pytest

from gog_operator.api import exit_codes


@pytest.mark.parametrize(
    ("code", "normal", "state"),
    [
        (0, 0, "succeeded"),
        (1, 1, "failed"),
        (2, 2, "failed"),
        (127, 127, "failed"),
        (130, -2, "lost"),
        (-2, -2, "lost"),
        (137, -9, "failed"),
        (-9, -9, "failed"),
        (143, -15, "failed"),
        (255, 255, "failed"),
    ],
)
def test_a_signal_is_the_same_however_it_is_reported(code, normal, state):
    assert exit_codes.normalized(code) == normal
    assert exit_codes.state(exit_codes.normalized(code)) == state


@pytest.mark.parametrize(("code", "number"), [(None, None), (0, None), (2, None), (137, 9), (-9, 9), (255, None)])
def test_a_signal_has_one_number_however_it_is_reported(code, number):
    assert exit_codes.signal_number(code) == number

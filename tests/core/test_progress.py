"""The progress of a stage, as its object's status holds it."""

from __future__ import annotations

import json
import math
from pathlib import Path

import hypothesis
import hypothesis.strategies as some
import pytest

from gog import progress

NUMBERS = some.floats(-1e3, 1e3)


def test_the_series_of_a_long_stage_is_as_small_as_that_of_a_short_one() -> None:
    assert len(json.dumps(progress.downsample([step / 7 for step in range(100_000)]))) < 500


@hypothesis.given(some.lists(NUMBERS, min_size=1, max_size=progress.POINTS))
def test_a_short_series_keeps_every_value(values: list[float]) -> None:
    assert progress.downsample(values) == pytest.approx(values, rel=1e-3)


@hypothesis.given(some.lists(NUMBERS, min_size=1, max_size=500))
def test_a_downsampled_series_stays_between_its_extremes(values: list[float]) -> None:
    points = progress.downsample(values)
    assert len(points) == min(progress.POINTS, len(values))
    assert min(values) - 1 <= min(points) <= max(points) <= max(values) + 1


def test_an_empty_series_stays_empty() -> None:
    assert progress.downsample([]) == []


def test_the_newest_report_replaces_the_one_before(tmp_path: Path) -> None:
    assert progress.read(tmp_path / "work") is None
    progress.report(tmp_path / "work", 1, 10, {"loss": 2.0})
    progress.report(tmp_path / "work", 2, 10, {"loss": 1.0}, {"ref": "sft/2", "complete": False})
    found = {"step": 2, "total": 10, "metrics": {"loss": 1.0}, "checkpoint": {"ref": "sft/2", "complete": False}}
    assert progress.read(tmp_path / "work") == found
    assert [path.name for path in (tmp_path / "work").iterdir()] == [progress.FILE]


def test_a_termination_message_leaves_out_the_longest_series_first() -> None:
    report = progress.document(5, 10, {"loss": 0.5, "short": [0.25] * 40, "long": [0.123456789] * 1_000})
    shortened = json.loads(progress.shorten(report))
    assert shortened == {**report, "metrics": {"loss": 0.5, "short": [0.25] * 40}}
    assert len(progress.shorten(report).encode()) <= progress.MESSAGE_BYTES


def test_a_figure_that_is_not_finite_is_null(tmp_path: Path) -> None:
    progress.report(tmp_path, 1, 2, {"loss": math.nan, "rewards": [0.5, math.inf], "levels": {"1": -math.inf}})
    found = progress.read(tmp_path)
    assert found is not None and found["metrics"] == {"loss": None, "rewards": [0.5, None], "levels": {"1": None}}
    assert json.loads(progress.shorten(progress.document(1, 2, {"loss": math.nan})))["metrics"] == {"loss": None}

"""The log of a stage's steps, read while it grows: what is read, how much of it, and what a torn or renewed one does."""

from __future__ import annotations

import json
import math
import os

import pytest

from gog_console.status import metric_log


def written(path, steps, mode="w", **figures):
    with path.open(mode) as stream:
        for step in steps:
            stream.write(
                json.dumps({"step": step, "total": 1000, "seconds": 2.0, "reward": step / 10, **figures}) + "\n"
            )


@pytest.fixture
def path(tmp_path):
    return tmp_path / "metrics.jsonl"


@pytest.fixture
def bytes_read(monkeypatch):
    """How many bytes each look at a file has read."""
    counted, really = [], os.pread

    def counting(handle, size, at):
        data = really(handle, size, at)
        counted.append(len(data))
        return data

    monkeypatch.setattr(metric_log.os, "pread", counting)
    return counted


def looked_at(path):
    made = metric_log.Curve(path)
    made.update()
    return made


def test_a_missing_log_has_no_points(path):
    assert looked_at(path).points == [] and looked_at(path).pace is None
    assert looked_at(path).stretches("reward", 8) == []


def test_an_incomplete_last_line_is_left_for_the_next_update(path):
    written(path, [1, 2])
    with path.open("a") as stream:
        stream.write('{"step": 3, "rew')
    made = looked_at(path)
    assert made.values("reward") == [0.1, 0.2]
    with path.open("a") as stream:
        stream.write('ard": 0.3}\n')
    made.update()
    assert made.values("reward") == [0.1, 0.2, 0.3]


def test_lines_that_are_not_steps_are_skipped(path):
    path.write_text(
        'torn{\n[1]\n"x"\n{"reward": 1}\n{"step": 4, "reward": 2, "word": "x", "yes": true}\n\xff\n', "latin-1"
    )
    made = looked_at(path)
    assert [point.step for point in made.points] == [4]
    assert made.values("word") == [] and made.values("yes") == []


def test_an_update_reads_only_what_was_appended(path, bytes_read):
    written(path, range(1, 1001))
    made = looked_at(path)
    size = path.stat().st_size
    assert sum(bytes_read) == size
    bytes_read.clear()
    made.update()
    assert sum(bytes_read) <= metric_log.MARK
    written(path, [1001], "a")
    bytes_read.clear()
    made.update()
    assert sum(bytes_read) <= path.stat().st_size - size + 2 * metric_log.MARK
    assert made.points[-1].step == 1001


def test_a_long_log_is_sampled_without_changing_its_course(path, bytes_read):
    written(path, range(1, 100_001), filling="x" * 200)
    made = looked_at(path)
    assert path.stat().st_size > 20_000_000 and sum(bytes_read) <= metric_log.WHOLE
    assert (made.points[0].step, made.points[-1].step) == (1, 100_000)
    assert len(made.points) <= metric_log.KEPT
    stretches = made.stretches("reward", 10)
    assert stretches == pytest.approx([500 + 1000 * index for index in range(10)], abs=200)
    written(path, [100_001], "a")
    bytes_read.clear()
    made.update()
    assert sum(bytes_read) < 1000 and made.points[-1].step == 100_001


def test_memory_is_bounded_however_long_a_log_is_followed(path):
    made = metric_log.Curve(path)
    for first in range(1, 20_000, 1000):
        written(path, range(first, first + 1000), "a")
        made.update()
    steps = [point.step for point in made.points]
    assert len(steps) <= metric_log.KEPT and steps == sorted(steps) and steps[0] == 1
    assert steps[-metric_log.RECENT :] == list(range(20_001 - metric_log.RECENT, 20_001))


def test_a_stage_that_starts_again_is_read_from_its_beginning(path):
    written(path, range(1, 11))
    made = looked_at(path)
    written(path, range(1, 4), reward=9.0)
    made.update()
    assert made.values("reward") == [9.0, 9.0, 9.0]


def test_a_rewritten_log_is_detected_even_if_it_is_longer(path):
    written(path, range(1, 4))
    made = looked_at(path)
    written(path, range(1, 9), reward=9.0)
    made.update()
    assert made.values("reward") == [9.0] * 8


def test_ranges_without_steps_are_gaps_and_non_finite_values_remain_visible(path):
    written(path, [1, 2])
    written(path, [3, 4], "a", reward=math.inf)
    written(path, [9, 10], "a")
    stretches = looked_at(path).stretches("reward", 5)
    assert stretches[0] == pytest.approx(0.15) and math.isnan(stretches[1]) and stretches[2:4] == [None, None]


def test_the_pace_is_the_median_of_the_last_steps(path):
    written(path, range(1, 50), seconds=100.0)
    written(path, range(50, 70), "a", seconds=3.0)
    written(path, [70], "a", seconds=900.0)
    assert looked_at(path).pace == 3.0

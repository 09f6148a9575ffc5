"""The benchmark of losses: resumed where it was interrupted, and a page of which it changes its own section only."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def benchmark() -> ModuleType:
    sys.path.insert(0, str(ROOT / "benchmarks"))
    try:
        spec = importlib.util.spec_from_file_location("benchmarks_losses", ROOT / "benchmarks/losses.py")
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(ROOT / "benchmarks"))
    return module


def runs(*curves):
    return [{"rewards": list(c), "gain": c[-1] - c[0], "accuracy": 0.5, "ci95": [0.4, 0.6], "n": 100} for c in curves]


def test_a_curve_is_the_mean_of_each_tenth_of_the_steps_over_seeds(benchmark):
    assert benchmark.curve(runs(range(20), range(10, 30))) == [5.5 + 2 * part for part in range(10)]
    assert benchmark.curve(runs((1.0, 2.0, 4.0))) == [1.0] * 4 + [2.0] * 3 + [4.0] * 3


def test_the_page_names_every_loss_the_commit_and_changed_settings(benchmark):
    text = benchmark.section({"grpo": runs(range(10)), "dapo": runs(range(10))}, "abc1", ["stages.grpo.steps=60"])
    assert text.startswith("## Losses\n") and "commit abc1" in text and "`stages.grpo.steps=60`" in text
    assert "| grpo | 0.000 | 1.000 |" in text and "| dapo |" in text and "+9.000 to +9.000" in text


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("# Performance\n\nIt is fast.\n", "# Performance\n\nIt is fast.\n\n## Losses\n\nnew\n"),
        ("# P\n\n## Losses\n\nold\n\n## Growth\n\nflat\n", "# P\n\n## Losses\n\nnew\n\n## Growth\n\nflat\n"),
    ],
)
def test_a_measurement_replaces_its_own_section_of_the_page_only(benchmark, tmp_path, before, after):
    page = tmp_path / "performance.md"
    page.write_text(before)
    benchmark.write(page, "## Losses\n\nnew\n")
    assert page.read_text() == after


def with_gog(tmp_path, monkeypatch, body):
    """Puts a program in the place of gog."""
    program = tmp_path / "gog"
    program.write_text(f"#!/bin/sh\n{body}\n")
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))


def test_a_run_that_is_interrupted_is_incomplete_and_one_that_fails_ends_the_benchmark(
    benchmark, tmp_path, monkeypatch
):
    with_gog(tmp_path, monkeypatch, 'trap "exit 130" INT; kill -INT $$; exit 1')
    assert benchmark.run(tmp_path, 0, ("dapo",), (), None) is None
    with_gog(tmp_path, monkeypatch, "exit 1")
    with pytest.raises(SystemExit, match="seed 0 failed with exit code 1"):
        benchmark.run(tmp_path, 0, ("dapo",), (), None)


def test_a_run_that_exceeds_its_time_gets_a_signal_on_which_it_can_be_resumed(benchmark, tmp_path, monkeypatch):
    with_gog(tmp_path, monkeypatch, 'trap "exit 130" INT\nwhile :; do :; done')
    assert benchmark.run(tmp_path, 0, ("dapo",), (), 0.2) is None


def test_a_complete_run_is_read_from_its_summary(benchmark, tmp_path, monkeypatch):
    report = tmp_path / "losses-0" / "report"
    report.mkdir(parents=True)
    (report / "summary.json").write_text(json.dumps({"grpo": []}))
    with_gog(tmp_path, monkeypatch, f'echo "$@" >{tmp_path}/given')
    assert benchmark.run(tmp_path, 0, ("dr_grpo",), ("stages.grpo.steps=60",), None) == {"grpo": []}
    given = (tmp_path / "given").read_text()
    assert "stages.grpo.steps=60" in given and "{name: dr-grpo, set: {stages.grpo.loss: dr_grpo," in given

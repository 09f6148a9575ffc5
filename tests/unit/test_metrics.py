"""Metrics and progress: names that dashboards rely on, and a report that is never half written."""

from __future__ import annotations

from pathlib import Path

import pytest

from gog import metrics, progress
from gog.tools import FailureKind

LABELS = {"tool", "backend", "outcome", "result", "stage", "status", "kind", "component", "le"}


def test_every_name_has_the_prefix_and_a_base_unit() -> None:
    for family in metrics.REGISTRY.collect():
        assert family.name.startswith("gog_")
        assert not family.name.endswith(("_ms", "_milliseconds", "_minutes", "_mb", "_percent"))
        assert family.documentation.endswith(".")


def test_labels_are_bounded() -> None:
    metrics.initialise_tool("textSearch", "labels")
    used = {label for family in metrics.REGISTRY.collect() for sample in family.samples for label in sample.labels}
    assert used <= LABELS


@pytest.mark.parametrize("outcome", ["ok", *FailureKind])
def test_fact_12_every_outcome_starts_at_zero(outcome: str) -> None:
    metrics.initialise_tool("textSearch", "untouched")
    labels = {"tool": "textSearch", "backend": "untouched", "outcome": outcome}
    assert metrics.REGISTRY.get_sample_value("gog_tool_calls_total", labels) == 0
    assert metrics.REGISTRY.get_sample_value("gog_tool_attempts_total", labels) == 0


def test_fact_12_attempts_are_reported_by_tool_and_outcome() -> None:
    metrics.initialise_tool("reported", "b")
    for outcome in ("ok", "ok", "timeout"):
        metrics.tool_attempt("reported", "b", outcome)
    table = metrics.attempts_by_outcome()["reported"]
    assert (table["ok"], table["timeout"], table["malformed"]) == (2, 1, 0)


def test_progress_is_read_as_it_was_reported(tmp_path: Path) -> None:
    progress.report(tmp_path / "work", 3, 10, {"loss": 0.5})
    progress.report(tmp_path / "work", 4, 10)
    assert progress.read(tmp_path / "work") == {"step": 4, "total": 10, "metrics": {}}
    assert [path.name for path in (tmp_path / "work").iterdir()] == [progress.FILE]


@pytest.mark.parametrize("content", [None, "", '{"step": 3'])
def test_progress_that_is_not_there_yet_is_none(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / progress.FILE).write_text(content)
    assert progress.read(tmp_path) is None


def test_attempts_at_several_back_ends_of_a_tool_are_counted_together() -> None:
    def so_far() -> int:
        return metrics.attempts_by_outcome().get("summed", {}).get("ok", 0)

    before = so_far()
    for backend in ("a", "b", "a"):
        metrics.tool_attempt("summed", backend, "ok")
    assert so_far() - before == 3

"""Traces of a minimal real run of the world, as a collector receives them. Takes two minutes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from support.collector import Collector

pytestmark = pytest.mark.slow

GOG = [sys.executable, "-m", "gog_console"]
STAGES = ("curate", "sft", "stratify", "grpo", "evaluate")
SMALL = {
    "curate": {"trajectories": 48},
    "sft": {"maxSteps": 40},
    "stratify": {"questions": 6, "rollouts": 2},
    "grpo": {"steps": 2, "questionsPerStep": 2, "groupSize": 2, "levels": ["easy", "1", "2"]},
    "evaluate": {"questions": 6, "policies": ["sft", "grpo"], "bootstrap": 100},
}


def play(folder: Path, **spec) -> tuple[int, str]:
    """Runs a small world with `gog run`. Returns the exit code and the output."""
    body = {
        "apiVersion": "gog.dev/v1alpha1",
        "kind": "GoGRun",
        "metadata": {"name": "small"},
        "spec": {"model": {"base": "tiny"}, "data": {"world": {"train": 60, "test": 6}}, "stages": SMALL, **spec},
    }
    folder.mkdir()
    (folder / "small.yaml").write_text(yaml.safe_dump(body))
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    line = [*GOG, "run", "small.yaml"]
    done = subprocess.run(line, cwd=folder, env=environment, capture_output=True, text=True, timeout=600)
    return done.returncode, done.stdout + done.stderr


@pytest.fixture(scope="module")
def traced(tmp_path_factory):
    """A collector with all spans of a run, and the run's folder."""
    folder = tmp_path_factory.mktemp("traced") / "work"
    with Collector() as collector:
        code, output = play(
            folder,
            traces={"endpoint": collector.url, "share": 1.0},
            endpoints={"imageSearch": {"failures": {"rate": 0.2}}},
        )
        assert code == 0, output
    return collector, folder / "runs" / "small"


def test_a_run_is_one_tree_without_orphans_and_no_child_outlasts_its_parent(traced):
    collector, _ = traced
    by_id = {span.id: span for span in collector.spans}
    assert len(by_id) == len(collector.spans) and len({span.trace for span in collector.spans}) == 1
    (run,) = collector.named("run")
    assert [span for span in collector.spans if not span.parent] == [run]
    for span in collector.spans:
        if span is not run:
            parent = by_id[span.parent]
            assert parent.started <= span.started <= span.ended <= parent.ended, (span, parent)


def test_below_the_run_are_stages_then_episodes_then_turns_and_calls(traced):
    collector, _ = traced
    (run,) = collector.named("run")
    attempts = collector.children(run)
    assert [(span.name, span["gog.stage"], span["gog.outcome"]) for span in attempts] == [
        ("stage", stage, "ended") for stage in STAGES
    ]
    played = {span["gog.stage"]: collector.children(span) for span in attempts}
    assert {stage: len(episodes) for stage, episodes in played.items()} == {
        "curate": 48, "sft": 0, "stratify": 12, "grpo": 8, "evaluate": 12
    }  # fmt: skip
    above = {span.id: span.name for span in collector.spans}
    parents = {(span.name, above[span.parent]) for span in collector.spans if span is not run}
    assert parents >= {
        ("stage", "run"),
        ("episode", "stage"),
        ("turn", "episode"),
        ("chat", "turn"),
        ("execute_tool grounding", "turn"),
        ("execute_tool judge", "episode"),
        ("attempt", "execute_tool grounding"),
    }
    assert {span["gog.step"] for span in played["grpo"]} == {1, 2}
    assert {span["gog.level"] for span in played["grpo"]} <= {"easy", "1", "2"}


def test_a_call_that_missed_the_cache_has_a_span_per_attempt_and_fails_like_the_last_one(traced):
    collector, _ = traced
    made = [span for span in collector.spans if span.name.startswith("execute_tool") and span["gog.cache"] == "miss"]
    for call in made:
        attempts = collector.children(call)
        assert len(attempts) == call["gog.attempts"] > 0
        assert [span.failed for span in attempts] == [True] * (len(attempts) - 1) + [call.failed]


def test_an_unreachable_collector_fails_no_stage_and_each_stage_logs_it_once(tmp_path):
    with Collector() as collector:
        unreachable = collector.url
    code, output = play(tmp_path / "work", traces={"endpoint": unreachable, "share": 1.0})
    assert code == 0, output
    assert "small is complete." in output and output.count("the run's span is lost") == 1
    for stage in STAGES:
        logs = sorted((tmp_path / "work/runs/small/logs" / stage).rglob("stdout.log"))
        assert sum(path.read_text().count("spans are dropped") for path in logs) == 1, stage

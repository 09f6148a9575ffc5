"""A real run of the world, as small as it can be, and what a collector gets of it: one tree. Takes two minutes."""

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
    """`gog run` of a small world: exit code, and what it wrote."""
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
    """A collector that has all spans of a run, and the run's folder."""
    folder = tmp_path_factory.mktemp("traced") / "work"
    with Collector() as collector:
        code, told = play(
            folder,
            traces={"endpoint": collector.url, "share": 1.0},
            endpoints={"imageSearch": {"failures": {"rate": 0.2}}},
        )
        assert code == 0, told
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


def test_a_call_that_left_the_cache_shows_its_attempts_and_fails_as_the_last_of_them(traced):
    collector, _ = traced
    made = [span for span in collector.spans if span.name.startswith("execute_tool") and span["gog.cache"] == "miss"]
    for call in made:
        attempts = collector.children(call)
        assert len(attempts) == call["gog.attempts"] > 0
        assert [span.failed for span in attempts] == [True] * (len(attempts) - 1) + [call.failed]


def test_a_collector_that_is_away_fails_nothing_and_each_stage_says_so_once(tmp_path):
    with Collector() as collector:
        nobody = collector.url
    code, told = play(tmp_path / "work", traces={"endpoint": nobody, "share": 1.0})
    assert code == 0, told
    assert "small is complete." in told and told.count("the run's span is lost") == 1
    for stage in STAGES:
        logs = sorted((tmp_path / "work/runs/small/logs" / stage).rglob("stdout.log"))
        assert sum(path.read_text().count("spans are dropped") for path in logs) == 1, stage

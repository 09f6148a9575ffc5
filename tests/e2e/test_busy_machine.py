"""The world example while its engine blocks and its tools take their time: no tool is blamed for that. Takes minutes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from support import blocking_engine

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
GOG = [sys.executable, "-m", "gog_console"]
PLAYED = ("stratify", "grpo", "evaluate")
"""Stages whose turns an engine samples."""
ENGINE = {"engine": "support.blocking_engine:build"}
STAGES = {
    "curate": {"trajectories": 48},
    "sft": {"maxSteps": 60},
    "stratify": {"questions": 16, "rollouts": 3, **ENGINE},
    "grpo": {"steps": 2, "questionsPerStep": 8, "groupSize": 3, "levels": ["easy", "1", "2"], **ENGINE},
    "evaluate": {"questions": 16, "policies": ["sft", "grpo"], "bootstrap": 100, **ENGINE},
}
BACKENDS = {"grounding": "Detector", "imageSearch": "ImageSearch", "textSearch": "TextSearch", "judge": "Judge"}


def manifest() -> dict:
    """The example, small, with slow tools: they answer in 0.3 s, and fail on purpose in every way but by timeout."""
    body = yaml.safe_load((ROOT / "examples" / "world.yaml").read_text())
    body["spec"]["data"] = {"world": {"train": 60, "test": 16}}
    body["spec"]["stages"] = STAGES
    for tool, backend in BACKENDS.items():
        endpoint = body["spec"]["endpoints"][tool]
        endpoint["backend"] = f"support.slow_tools:{backend}"
        if "failures" in endpoint:
            endpoint["failures"]["kinds"] = ["429", "5xx", "malformed", "empty"]
    return body


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that completed."""
    folder = tmp_path_factory.mktemp("busy")
    (folder / "world.yaml").write_text(yaml.safe_dump(manifest()))
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT / "tests")}
    done = subprocess.run([*GOG, "run", "world.yaml"], cwd=folder, env=environment, timeout=900, check=False)
    assert done.returncode == 0
    return folder / "runs" / "world"


def log(run: Path, stage: str) -> str:
    """Everything that a stage wrote."""
    return "".join(path.read_text() for path in sorted((run / "logs" / stage).rglob("*.log")))


def test_the_example_keeps_its_own_deadline() -> None:
    assert manifest()["spec"]["tools"] == {"attempts": 1, "deadlineSeconds": 0.5}


@pytest.mark.parametrize("stage", PLAYED)
def test_steps_blocked_in_every_stage_that_samples(run: Path, stage: str) -> None:
    assert f"blocks for {blocking_engine.SECONDS} s" in log(run, stage)


@pytest.mark.parametrize("stage", ["curate", *PLAYED])
def test_no_call_is_lost_to_a_step_that_blocked(run: Path, stage: str) -> None:
    assert "timeout" not in log(run, stage)


def test_every_answer_was_judged(run: Path) -> None:
    summary = json.loads((run / "report" / "summary.json").read_text())
    assert [row["undecided"] for row in summary["evaluation"]] == [0, 0]

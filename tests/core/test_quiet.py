"""A stage's log begins with its own lines: known noise of libraries is dropped, and no other warning."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import support

from gog import quiet

LOADS_A_POLICY = """
from gog_recipes import grpo, sft
from gog_recipes.models import policy_model
from gog_recipes.world import TINY
import torch
from torchtune import training
training.set_seed(0)
model = policy_model.load_folder(TINY, torch.device("cpu"), torch.float32)
model.is_gradient_checkpointing
"""
LOADS_A_DETECTOR = """
from pathlib import Path
from tempfile import mkdtemp
from gog_tools.grounding import grounding_dino
from support import detector_folders
folder = detector_folders.grounding_dino(Path(mkdtemp()))
grounding_dino.GroundingDino(weights=str(folder), device="cpu")
"""
WARNS = """
import logging, warnings
logging.getLogger("torchao").warning("a kernel gives wrong results")
warnings.warn("a real deprecation", FutureWarning)
"""


@pytest.mark.slow
@pytest.mark.parametrize("program", [LOADS_A_POLICY, LOADS_A_DETECTOR], ids=["policy", "detector"])
def test_a_process_that_loads_a_model_logs_nothing_of_its_libraries_but_real_warnings(
    program: str, tmp_path: Path
) -> None:
    environment = {name: value for name, value in os.environ.items() if name != quiet.PROGRESS_BARS}
    environment |= {"PYTHONPATH": str(Path(support.__file__).parents[1]), "TMPDIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", program + WARNS],
        capture_output=True,
        text=True,
        timeout=120,
        env=environment,
        check=True,
    )
    lines = (done.stdout + done.stderr).splitlines()
    assert lines[0] == "a kernel gives wrong results", done.stderr
    assert "FutureWarning: a real deprecation" in lines[1] and len(lines) == 2


@pytest.mark.parametrize("logger", quiet.LOG_LINES)
def test_only_the_named_line_of_a_logger_is_dropped(logger: str, caplog: pytest.LogCaptureFixture) -> None:
    with warnings.catch_warnings():
        quiet.quiet()
    named = logging.getLogger(logger)
    named.warning("%s 2.13", quiet.LOG_LINES[logger])
    named.warning("another line")
    assert caplog.messages == ["another line"]


def test_a_setting_of_the_user_for_progress_bars_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(quiet.PROGRESS_BARS, "0")
    with warnings.catch_warnings():
        quiet.quiet()
    assert os.environ[quiet.PROGRESS_BARS] == "0"

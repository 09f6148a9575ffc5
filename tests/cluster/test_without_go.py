"""A machine without Go passes its tests, and reports once what did not run."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize("workers", ["0", "2"])
def test_one_line_says_that_the_api_server_could_not_be_built(tmp_path, workers):
    tests = Path(__file__).parents[1]
    environment = os.environ | {"PATH": str(tmp_path), "GOG_CLUSTER": str(tmp_path)}
    command = [sys.executable, "-m", "pytest", "-n", workers, "-m", "apiserver", tests / "cluster/test_api_server.py"]
    done = subprocess.run(command, cwd=tests.parent, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    lines = [line for line in done.stdout.splitlines() if "Go" in line]
    assert lines == [
        "4 tests on a real API server did not run: its programs are not built, and there is no Go to build them"
    ]

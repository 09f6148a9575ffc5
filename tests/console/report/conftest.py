"""A complete run with its report."""

from pathlib import Path

import pytest
import support.report_builders as builders
from support import report_objects

from gog_console import report


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A complete run with an arm and injected failures, reported."""
    spec = {
        "endpoints": {"imageSearch": {"failures": {"rate": 0.05}}},
        "stages": {"grpo": {"learningRate": 2e-4}},
    }
    folder = builders.make_run(tmp_path_factory.mktemp("runs"), arms=("no-gaze",), spec=spec)
    report.write(folder, now=report_objects.NOW)
    return folder

"""The table of docs/sizing.md is the one that the recorded estimates make, and the goal is among them."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def sizing() -> ModuleType:
    spec = importlib.util.spec_from_file_location("benchmarks_sizing", ROOT / "benchmarks/sizing.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_shows_the_recorded_estimates(sizing):
    rows = json.loads(sizing.RESULTS.read_text())
    assert sizing.table(rows) in sizing.PAGE.read_text(), "run make sizing"


def test_7b_and_8b_fit_on_eight_gpus_of_80_gb(sizing):
    rows = json.loads(sizing.RESULTS.read_text())
    assert all(rows[f"{model} x {gpus} x {memory}"]["fits"] for model, gpus, memory in sizing.GOAL)


def test_what_does_not_fit_is_bold_and_what_was_not_estimated_is_empty(sizing):
    found = {"stages": {"sft": {"phase": "update", "bytes": 31e9}, "grpo": {"phase": "decode", "bytes": 90e9}}}
    assert sizing.cell(found, 80) == "sft 31 (update) · **grpo 90 (decode)**"
    assert sizing.cell(None, 80) == ""

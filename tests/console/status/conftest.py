"""Folders of runs."""

from __future__ import annotations

import pytest
from support.operator_builders import NOW, holding, later, make_stage, make_tool_server
from support.status_runs import grpo_at_work, run_folder, steps

from gog_operator.api.meta import Reason
from gog_operator.api.objects import Progress


@pytest.fixture
def runs(tmp_path, monkeypatch):
    """The folder of runs, as seen from where `gog` is called."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    return tmp_path / "runs"


@pytest.fixture
def training(runs):
    """A run amid its GRPO."""
    done = {
        "attempt": 1,
        "start_time": NOW,
        "completion_time": later(58),
        "conditions": holding("Complete", Reason.COMPLETE),
    }
    sft = make_stage("SFTStage", status=done | {"progress": Progress(step=180, total=180, metrics={"loss": 0.42})})
    endpoint = make_tool_server(
        status={"url": "http://127.0.0.1:41023", "restarts": 1, "conditions": holding("Ready", Reason.READY)}
    )
    folder = run_folder(runs, "world", sft, grpo_at_work(), endpoint, stage="grpo")
    steps(
        folder, "grpo", range(1, 61), reward_mean=lambda step: step / 100, kl=lambda step: step * 1e-6,
        tool_failure_ratio=0.031, frac_reward_zero_std=lambda step: 0.25 if step > 30 else 0.5, seconds=3.0,
    )  # fmt: skip
    return folder

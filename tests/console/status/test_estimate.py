"""The estimated duration of a run of the embedded world."""

from __future__ import annotations

import doctest
import itertools

import pytest
import yaml
from support import kube
from support.operator_builders import NOW, later, make_run, make_stage

from gog_console import estimate
from gog_console.commands.stage import presets
from gog_console.status.live import LiveDisplay
from gog_operator.api import manifest
from gog_operator.cluster.local import LocalCluster


def world(tmp_path, **spec):
    """The world example with changes."""
    body = yaml.safe_load((kube.ROOT / "examples/world.yaml").read_text())
    body["spec"] |= spec
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump(body))
    return manifest.load(path, [])


def test_docstring_examples_hold():
    assert doctest.testmod(estimate).failed == 0


def test_every_stage_has_an_estimate_that_grows_with_its_work(tmp_path):
    default = estimate.seconds(world(tmp_path), presets(), 1.0)
    assert list(default) == ["curate", "sft", "stratify", "grpo", "evaluate"] and all(default.values())
    longer = estimate.seconds(world(tmp_path, stages={"grpo": {"steps": 240}}), presets(), 1.0)
    assert longer["grpo"] > 1.5 * default["grpo"] and longer["sft"] == default["sft"]


def test_arms_and_skipped_stages_count(tmp_path):
    arms = [{"name": "no-gaze", "set": {"stages.grpo.gaze": "off"}}]
    found = estimate.seconds(world(tmp_path, arms=arms, stages={"skip": ["evaluate"]}), presets(), 1.0)
    assert list(found) == ["curate", "sft", "stratify", "grpo", "grpo-no-gaze"]


def test_a_slower_machine_takes_longer(tmp_path):
    run = world(tmp_path)
    fast, slow = (sum(estimate.seconds(run, presets(), speed).values()) for speed in (1.0, 0.25))
    assert slow == pytest.approx(4 * fast)


def test_the_speed_follows_the_probe(monkeypatch):
    monkeypatch.setattr(estimate.os, "getloadavg", lambda: (0.0, 0.0, 0.0))
    monkeypatch.setattr(estimate.os, "cpu_count", lambda: 2)
    ticks = itertools.count(step=2 * estimate.PROBE_SECONDS)
    assert estimate.measured_speed(lambda: next(ticks)) == pytest.approx(0.5)


def test_a_run_of_other_data_has_no_estimate():
    run = make_run(data={"path": "/data"})
    assert estimate.seconds(run, presets(), 1.0) == {} and estimate.headline({}) == ""


def test_complete_stages_correct_the_remaining_time():
    estimates = {"curate": 10.0, "sft": 100.0, "grpo": 200.0}
    assert estimate.remaining(estimates, {}, set()) == 310.0
    assert estimate.remaining(estimates, {"curate": 30.0, "sft": 60.0}, {"curate"}) == 240.0 + 600.0
    assert estimate.remaining(estimates, {"curate": 30.0, "sft": 300.0, "grpo": 700.0}, {"curate", "sft"}) == 0.0


def test_the_live_display_counts_down_from_second_to_second(tmp_path):
    display = LiveDisplay(LocalCluster(tmp_path / "runs" / "world"), make_run(), {"sft": 100.0})
    stage = make_stage("SFTStage", status={"start_time": NOW, "attempt": 1})
    shown = [display._left({"sft": stage}, later(seconds)) for seconds in (10, 11)]
    assert shown == ["About 1:30 left.", "About 1:29 left."]

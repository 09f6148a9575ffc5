"""Traces of chosen steps: what they hold, that they are bounded, and that other steps write none."""

from __future__ import annotations

import asyncio
import gzip
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from support.builders import run

from gog import store
from gog.spec import GRPOConfig, ProfileSettings
from gog_recipes.runtime import profiler, resumption, timers
from gog_recipes.runtime.ranks import SINGLE


class Clock:
    """Seconds that pass when `sleep` is called."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def make(tmp_path: Path, clock: Any = None, **settings: Any) -> tuple[profiler.Profiler, timers.StepTimer, list[str]]:
    lines: list[str] = []
    stage = SimpleNamespace(
        key="grpo",
        ranks=SINGLE,
        common=tmp_path / "work",
        store=store.open_store(f"file://{tmp_path}/store"),
        log=lines.append,
    )
    timer = timers.StepTimer()
    wanted = ProfileSettings.model_validate(settings) if settings else None
    return profiler.Profiler(wanted, stage, timer, clock or Clock()), timer, lines  # type: ignore[arg-type]


def trace(tmp_path: Path, name: str) -> list[dict[str, Any]]:
    """Events of a trace in the store."""
    found = store.open_store(f"file://{tmp_path}/store").get_object(f"profiles/grpo/{name}")
    assert found is not None
    events: list[dict[str, Any]] = json.loads(gzip.decompress(found))["traceEvents"]
    return events


def one_step(made: profiler.Profiler, timer: timers.StepTimer, step: int) -> None:
    made.begin(step)
    with timer.part("train"), made.window("update"):
        torch.ones(8, 8) @ torch.ones(8, 8)
    made.end()


def test_a_trace_holds_operations_and_what_the_trainer_did_on_one_time_axis(tmp_path: Path) -> None:
    made, timer, lines = make(tmp_path, steps=[2])
    one_step(made, timer, 2)
    events = trace(tmp_path, "step-2-rank-0-update.json.gz")
    (product,) = [each for each in events if each["name"] == "aten::mm"]
    (train,) = [each for each in events if each["name"] == "train" and each["pid"] == profiler.GOG]
    assert train["ts"] - 5e3 < product["ts"] and product["ts"] + product["dur"] < train["ts"] + train["dur"] + 5e3
    assert "ui.perfetto.dev" in lines[0] and "step-2-rank-0-update.json.gz" in lines[0]
    assert (tmp_path / "work/profiles/step-2-rank-0-update.json.gz").exists()


def test_a_step_that_is_not_named_is_not_traced(tmp_path: Path) -> None:
    for settings in ({}, {"steps": [2]}):
        made, timer, lines = make(tmp_path, **settings)
        one_step(made, timer, 1)
        assert not lines and timer.spans is None and not (tmp_path / "work").exists()


def test_operations_are_recorded_for_the_configured_seconds_only(tmp_path: Path) -> None:
    clock = Clock()
    made, timer, _ = make(tmp_path, clock, steps=[1], seconds=3)
    made.begin(1)
    with timer.part("train"), made.window("update"):
        torch.ones(4, 4) @ torch.ones(4, 4)
        clock.now = 4.0
        with timer.part("reference"):
            torch.ones(4).cumsum(0)
    made.end()
    names = {each["name"] for each in trace(tmp_path, "step-1-rank-0-update.json.gz")}
    assert "aten::mm" in names and "aten::cumsum" not in names and "reference" in names


def test_episodes_at_the_same_time_have_tracks_of_their_own_which_their_tools_share() -> None:
    timer, log = timers.StepTimer(), profiler.SpanLog()
    timer.spans = log

    async def episode(name: str) -> None:
        with timer.episode(name):
            await asyncio.sleep(1)
            with timer.episode_waits("tools"):
                await asyncio.sleep(1)

    async def play() -> None:
        await asyncio.gather(episode("a"), episode("b"))
        await asyncio.gather(episode("c"))

    run(play())
    lanes: dict[int, list[str]] = {}
    for event in log.events(0, 0):
        if event["ph"] == "X":
            lanes.setdefault(event["tid"], []).append(event["name"])
    assert {lane: sorted(names) for lane, names in lanes.items()} == {
        1: ["a", "c", "tools", "tools"],
        2: ["b", "tools"],
    }


def test_a_trace_that_is_too_large_is_cut_off_and_can_still_be_read(tmp_path: Path) -> None:
    made, _timer, _ = make(tmp_path, steps=[1])
    made.begin(1)
    with made.window("update"):
        for _ in range(3000):
            torch.ones(2) + 1
    whole, short = tmp_path / "whole.json", tmp_path / "short.json.gz"
    made._windows["update"].export_chrome_trace(str(whole))
    size = profiler.write(whole, short, lambda base: (), limit=20_000)
    events = json.loads(gzip.decompress(short.read_bytes()))["traceEvents"]
    assert size < 60_000 and 100 < len(events) < len(json.loads(whole.read_text())["traceEvents"])


def test_a_trace_that_cannot_be_stored_is_reported_and_training_continues(tmp_path: Path) -> None:
    made, timer, lines = make(tmp_path, steps=[1])
    (tmp_path / "work").write_text("no folder")
    one_step(made, timer, 1)
    assert "could not be written" in lines[0]


@pytest.mark.parametrize(
    "wrong", [{"steps": []}, {"steps": [0]}, {"steps": list(range(1, 10))}, {"steps": [1], "seconds": 0}]
)
def test_settings_that_make_no_sense_are_refused(wrong: dict[str, Any]) -> None:
    needed = {"model": {"base": "tiny"}, "data": {"world": {}}, "store": {"uri": "file:///unused"}}
    with pytest.raises(ValueError, match="profile"):
        GRPOConfig.model_validate(needed | {"profile": wrong})


def test_a_resumed_stage_may_be_traced() -> None:
    assert "profile" in resumption.MAY_CHANGE

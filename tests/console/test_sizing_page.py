"""The tables of docs/sizing.md are those that the recorded estimates make, and the goal is among them."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from gog.spec import GRPOConfig
from gog_recipes.estimate import budget, published, subject, trace
from gog_recipes.estimate.request import Estimate, StageEstimate
from gog_recipes.runtime import config

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def sizing() -> ModuleType:
    spec = importlib.util.spec_from_file_location("benchmarks_sizing", ROOT / "benchmarks/sizing.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def recorded(sizing) -> dict[str, Any]:
    """The recorded estimates."""
    return json.loads(sizing.RESULTS.read_text())


@pytest.mark.parametrize("variant", ["", "nf4", "offload"])
def test_the_page_shows_the_recorded_estimates(sizing, recorded, variant):
    assert sizing.table(recorded, variant) in sizing.PAGE.read_text(), "run make sizing"


def test_7b_and_8b_fit_on_eight_gpus_of_80_gb(sizing, recorded):
    assert all(recorded[sizing.key(*each)]["fits"] for each in sizing.GOAL)
    assert sizing.headline(recorded).endswith("fits: met")
    assert sizing.headline({}).endswith("does not fit: missed")


def test_sampling_with_8b_on_eight_gpus_of_80_gb_takes_what_the_page_says(sizing, recorded):
    """The largest phase of its row; the whole row takes longer and is compared below."""
    name, gpus, memory = sizing.GOAL[1]
    [asked] = [each for each in sizing.ask(name, gpus, "")["stages"] if each["kind"] == "grpo"]
    cfg = config.typed(GRPOConfig, asked["config"])
    model = published.CONFIGS[name]
    subjects = [subject.build(model, cfg, layers, frozen=cfg.lora.rank, ranks=gpus) for layers in subject.DEPTHS]
    usable = budget.usable(memory * 10**9)
    sampled = trace._sampled(subjects, cfg, trace._conversations(cfg, gpus), usable)
    found = max((budget.phase(each, items, []) for each, items in sampled.items()), key=lambda each: each.total)
    page = recorded[sizing.key(name, gpus, memory)]["stages"]["grpo"]
    assert found.name.startswith(page["phase"])
    assert found.total == pytest.approx(page["bytes"], rel=0.01), "run make sizing"


@pytest.mark.slow
@pytest.mark.parametrize("number", [0, 1])
def test_the_rows_of_the_goal_are_what_gog_estimate_finds(sizing, recorded, number):
    name, gpus, _ = sizing.GOAL[number]
    found = sizing.estimates(name, sizing.ask(name, gpus, ""))
    for memory, each in zip(sizing.MEMORY, found, strict=True):
        row = recorded[sizing.key(name, gpus, memory)]
        assert sizing.cell(sizing.row(each), memory) == sizing.cell(row, memory), "run make sizing"


@pytest.fixture
def estimated(sizing, monkeypatch):
    """Models that were estimated, with few cases and without tracing; the third one is interrupted once."""
    monkeypatch.setattr(sizing, "MODELS", ("Qwen2.5-VL-3B", "Qwen2.5-VL-7B"))
    monkeypatch.setattr(sizing, "VARIANTS", {"": ("", (1, 2))})
    found = []

    def estimates(model, asked):
        found.append((model, asked["stages"][0]["gpus"]))
        if len(found) == 3:
            raise KeyboardInterrupt
        stages = [StageEstimate(key="grpo", phases=[budget.phase("decode", {}, [])], host_bytes=0, disk_bytes=0,
                                speed=None, notes=[])]  # fmt: skip
        size = Estimate(model=model, parameters=1, gpu_bytes=1, stages=stages, fits=True, verdict="fits")
        return [size] * len(sizing.MEMORY)

    monkeypatch.setattr(sizing, "estimates", estimates)
    return found


def test_an_interrupted_table_is_continued_where_it_ended(sizing, estimated):
    rows = {}
    with pytest.raises(KeyboardInterrupt):
        list(sizing.fill(rows, []))
    assert len(rows) == 2 * len(sizing.MEMORY)
    list(sizing.fill(rows, []))
    assert estimated[3:] == [("Qwen2.5-VL-7B", 1), ("Qwen2.5-VL-7B", 2)]
    assert list(sizing.fill(rows, [])) == []


def test_a_result_of_other_code_or_settings_is_estimated_again(sizing, estimated, monkeypatch):
    rows = {}
    list(sizing.fill(rows, ["Qwen2.5-VL-3B"]))
    monkeypatch.setattr(sizing, "code", lambda: ["x = 2"])
    assert sizing.stale(rows) == list(rows)
    monkeypatch.setattr(sizing, "MANIFEST", sizing.MANIFEST.replace("groupSize: 5", "groupSize: 6"))
    asked = sizing.ask("Qwen2.5-VL-3B", 1, "")
    assert sizing.basis(asked, ["x = 1"]) != sizing.basis(asked, ["x = 2"])


def test_comments_and_docstrings_change_no_result(sizing):
    source = 'class A:\n    "What it is."\n    x: int\n    """Of a field."""\n    def f(self):\n        "Does."\n'
    bare = "class A:\n    x: int # a field\n    def f(self):\n        ...\n"
    assert sizing.program(source).replace("body=[]", "") != sizing.program(source.replace("int", "str"))
    assert sizing.program(source + "        return 1\n") == sizing.program(bare.replace("...", "return 1"))
    assert sizing.program("x = 'text'") != sizing.program("x = 'other'")


def test_what_does_not_fit_is_bold_and_what_was_not_estimated_is_empty(sizing):
    found = {"stages": {"sft": {"phase": "update", "bytes": 31e9}, "grpo": {"phase": "decode", "bytes": 90e9}}}
    assert sizing.cell(found, 80) == "sft 31 (update) · **grpo 90 (decode)**"
    assert sizing.cell(None, 80) == ""

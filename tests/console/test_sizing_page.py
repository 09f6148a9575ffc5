"""The tables of docs/sizing.md are those that the recorded estimates make, and the goal is among them."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Iterator
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
def sizing() -> Iterator[ModuleType]:
    sys.path.insert(0, str(ROOT / "benchmarks"))
    try:
        spec = importlib.util.spec_from_file_location("benchmarks_sizing", ROOT / "benchmarks/sizing.py")
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        yield module
    finally:
        sys.path.remove(str(ROOT / "benchmarks"))


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
    stages = [StageEstimate(key="grpo", phases=[budget.phase("decode", {}, [])], host_bytes=0, disk_bytes=0,
                            speed=None, notes=[])]  # fmt: skip
    size = Estimate(model="", parameters=1, gpu_bytes=1, stages=stages, fits=True, verdict="fits")

    def estimates(model, asked):
        found.append((model, asked["stages"][0]["gpus"]))
        if len(found) == 3:
            raise KeyboardInterrupt
        return [size] * len(sizing.MEMORY)

    monkeypatch.setattr(sizing, "estimates", estimates)
    return found


def test_an_interrupted_table_is_continued_where_it_ended(sizing, estimated):
    rows = {}
    with pytest.raises(KeyboardInterrupt):
        list(sizing.fill(rows, {}, []))
    assert len(rows) == 2 * len(sizing.MEMORY)
    list(sizing.fill(rows, {}, []))
    assert estimated[3:] == [("Qwen2.5-VL-7B", 1), ("Qwen2.5-VL-7B", 2)]
    assert list(sizing.fill(rows, {}, [])) == []


def test_a_result_of_other_code_or_settings_is_estimated_again(sizing, estimated, monkeypatch):
    rows = {}
    list(sizing.fill(rows, {}, ["Qwen2.5-VL-3B"]))
    assert sizing.stale(rows, {}) == []
    with monkeypatch.context() as changed:
        changed.setattr(sizing, "code", lambda called: ["x = 2"])
        assert sizing.stale(rows, {}) == list(rows)
    monkeypatch.setattr(sizing, "MANIFEST", sizing.MANIFEST.replace("groupSize: 5", "groupSize: 6"))
    assert sizing.stale(rows, {}) == list(rows)


def test_a_function_that_a_later_estimate_calls_first_outdates_no_result(sizing, estimated, monkeypatch):
    rows, called = {}, {}
    list(sizing.fill(rows, called, ["Qwen2.5-VL-3B x 1"]))
    assert called == {}
    quick = sizing.estimates
    monkeypatch.setattr(sizing, "estimates", lambda *asked: budget.gigabytes(1) and quick(*asked))
    list(sizing.fill(rows, called, ["Qwen2.5-VL-3B x 2"]))
    assert called == {"estimate/budget.py": ["gigabytes"]}
    assert len(rows) == 4 and sizing.stale(rows, called) == [] and sizing.stale(rows, {}) == list(rows)


MODULE = """
LIMIT = 3

class Engine:
    size: int

    def step(self, count: int) -> int:
        if count > LIMIT:
            raise ValueError("too many")
        return count + 1

    def close(self):
        self.size = 0

def unused():
    return 1
"""


@pytest.mark.parametrize(
    ("before", "after", "matters"),
    [
        ("count + 1", "count + 2", True),
        ("LIMIT = 3", "LIMIT = 4", True),
        ("count > LIMIT", "count >= LIMIT", True),
        ("    def close(self):", "    def __len__(self):", True),  # a method may override another
        ("self.size = 0", "self.size = 1", False),
        ("return 1\n", "return 2\n", False),
        ("too many", "more than three", False),
        ("count: int", "count: float", False),
        ("        return count", '        "Counts."\n        # One more.\n        return count', False),
        ("class Engine:", 'class Engine:\n    "Steps."', False),
    ],
)
def test_a_result_depends_on_the_bodies_of_called_functions_and_on_no_text(sizing, before, after, matters):
    assert MODULE.count(before) == 1
    texts = [sizing.called_code.program(each, ["Engine.step"]) for each in (MODULE, MODULE.replace(before, after))]
    assert (texts[0] != texts[1]) == matters


def test_calls_are_recorded_by_module_and_name(sizing):
    with sizing.called_code.record() as found:
        budget.gigabytes(1)
        subject.depths({"num_hidden_layers": 2})
    assert found == {"estimate/budget.py": ["gigabytes"], "estimate/subject.py": found["estimate/subject.py"]}
    assert sorted(found["estimate/subject.py"]) == ["_layers", "_text", "depths"]


def test_what_does_not_fit_is_bold_and_what_was_not_estimated_is_empty(sizing):
    found = {"stages": {"sft": {"phase": "update", "bytes": 31e9}, "grpo": {"phase": "decode", "bytes": 90e9}}}
    assert sizing.cell(found, 80) == "sft 31 (update) · **grpo 90 (decode)**"
    assert sizing.cell(None, 80) == ""

"""benchmarks/trl.py compares equal work only: both sides read the same text, and a difference stops it."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import tokenizers
import transformers
from tokenizers import models

from gog import prompts
from gog.trajectory import Candidate

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def load(name: str) -> Any:
    spec = importlib.util.spec_from_file_location(f"compared_{name.replace('/', '_')}", BENCHMARKS / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def paths(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    monkeypatch.syspath_prepend(str(BENCHMARKS / "versus"))


@pytest.fixture
def workload(paths):
    return load("versus/workload")


@pytest.fixture
def comparison(paths):
    return load("trl")


@pytest.fixture
def render(paths):
    """Text of messages by the chat template that the other side uses."""
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizers.Tokenizer(models.WordLevel({"?": 0}, unk_token="?")),
        chat_template=load("versus/weights").CHAT_TEMPLATE,
    )
    return lambda messages, ask: tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=ask)


def opening(system: str, question: str) -> list[dict[str, Any]]:
    content = [{"type": "image"}, {"type": "text", "text": question}]
    return [{"role": "system", "content": system}, {"role": "user", "content": content}]


def test_the_other_sides_template_writes_the_prompt_of_an_episode(render, workload):
    question = workload.question(3)
    expected = prompts.prompt(question, style="full")
    system = expected.partition("system\n")[2].partition(prompts.TURN_END)[0]
    assert render(opening(system, question), True) == expected


def test_the_other_sides_template_writes_the_observation_of_an_episode(render, workload):
    box = workload.box_of("thing 1 2 3")
    before, after = workload.observation(2, box)
    content = [{"type": "text", "text": before}, {"type": "image"}, {"type": "text", "text": after}]
    written = [*opening("system", "question"), {"role": "assistant", "content": "sampled"}]
    longer = render([*written, {"role": "tool", "name": "ground", "content": content}], True)
    candidate = Candidate(number=2, box=box, score=0.9, crop="c")
    assert longer == render(written, False) + prompts.observation(prompts.candidates([candidate], style="full"))


def test_every_box_has_two_digits_a_side_and_few_calls_share_one(workload):
    boxes = [workload.box_of(workload.expression(10_001, sample, turn)) for sample in range(8) for turn in range(1, 4)]
    assert all(10 <= side <= 99 for box in boxes for side in box)
    assert all(box[2] - box[0] == box[3] - box[1] >= 28 for box in boxes)
    assert len(set(boxes)) == len(boxes)


def step(work: Any, **changes: Any) -> dict[str, Any]:
    model = (work.calls + 1) * work.turn_tokens
    counted = {"prompt": 303, "model": model, "observation": 180, "image": 64, **changes}
    return {"tokens": [dict(counted) for _ in range(work.trajectories)], "tool_calls": [work.calls] * work.trajectories}


@pytest.mark.parametrize("other", [{"model": 127}, {"observation": 179}, {"image": 48}, {"prompt": 304}])
def test_a_side_that_reads_or_writes_other_tokens_stops_the_comparison(comparison, workload, other):
    work = workload.Workload()
    comparison.check_equal({"gog": step(work), "trl": step(work)}, work)
    with pytest.raises(SystemExit, match=r"trl has done other work|trl generated"):
        comparison.check_equal({"gog": step(work), "trl": step(work, **other)}, work)


def test_a_side_that_calls_fewer_tools_stops_the_comparison(comparison, workload):
    work = workload.Workload()
    fewer = step(work) | {"tool_calls": [work.calls] * (work.trajectories - 1) + [work.calls - 1]}
    with pytest.raises(SystemExit, match="gog has done other work"):
        comparison.check_equal({"gog": fewer, "trl": step(work)}, work)


def test_what_slow_tools_add_is_compared_with_the_path_of_their_calls(comparison, workload):
    work = workload.Workload()

    def timed(seconds: float) -> dict[str, Any]:
        parts = {"rollout": seconds - 1, "train": 1.0}
        more = {"prefilled": 1, "unique": 1, "encoded": 2, "images": 1, "peak": 3_000_000}
        return {"cpu": parts, "wall": parts, "own_wall": parts, **more}

    steps = {
        "gog": [timed(4)],
        "gog_http": [timed(4)],
        "gog_slow": [timed(5.8)],
        "trl": [timed(10)],
        "trl_slow": [timed(34)],
    }
    found = {"steps": steps, "setup": {"gog": 1_000_000, "trl": 2_000_000}, "load": [1.0]}
    table = comparison.figures(found, work, 0.5)
    assert table["added_by_path"]["gog"]["median"] == pytest.approx(1.2)
    assert table["slow_own_wall"]["ratio"] == pytest.approx(34 / 5.8, abs=1e-3)
    assert table["rollout_cpu"]["ratio"] == 3
    assert table["memory"]["ratio"] == 0.5


def test_a_side_that_dies_is_reported_with_its_last_words(comparison, tmp_path):
    program = "import sys; print('\\n'.join(map(str, range(50))), file=sys.stderr); sys.exit('no weights here')"
    log = tmp_path / "log"
    with open(log, "w") as errors:
        process = subprocess.Popen(
            [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True
        )
    with pytest.raises(SystemExit) as ended:
        comparison.Side(process, log)
    process.stdin.close()
    process.stdout.close()
    lines = str(ended.value).splitlines()
    assert "ended with 1" in lines[0] and lines[-2:] == ["49", "no weights here"] and len(lines) == 31

"""An evaluation that is recorded, handed on as one file, and repeated where no tool server answers: the same scores."""

from __future__ import annotations

import asyncio
import json

import pytest
import torch
from support.chain_folders import copy_of

from gog import store
from gog.calls import recording_file
from gog.calls.recording import Recording
from gog.spec import EvaluateConfig
from gog_recipes.evaluate import EvaluateRecipe

TOOLS = ("grounding", "imageSearch", "textSearch", "judge")
DEAD = dict.fromkeys(TOOLS, "http://127.0.0.1:9")
"""Addresses at which nothing answers."""
BACKENDS = dict.fromkeys(TOOLS, "world")
"""What answers: recorded answers are known by it, so that they may be repeated at another address."""
QUESTIONS = 12
POLICIES = ["first-candidate", "full-search", "sft"]
"""A policy that grounds, one that searches whatever the model says, and one that chooses."""
TIMES = ("latency_p50_s", "latency_p95_s", "seconds")


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def without_times(record):
    """A row or an answer without how long it took."""
    return {name: value for name, value in record.items() if name not in TIMES}


@pytest.fixture
def evaluated(chain, make, tmp_path):
    """evaluated(name, mode, path, **settings): results and answers of an evaluation in a folder of that name."""

    def evaluate(name, mode, path, **settings):
        root = copy_of(chain, tmp_path / name)
        cache = {"mode": mode, "path": str(path)}
        tools = {"crop_side": 28, "cache": cache, "outage": {"patience_seconds": 0}}
        # Deterministic, because a replay answers at once: other episodes share a batch than in the recorded run.
        given = {"policies": POLICIES, "questions": QUESTIONS, "deterministic": True, "backends": BACKENDS}
        recipe = EvaluateRecipe(make(EvaluateConfig, root, tools=tools, **given, **settings))
        recipe.setup()
        recipe.save_checkpoint(asyncio.run(recipe.train()))
        recipe.cleanup()
        opened = store.Store(root / "store")
        files = {name: opened.open(opened.latest("evaluate"), name) for name in ("results.json", "answers.jsonl")}
        results = json.loads(files["results.json"].read_text())
        results["rows"] = [without_times(row) for row in results["rows"]]
        answers = [without_times(json.loads(line)) for line in files["answers.jsonl"].read_text().splitlines()]
        return results, answers

    return evaluate


def test_a_recorded_evaluation_is_repeated_elsewhere_with_the_same_scores(evaluated, tmp_path):
    there, here = tmp_path / "there.sqlite", tmp_path / "here.sqlite"
    results, answers = evaluated("first", "record", there)
    assert len(answers) == QUESTIONS * len(POLICIES) and not any(answer["failures"] for answer in answers)
    rows = {row["policy"]: row for row in results["rows"]}
    assert rows["sft"]["accuracy"] > 0 and all(row["tool_calls_mean"] > 0 for row in rows.values())

    exported = recording_file.write(Recording(there, must_exist=True), tmp_path / "run.gogrec")
    assert set(exported.answers) == set(TOOLS), "every tool was called"
    assert recording_file.read(tmp_path / "run.gogrec", lambda: Recording(here)).digest == exported.digest
    there.unlink()

    again, repeated = evaluated("second", "replay-strict", here, endpoints=DEAD)
    assert again["rows"] == results["rows"] and again["comparisons"] == results["comparisons"]
    assert repeated == answers

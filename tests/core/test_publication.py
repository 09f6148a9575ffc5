"""Versions of an agent: made of a run's checkpoint once its evaluation passes the gate."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from gog import adapters, publication, store, tensors
from gog.errors import UserError
from gog.offers import Asked
from gog.spec import GateSpec


def save_lora(folder: Path) -> None:
    """An adapter of one linear, as PEFT saves it."""
    folder.mkdir()
    pair = {"base_model.model.q.lora_A.weight": np.ones((8, 4), np.float32)}
    pair |= {"base_model.model.q.lora_B.weight": np.ones((4, 8), np.float32)}
    tensors.write(folder / adapters.WEIGHTS, {name: ("F32", value) for name, value in pair.items()})
    (folder / adapters.CONFIG).write_text(json.dumps({"peft_type": "LORA", "r": 8, "lora_alpha": 8}))


def trained(folder: Path, right: int, *, dataset: str = "d1", base: str = "tiny", n: int = 100) -> store.Store:
    """A run's store: an adapter, and its evaluation with so many right answers."""
    made = store.Store(folder / "store")
    save_lora(folder / "adapter")
    files = {name: folder / "adapter" / name for name in (adapters.CONFIG, adapters.WEIGHTS)}
    made.publish("grpo", 5, files, meta={"base": {"name": base}})
    lines = [
        {"policy": policy, "benchmark": "test", "question_id": f"q{number}", "accuracy": float(number < score)}
        for policy, score in (("direct", 0), ("grpo", right))
        for number in range(n)
    ]
    lines.append({"policy": "grpo", "benchmark": "test", "question_id": "undecided", "accuracy": None})
    (folder / "answers.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    settings = {"max_turns": 6, "gaze": "select", "tools": {"crop_side": 28, "cache": {"mode": "record", "path": "/a"}}}
    made.publish(
        "evaluate", 1, {"answers.jsonl": folder / "answers.jsonl"}, meta={"dataset": dataset, "settings": settings}
    )
    return made


def asked(run: str, **more: object) -> Asked:
    return Asked("assistant", run, "grpo/5", "grpo", "evaluate/1", **more)


def folders(tmp_path: Path, *names: str) -> list[Path]:
    made = [tmp_path / name for name in names]
    for each in made:
        each.mkdir()
    return made


def test_a_version_is_a_whole_policy_of_its_own_and_has_the_caps_of_the_evaluation(tmp_path):
    (one,) = folders(tmp_path, "one")
    own, target = trained(one, 60), store.Store(tmp_path / "agent")
    made = publication.publish(own, target, asked("one uid-1", gate=GateSpec(min_accuracy=0.5)))
    assert made.version == "assistant/1" and "answers 60.0% of 100 questions correctly" in made.sentence
    assert (made.settings, made.tools) == ({"maxTurns": 6}, {"cropSide": 28})
    assert [each.ref for each in adapters.lineage(target, made.version)] == ["assistant/1"]
    adapters.fetch_servable(target, made.version, tmp_path / "served")


def test_a_question_that_was_answered_several_times_counts_with_the_mean_of_its_verdicts(tmp_path):
    (one,) = folders(tmp_path, "one")
    own, target = trained(one, 60), store.Store(tmp_path / "agent")
    lines = [
        {"policy": "grpo", "benchmark": "test", "question_id": f"q{number}", "sample": sample, "accuracy": verdict}
        for number in range(10)
        for sample, verdict in enumerate((1.0, 1.0, 1.0, 0.0))
    ]
    (one / "answers.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    own.publish("evaluate", 2, {"answers.jsonl": one / "answers.jsonl"}, meta={"dataset": "d1", "settings": {}})
    made = publication.publish(own, target, dataclasses.replace(asked("one uid-1"), evaluation="evaluate/2"))
    assert "answers 75.0% of 10 questions correctly" in made.sentence


def test_a_publication_that_is_repeated_makes_no_second_version(tmp_path):
    (one,) = folders(tmp_path, "one")
    own, target = trained(one, 60), store.Store(tmp_path / "agent")
    first = publication.publish(own, target, asked("one uid-1"))
    assert publication.publish(own, target, asked("one uid-1", served="assistant/1")) == first
    assert target.steps("assistant") == [1]


def test_a_worse_policy_is_compared_with_the_one_that_is_served_and_not_published(tmp_path):
    one, two = folders(tmp_path, "one", "two")
    target = store.Store(tmp_path / "agent")
    publication.publish(trained(one, 80), target, asked("one uid-1"))
    made = publication.publish(trained(two, 50), target, asked("two uid-2", served="assistant/1"))
    assert made.version == "" and "worse: -30.0%" in made.sentence and target.steps("assistant") == [1]
    three = publication.publish(store.Store(two / "store"), target, asked("three uid-3"))
    assert three.version == "assistant/2", "nothing is served"


def test_another_dataset_cannot_be_compared_and_another_base_model_cannot_be_served(tmp_path):
    one, two, three = folders(tmp_path, "one", "two", "three")
    target = store.Store(tmp_path / "agent")
    publication.publish(trained(one, 50), target, asked("one uid-1"))
    other = publication.publish(trained(two, 90, dataset="d2"), target, asked("two uid-2", served="assistant/1"))
    assert other.version == "" and "evaluated on other questions" in other.sentence
    with pytest.raises(UserError, match="another base model"):
        publication.publish(trained(three, 90, base="qwen"), target, asked("three uid-3", served="assistant/1"))

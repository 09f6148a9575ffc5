"""`gog compare`: which runs are seeds of one setting, what is compared, and what the figures say."""

from __future__ import annotations

import json
import math
import random
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from support.report_objects import run_objects

from gog import significance, stats, store
from gog_console import cli
from gog_console.compare import answers, pairs

QUESTIONS = 400


def verdicts(share: float, seed: int) -> dict[str, float | None]:
    """Verdicts by question: each question has its own difficulty, the same in every run."""
    noise = random.Random(seed)
    hard = random.Random(0)
    return {
        f"q{at}": float(0.5 * hard.random() + 0.5 * noise.random() < share) if at else None for at in range(QUESTIONS)
    }


def evaluated(
    root: Path,
    name: str,
    policies: Mapping[str, float],
    *,
    seed: int = 0,
    key: str = "evaluate",
    served_by: Mapping[str, Any] | None = None,
    dataset: str = "d1",
    **spec: Any,
) -> Path:
    """A run folder with the objects of a complete run and its committed evaluation. policies: accuracy by name."""
    folder = root / name
    if not folder.exists():
        run_objects(folder / "objects", name, ("evaluate",), "", "", (), {"seed": seed, **spec}, 10)
    found = {policy: verdicts(share, 7 * seed + len(policy) + len(key)) for policy, share in policies.items()}
    files = {file: root / f"{name}-{key}-{file}" for file in ("results.json", "answers.jsonl")}
    rows = [
        {
            "policy": policy,
            "benchmark": "test",
            "tool_calls_mean": 2.5,
            "latency_p50_s": 1.25,
            "usd_per_correct": 0.01,
            "behaviour": {"none": 0.125, "single": 0.125, "mixed": 0.75},
            "gaze_accuracy": None,
        }
        for policy in policies
    ]
    files["results.json"].write_text(json.dumps({"rows": rows, "comparisons": [], "served_by": served_by or {}}))
    lines = [
        {"policy": policy, "question_id": question, "answer": "x", "accuracy": value}
        for policy, values in found.items()
        for question, value in values.items()
    ]
    files["answers.jsonl"].write_text("".join(json.dumps(line) + "\n" for line in lines))
    store.Store(folder / "store").publish(key, 1, files, meta={"complete": True, "dataset": dataset})
    return folder


def read(*folders: Path) -> list[pairs.Setting]:
    return pairs.settings([answers.read(folder) for folder in folders])


def test_runs_that_differ_in_the_seed_only_are_seeds_of_one_setting(tmp_path: Path) -> None:
    first = [evaluated(tmp_path, f"a-{seed}", {"sft": 0.5, "grpo": 0.6}, seed=seed) for seed in (1, 0)]
    other = evaluated(tmp_path, "b", {"grpo": 0.7}, stages={"grpo": {"groupSize": 4}})
    found = read(*first, other)
    assert [[run.name for run in setting.runs] for setting in found] == [["a-0", "a-1"], ["b"]]
    assert [setting.name for setting in found] == ["a-1 (+ 1 seed)", "b"]


def test_a_figure_over_seeds_is_the_mean_of_their_figures(tmp_path: Path) -> None:
    folders = [evaluated(tmp_path, f"a-{seed}", {"grpo": 0.6}, seed=seed) for seed in range(3)]
    (line,) = pairs.lines(read(*folders))
    each = [
        stats.mean([value for value in verdicts(0.6, 7 * seed + 12).values() if value is not None]) for seed in range(3)
    ]
    assert line.accuracy.mean == pytest.approx(stats.mean(each)) and line.accuracy.n == 3
    assert line.n == 3 * (QUESTIONS - 1), "the question without a verdict counts for no policy"
    assert line.ci95[0] < min(each) and line.ci95[1] > max(each)
    assert (line.calls, line.seconds, line.row["usd_per_correct"]) == (2.5, 1.25, 0.01)


def test_one_seed_has_the_interval_of_its_questions_and_no_deviation(tmp_path: Path) -> None:
    (line,) = pairs.lines(read(evaluated(tmp_path, "a", {"grpo": 0.6})))
    right = round(line.accuracy.mean * line.n)
    assert line.ci95 == stats.wilson(right, line.n) and math.isnan(line.accuracy.deviation)


def test_the_trained_policy_is_compared_with_every_other_row_on_the_same_questions(tmp_path: Path) -> None:
    folder = evaluated(tmp_path, "a", {"direct": 0.2, "sft": 0.5, "grpo": 0.7})
    evaluated(tmp_path, "a", {"grpo": 0.55}, key="evaluate-no-gaze")
    found = pairs.comparisons(read(folder))
    assert [(each.a, each.b) for each in found] == [("grpo", "direct"), ("grpo", "sft"), ("grpo", "grpo · no-gaze")]
    for each in found:
        assert each.found.n == QUESTIONS - 1
        assert each.found.low < each.found.mean < each.found.high and each.corrected >= each.found.p


def test_settings_are_compared_with_the_first_row_by_row(tmp_path: Path) -> None:
    a = [evaluated(tmp_path, f"a-{seed}", {"grpo": 0.5}, seed=seed) for seed in range(2)]
    b = [evaluated(tmp_path, f"b-{seed}", {"grpo": 0.7}, seed=seed, tools={"attempts": 1}) for seed in range(2)]
    (found,) = pairs.comparisons(read(*a, *b))
    assert (found.a, found.b) == ("b-0 (+ 1 seed): grpo", "a-0 (+ 1 seed): grpo")
    assert found.found.mean > 0.1 and found.found.seeds == 2 and found.corrected < 0.05


def test_equal_ids_of_other_datasets_are_other_questions(tmp_path: Path, capsys: Any) -> None:
    evaluated(tmp_path, "a", {"sft": 0.3, "grpo": 0.5})
    evaluated(tmp_path, "b", {"sft": 0.5, "grpo": 0.7}, dataset="d2", data={"world": {"seed": 7}})
    out = printed(["compare", "a", "b", "--dir", str(tmp_path)], capsys)
    assert "b and a answered other questions of test: not compared" in out
    assert "b: grpo - a: grpo" not in out and "b: grpo - b: sft" in out
    assert "answered other questions" in (tmp_path / "compare.html").read_text()
    evaluated(tmp_path, "c", {"sft": 0.5, "grpo": 0.7}, dataset="d0 d1", tools={"attempts": 1})
    out = printed(["compare", "a", "c", "--dir", str(tmp_path)], capsys)
    assert "c: grpo - a: grpo" in out, "both have one split in common"


def test_behaviour_and_cost_stand_beside_the_score(tmp_path: Path, capsys: Any) -> None:
    evaluated(tmp_path, "a", {"grpo": 0.5})
    out, page = printed(["compare", "a", "--dir", str(tmp_path)], capsys), (tmp_path / "compare.html").read_text()
    (head,) = [line for line in out.splitlines() if "mixed" in line]
    row = out.splitlines()[out.splitlines().index(head) + 1]
    assert "$/correct" in head and "12.5 %" in row and "75.0 %" in row and row.endswith("$0.01")
    assert "gaze" not in head, "no row has it"
    assert ">Mixed<" in page and "75.0" in page


def test_several_benchmarks_have_means_with_equal_weight_of_benchmarks_and_of_questions() -> None:
    def line(benchmark: str, accuracy: float, n: int) -> pairs.Line:
        score = significance.spread([accuracy])
        return pairs.Line("a", "grpo", benchmark, n, score, (0.0, 1.0), {}, None, None, {"policy": "grpo"})

    (mean,) = pairs.means([line("one", 0.5, 300), line("two", 0.9, 100)])
    assert (mean.macro, mean.micro) == (pytest.approx(0.7), pytest.approx(0.6))
    assert pairs.means([line("one", 0.5, 300)]) == []


def test_equal_policies_differ_in_nothing(tmp_path: Path) -> None:
    a = evaluated(tmp_path, "a", {"grpo": 0.5})
    b = evaluated(tmp_path, "b", {"grpo": 0.5}, tools={"attempts": 1})
    (found,) = pairs.comparisons(read(a, b))
    assert (found.found.mean, found.corrected) == (0.0, 1.0)


def printed(arguments: Sequence[str], capsys: pytest.CaptureFixture[str]) -> str:
    assert cli.main(arguments) == cli.COMPLETE
    return capsys.readouterr().out


def test_it_prints_a_table_and_draws_a_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    evaluated(tmp_path, "a", {"direct": 0.2, "grpo": 0.7})
    out = printed(["compare", "a", "--dir", str(tmp_path)], capsys)
    assert "grpo - direct" in out and "higher" in out and out.rstrip().endswith("compare.html")
    page = (tmp_path / "compare.html").read_text()
    assert "Paired differences" in page and "<script src" not in page and page.count("<svg") == 2


def test_json_has_every_figure_and_no_nan(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    evaluated(tmp_path, "a", {"direct": 0.2, "grpo": 0.7})
    found = json.loads(printed(["compare", "a", "--json", "--dir", str(tmp_path)], capsys))
    assert found["rows"][0]["accuracy"]["deviation"] is None
    assert found["differences"][0]["found"]["n"] == QUESTIONS - 1
    assert not (tmp_path / "compare.html").exists()


@pytest.mark.parametrize("damage", ["absent", "unfinished", "broken"])
def test_what_cannot_be_compared_is_said_with_its_remedy(
    damage: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if damage != "absent":
        run_objects(tmp_path / "a" / "objects", "a", ("sft",), "", "", (), {}, 10)
    if damage == "broken":
        files = {name: tmp_path / name for name in ("results.json", "answers.jsonl")}
        files["results.json"].write_text('{"rows": [{"policy": "grpo", "benchmark": "test"}]}')
        files["answers.jsonl"].write_text('{"policy": "grpo"}\n')
        store.Store(tmp_path / "a" / "store").publish("evaluate", 1, files)
    assert cli.main(["compare", "a", "--dir", str(tmp_path)]) == cli.INVALID
    said = capsys.readouterr().err
    assert {"absent": "no such run", "unfinished": "no evaluation is committed", "broken": "cannot be read"}[
        damage
    ] in said


def test_a_model_that_changed_within_a_run_or_from_run_to_run_is_named(tmp_path: Path, capsys: Any) -> None:
    evaluated(tmp_path, "a", {"sft": 0.5}, served_by={"judge": {"j-1": 400}, "endpoint": {"m-1": 3, "m-2": 1}})
    evaluated(tmp_path, "b", {"sft": 0.6}, served_by={"judge": {"j-2": 400}}, note="other")
    assert cli.main(["compare", "a", "b", "--dir", str(tmp_path)]) == cli.COMPLETE
    printed, page = capsys.readouterr().out, (tmp_path / "compare.html").read_text()
    for words in (
        "a: the endpoint changed its model: m-1 (3 answers), m-2 (1 answer)",
        "different judges, so differences between these runs may be theirs: a by j-1; b by j-2",
    ):
        assert words in printed and words in page


def test_p_values_have_as_many_digits_in_the_text_as_on_the_page(tmp_path: Path, capsys: Any) -> None:
    evaluated(tmp_path, "a", {"sft": 0.55, "grpo": 0.56})
    cli.main(["compare", "a", "--dir", str(tmp_path)])
    printed, page = capsys.readouterr().out, (tmp_path / "compare.html").read_text()
    values = set(re.findall(r" (0\.\d{3,4}) ", printed))
    assert values and all(f">{value}<" in page for value in values)


def test_several_answers_to_a_question_count_as_their_mean(tmp_path: Path, capsys: Any) -> None:
    folder = evaluated(tmp_path, "a", {"sft": 0.5})
    rows = [{"policy": "sft", "benchmark": "test", "pass_at": {"1": 0.25, "2": 0.5}}]
    files = {name: tmp_path / name for name in ("results.json", "answers.jsonl")}
    files["results.json"].write_text(json.dumps({"rows": rows}))
    lines = [
        {"policy": "sft", "question_id": q, "accuracy": v} for q, v in (("x", 1.0), ("x", 0.0), ("y", 0.0), ("y", 0.0))
    ]
    files["answers.jsonl"].write_text("".join(json.dumps(line) + "\n" for line in lines))
    store.Store(folder / "store").publish("evaluate", 2, files, meta={"complete": True})
    (run,) = (answers.read(folder),)
    assert run.accuracy["sft", "test"] == {"x": 0.5, "y": 0.0}
    cli.main(["compare", "a", "--dir", str(tmp_path)])
    assert "@2 50.0" in capsys.readouterr().out

"""The experiments: valid manifests, stages shared by what they compute, verdicts, and a page that hides nothing."""

from __future__ import annotations

import json
import math
import os
import random
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.ready_files import await_file

from gog.spec import CONFIGS, NEEDS
from gog_operator.api import manifest
from gog_recipes.runtime import config

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))
try:
    import ablations
    import experiment_claims
    import experiment_page
    import experiment_plots
    import experiment_stages
    import experiments
finally:
    sys.path.remove(str(ROOT / "benchmarks"))

SHARED = ("curate", "sft", "stratify")


def keys(name: str, seed: int = 0, **changes: Any) -> dict[str, str]:
    stages = experiment_stages.plan(ablations.BY_NAME[name], seed, changes)
    return {stage.kind: stage.key for stage in stages}


def same(first: dict[str, str], second: dict[str, str]) -> list[str]:
    return [kind for kind in first if first[kind] == second[kind]]


def result(verdicts: dict[str, str], seeds: int = 3) -> dict[str, Any]:
    def row(marks: str) -> dict[str, Any]:
        figures = {"accuracy": marks.count("1") / len(marks), "tool_calls_mean": 2.0, "tokens_mean": 30.0}
        shares = {"behaviour": {"none": 0.1, "single": 0.4, "mixed": 0.5}, "choice_accuracy": 0.5, "gaze_accuracy": 0.5}
        more = {"latency_p50_s": 0.1, "cost_aware_score": 9.0, "reflection_ratio": None, "by_kind": {}}
        return {**figures, **shares, **more}

    one = {
        "rows": {policy: row(marks) for policy, marks in verdicts.items()},
        "verdicts": verdicts, "commit": "abc", "digest": "d", "keys": {"grpo": "grpo-1"},
        "steps": {"reward_mean": [0.1, None, 0.3], "excluded_share": [0.2, None, 0.1]}, "cost": {"grpo": {"cpu_seconds": 3600.0}},
        "levels": {"easy": 400, "1": 100, "2": 540},
    }  # fmt: skip
    return {"seeds": {str(seed): one for seed in range(seeds)}}


def verdict_of(first: str, second: str, seeds: int = 3) -> str:
    found = {"main": result({"sft": first}, seeds), "no-gaze": result({"sft": second}, seeds)}
    made = experiment_claims.outcomes(found, resamples=500)
    (outcome,) = made.values()
    return outcome.verdict


@pytest.mark.parametrize("name", list(ablations.BY_NAME))
def test_the_manifest_of_every_experiment_is_valid(name: str) -> None:
    for document in ablations.documents(ablations.BY_NAME[name], seed=1):
        assert manifest.check(document, where=name).kind == "GoGRun"


@pytest.mark.parametrize("name", list(ablations.BY_NAME))
def test_recipes_accept_the_configuration_of_every_stage(name: str) -> None:
    for changes in ({}, experiments.SHORT):
        for stage in experiment_stages.plan(ablations.BY_NAME[name], 0, changes):
            here = {
                "stage": stage.key,
                "store": {"uri": "file:///store"},
                "data": {"path": "/data"},
                "workdir": "/work",
            }
            found = config.typed(CONFIGS[stage.kind], {**stage.values, **here})
            assert found.inputs.keys() == set(NEEDS[stage.kind]) and found.seed == 0


def test_what_a_manifest_sets_reaches_the_recipe() -> None:
    stages = {stage.kind: stage.values for stage in experiment_stages.plan(ablations.BY_NAME["mmsearch-r1"], 0, {})}
    assert {stages[kind]["gaze"] for kind in ablations.PLAYED} == {"off"} and stages["grpo"]["search_penalty"] == 0.1
    assert stages["evaluate"]["tools"] == {"crop_side": 28, "attempts": 1, "max_candidates": 6}


def test_experiments_have_names_of_their_own() -> None:
    assert len(ablations.BY_NAME) == len(list(ablations.experiments()))


def test_a_printed_manifest_is_read_back_as_it_is(capsys: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(sys, "argv", ["ablations.py", "rule-keep", "--seed", "2"])
    assert ablations.main() == 0
    printed = list(yaml.safe_load_all(capsys.readouterr().out))
    assert printed == ablations.documents(ablations.BY_NAME["rule-keep"], seed=2) and len(printed) == 2


def test_an_unknown_experiment_is_refused_with_the_known_ones(capsys: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(sys, "argv", ["ablations.py", "no-gase"])
    assert ablations.main() == 2
    assert "no-gaze" in capsys.readouterr().err


def test_every_comparison_is_of_policies_that_experiments_evaluate() -> None:
    for each in experiment_claims.everything():
        for name, policy in (each.a, each.b):
            assert policy in ablations.BY_NAME[name].policies


def test_every_experiment_is_compared_with_another() -> None:
    compared = {name for each in experiment_claims.everything() for name, _ in (each.a, each.b)}
    assert compared == set(ablations.BY_NAME)


@pytest.mark.parametrize("name", ["level-2", "lambda-30", "loss-dapo", "rule-zero", "failures-10", "cache-off"])
def test_what_differs_in_grpo_only_starts_from_the_same_sft_policy(name: str) -> None:
    assert same(keys(name), keys("main")) == list(SHARED)


def test_without_gaze_demonstrations_are_made_without_it_too() -> None:
    assert same(keys("no-gaze"), keys("main")) == []
    assert same(keys("no-gaze"), keys("mmsearch-r1")) == list(SHARED)


def test_an_experiment_at_test_evaluates_the_base_policy() -> None:
    assert same(keys("grounding-gone-at-test"), keys("main")) == [*SHARED, "grpo"]
    assert same(keys("test-failures-0"), keys("test-failures-10")) == [*SHARED, "grpo"]


def test_failure_rules_are_trained_with_failures_and_tested_without() -> None:
    stages = {stage.kind: stage for stage in experiment_stages.plan(ablations.BY_NAME["rule-mask"], 0, {})}
    rates = {
        kind: {name: each["failures"]["rate"] for name, each in json.loads(stages[kind].served).items()}
        for kind in ("grpo", "evaluate")
    }
    assert rates["grpo"] == {"grounding": 0.1, "imageSearch": 0.1, "textSearch": 0.1, "judge": 0.0}
    assert set(rates["evaluate"].values()) == {0.0}


def test_seeds_and_sizes_share_nothing() -> None:
    assert same(keys("main"), keys("main", seed=1)) == []
    assert same(keys("main"), keys("main", **{"data.world.train": 40})) == []


def test_a_later_size_leaves_earlier_stages_as_they_are() -> None:
    assert same(keys("main"), keys("main", **{"stages.grpo.steps": 2})) == list(SHARED)


def test_a_result_of_the_same_settings_is_not_measured_again(tmp_path: Path) -> None:
    experiment = ablations.BY_NAME["level-1"]
    stages = experiment_stages.plan(experiment, 0, {})
    assert not experiments.known(tmp_path, experiment, 0, stages)
    experiments.write(
        tmp_path, experiment, 0, {**result({"grpo": "10"})["seeds"]["0"], "digest": experiments.digest(stages)}
    )
    assert experiments.known(tmp_path, experiment, 0, stages)
    assert not experiments.known(tmp_path, experiment, 1, stages)
    assert not experiments.known(tmp_path, experiment, 0, experiment_stages.plan(experiment, 0, experiments.SHORT))


def test_what_the_claims_need_is_measured_before_the_rest_a_seed_of_each_at_a_time() -> None:
    order = [(each.name, seed) for each, seed in experiments.units(list(ablations.BY_NAME), 2)]
    assert order.index(("level-1", 1)) < order.index(("loss-dapo", 0))
    assert order.index(("mmsearch-r1", 0)) < order.index(("main", 1))


@pytest.mark.parametrize(
    ("first", "second", "verdict"),
    [
        ("1" * 900 + "0" * 100, "1" * 700 + "0" * 300, "supported"),
        ("1" * 700 + "0" * 300, "1" * 900 + "0" * 100, "refuted"),
        ("10" * 500, "01" * 500, "undecided"),
    ],
)
def test_a_verdict_follows_from_the_paired_difference(first: str, second: str, verdict: str) -> None:
    assert verdict_of(first, second) == verdict


def test_few_seeds_and_few_questions_make_a_verdict_preliminary() -> None:
    many = "1" * 900 + "0" * 100, "1" * 700 + "0" * 300
    assert verdict_of(*many, seeds=2) == "supported (preliminary)"
    assert verdict_of(many[0][800:], many[1][500:800][:200]).endswith("(preliminary)")


def test_undecided_questions_are_left_out_of_both_sides() -> None:
    found = {"main": result({"sft": "1-1"}), "no-gaze": result({"sft": "00-"})}
    (comparison,) = [each for each in experiment_claims.everything() if experiment_claims.differences(found, each)]
    by_seed = experiment_claims.differences(found, comparison)
    assert [each[0] for each in by_seed.values()] == [1.0] * 3 and all(math.isnan(x) for x in by_seed[0][1:])
    (outcome,) = experiment_claims.outcomes(found).values()
    assert (outcome.found.mean, outcome.found.n) == (1.0, 3)


def test_what_is_asked_besides_does_not_weaken_a_claim() -> None:
    rng = random.Random(0)
    sides = {"sft": marks(rng, 0.5), "grpo": marks(rng, 0.55)}
    claimed = {"main": result(sides)}
    more = {name: result({"grpo": marks(rng, 0.5)}) for name in ("levels-all", "group-4", "grounding-failing-at-test")}
    (claim,) = experiment_claims.CLAIMS["RL after SFT"]
    alone, among = (experiment_claims.outcomes(found)[claim] for found in (claimed, claimed | more))
    assert alone.corrected == among.corrected == pytest.approx(alone.found.p)


def marks(rng: random.Random, share: float, count: int = 300) -> str:
    """Verdicts of which a share is right."""
    return "".join(str(int(rng.random() < share)) for _ in range(count))


def test_the_page_says_how_many_questions_a_level_has_and_how_often_each_is_played() -> None:
    pools = experiment_page.pools({"level-1": result({"grpo": "1"}), "level-2": result({"grpo": "1"})})
    assert "| level-1 | 100 to 100 | 25.6 |" in pools and "| level-2 | 540 to 540 | 4.7 |" in pools


def test_the_page_names_what_was_not_measured(tmp_path: Path) -> None:
    (tmp_path / "main.json").write_text(json.dumps(result({"sft": "10" * 8, "grpo": "11" * 8})))
    experiment_page.write(tmp_path, tmp_path / "results.md")
    page = (tmp_path / "results.md").read_text()
    assert "Measured: 1 of" in page and "Not measured yet: no-gaze" in page and "not measured" in page
    assert "| SFT | 50.0 % |" in page and "1.0 hours" in page
    assert {path.name for path in tmp_path.glob("*.svg")} == {
        f"results-{each}.svg" for each in ("claims", "rewards", "losses")
    }


@pytest.mark.parametrize("other", ["1100", "1000", "1111"])
def test_differences_of_any_size_are_drawn_within_the_picture(other: str) -> None:
    found = {"main": result({"sft": "1100"}, 1), "no-gaze": result({"sft": other}, 1)}
    drawn = experiment_plots.forest(list(experiment_claims.outcomes(found, resamples=100).values()))
    width = int(re.search(r'width="(\d+)"', drawn)[1])
    assert all(0 <= float(x) <= width for x in re.findall(r'(?:cx|x1|x2)="([^"]+)"', drawn)) and "circle" in drawn


def test_curves_are_over_the_seeds_that_all_experiments_have() -> None:
    few, labels = (
        {"main": result({}, 2), "level-1": result({}, 2)},
        {"main": "grpo", "level-1": "<1>", "level-2": "none"},
    )
    more = {**few, "main": json.loads(json.dumps(result({}, 3)))}
    more["main"]["seeds"]["2"]["steps"]["reward_mean"] = [1.0, 1.0, 1.0]
    drawn = experiment_plots.curves(more, labels)
    assert drawn == experiment_plots.curves(few, labels)
    assert "&lt;1>" in drawn and ">none<" not in drawn and drawn.count("<polyline") == 2


def test_the_table_of_failure_rules_has_what_each_excludes_and_its_accuracy() -> None:
    found = {"rule-exclude": result({"grpo": "1100"}), "rule-exclude-corrected-at-3": result({"grpo": "1000"})}
    table = experiment_page.rules(found)
    assert "| `exclude` | 15.0 % | 50.0 % (50.0, 50.0) | not measured |  |" in table
    assert "| `exclude` with `survivorCorrection` | not measured |  | 15.0 % | 25.0 % (25.0, 25.0) |" in table


def test_a_page_without_results_says_so(tmp_path: Path) -> None:
    experiment_page.write(tmp_path, tmp_path / "results.md")
    assert "Nothing has been measured yet." in (tmp_path / "results.md").read_text()


def test_the_page_in_the_documentation_is_made_from_the_results_in_the_repository() -> None:
    found = experiment_page.read(experiments.RESULTS)
    made = experiment_claims.outcomes(found)
    assert experiments.PAGE.read_text() == experiment_page.text(found, made, experiments.PAGE.stem)


@pytest.mark.slow
def test_experiments_that_are_killed_continue_and_end_with_a_page(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "benchmarks" / "experiments.py"), "--short", "--dir", str(tmp_path)]
    command += ["--only", "main", "no-gaze", "grounding-gone-at-test"]
    process = subprocess.Popen(command, start_new_session=True)
    sft = keys("main", **experiments.SHORT)["sft"]
    await_file(tmp_path / "work" / sft / "cost.json", process, seconds=1800)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    made = {path: path.stat().st_mtime_ns for path in (tmp_path / "store" / "manifests").glob("*/*.json")}
    assert subprocess.run(command, timeout=1800).returncode == 0
    assert all(path.stat().st_mtime_ns == when for path, when in made.items())
    found = experiment_page.read(tmp_path / "results")
    assert set(found) == {"main", "no-gaze", "grounding-gone-at-test"}
    verdicts = found["main"]["seeds"]["0"]["verdicts"]
    assert set(verdicts) == set(ablations.BY_NAME["main"].policies) and {len(each) for each in verdicts.values()} == {
        40
    }
    assert (tmp_path / "results.md").read_text().startswith("# Results")
    before = (tmp_path / "results" / "main.json").read_bytes()
    assert subprocess.run(command, timeout=600).returncode == 0
    assert (tmp_path / "results" / "main.json").read_bytes() == before

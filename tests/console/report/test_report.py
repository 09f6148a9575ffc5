"""Claims about the report: what it promises to programs, to readers, and about a run of unknown origin."""

import doctest
import importlib
import json
import pkgutil
import re
from pathlib import Path

import pytest
import support.report_builders as builders
from support import report_objects
from support.report_pages import EVIL, data_of, page_of, summary_of, without_data, write

from gog import profiles, step_metrics, store
from gog.errors import UserError
from gog_console import formatting, report
from gog_console.report import (
    charts,
    gather,
    notes,
    overview,
    page,
    provenance,
    results,
    selection,
    training,
)
from gog_console.report.model import Evaluation


def test_what_tools_charged_is_in_the_report_and_in_the_summary(tmp_path: Path) -> None:
    folder = builders.make_run(tmp_path)
    kept = store.open_store((folder / "store").as_uri())
    spend = '{"tools": {"judge": {"2026-01-05": {"calls": 100, "usd": 0.4}}, "imageSearch": {"2026-01-05": {"calls": 9, "usd": 0.9}}}}'
    kept.put_object("spend/grpo/a.json", spend.encode())
    report.write(folder, now=report_objects.NOW)
    assert summary_of(folder)["spend"] == {
        "calls": 109,
        "usd": 1.3,
        "tools": {"imageSearch": {"calls": 9, "usd": 0.9}, "judge": {"calls": 100, "usd": 0.4}},
    }
    assert "$1.30 (imageSearch $0.9, judge $0.4)" in page_of(folder)


def test_beside_a_score_stand_behaviour_tokens_pages_and_cost() -> None:
    row = {
        "policy": "grpo",
        "behaviour": {"none": 0.1, "single": 0.2, "mixed": 0.7},
        "gaze_accuracy": 0.8125,
        "reflection_ratio": 0.25,
        "tokens_mean": 41.26,
        "cost_aware_score": 11.5,
        "page_success": 0.9,
        "usd_per_question": 0.0123,
        "usd_per_correct": 0.0246,
    }
    page = str(results.beside([("no-gaze", row)])).replace("\u202f", " ")
    for cell in ("GRPO · no-gaze", "70.0 %", "81.2 %", "25.0 %", "41.3", "11.5", "90.0 %", "$0.012", "$0.025"):
        assert f">{cell}</td>" in page
    assert "Selection" not in page, "no choice was made"


def test_what_was_free_has_no_column_of_its_cost() -> None:
    page = str(results.beside([("", {"policy": "grpo", "usd_per_question": 0.0, "tokens_mean": 3.0})]))
    assert "Tokens" in page and "$" not in page
    assert results.beside([("", {"policy": "grpo"})]) is None


# ---- where the time goes


def test_the_time_of_a_step_is_stacked_in_the_order_of_its_parts_and_ends_at_the_whole_step():
    rows = [
        {"step": n, "seconds_rollout": 4.0, "seconds_tools": None if n == 1 else 3.0, "seconds_train": 2.0}
        for n in (1, 2)
    ]
    (chart,) = training.time_charts("grpo", rows)
    assert [line.name for line in chart.lines] == ["rollouts", "waiting for tools", "update"]
    assert [list(height) for height in chart.heights] == [[4, 4], [4, 7], [6, 9]]
    lines = charts.readings(chart)["lines"]
    assert lines[1]["text"] == [formatting.DASH, "3"] and lines[2]["y"][1] == round(chart.frame.y(9), 1)
    drawn = str(charts.draw(chart))
    assert drawn.count('class="area part-') == 3 and "part-tools" in drawn


def test_every_part_of_a_step_has_a_colour_in_the_report_and_on_dashboards():
    assert all(f".part-{part.name} " in page.parts_style() for part in step_metrics.PARTS)


def test_a_log_without_parts_has_no_chart_of_them_and_a_straggler_is_shown_with_several_ranks():
    assert training.time_charts("grpo", [{"step": 1, "seconds": 3.0}]) == []
    row = {"step": 1, "seconds_rollout": 3.0, "seconds_idle": 2.0}
    assert "ranks" not in [chart.id for chart in training.optimisation_charts([row])]
    (ranks,) = [c for c in training.optimisation_charts([row | {"slowest_rollout": 5.0}]) if c.id == "ranks"]
    assert [list(line.values) for line in ranks.lines] == [[3.0], [5.0]]


def test_the_age_of_samples_has_a_chart_where_rollouts_run_ahead_of_updates():
    def titles(*ages):
        rows = [{"step": step, "staleness_mean": age} for step, age in enumerate(ages, 1)]
        return [chart.title for chart in training.optimisation_charts(rows)]

    assert titles(0.0, 0.0) == [] and titles(0.0, 1.2) == ["Mean staleness"]


def test_the_report_names_the_traces_of_a_stage_and_shows_nothing_without(tmp_path):
    folder = builders.make_run(tmp_path)
    assert "ui.perfetto.dev" not in write(folder)[0]
    kept = store.open_store((folder / "store").as_uri())
    kept.put_object(profiles.key("grpo", profiles.name(3, 0, "update")), b"trace")
    page_text = without_data(write(folder)[0])
    assert "in profiles/grpo/ of the store" in page_text and "<code>step-3-rank-0-update.json.gz</code>" in page_text


# ---- what programs rely on


def test_the_summary_has_the_documented_shape(whole):
    summary = summary_of(whole)
    assert summary["run"] == "world"
    stage = {"name", "kind", "condition", "attempts", "seconds", "checkpoint"}
    assert all(stage <= set(row) for row in summary["stages"])
    assert set(summary["levels"]) == {"easy", "1", "2"} and sum(summary["levels"].values()) == 400
    step = ["step", "reward_mean", "accuracy_mean", "format_mean", "kl", "tool_failure_ratio", "seconds"]
    assert all(list(row) == step for row in summary["grpo"]) and len(summary["grpo"]) == 30
    row = {"policy", "benchmark", "n", "accuracy", "ci95", "tool_calls_mean", "latency_p50_s"}
    assert all(row <= set(each) and len(each["ci95"]) == 2 for each in summary["evaluation"])
    assert [each["policy"] for each in summary["evaluation"]] == list(builders.POLICIES)


def test_the_summary_contains_the_outcome_of_each_stage(whole):
    stages = {row["name"]: row for row in summary_of(whole)["stages"]}
    assert stages["grpo"] == {
        "name": "grpo",
        "kind": "grpo",
        "arm": "",
        "condition": "Complete",
        "message": "",
        "attempts": 2,
        "seconds": 66.0,
        "checkpoint": "grpo/30",
        "image": None,
    }
    assert list(stages)[:5] == list(builders.ALL)


def test_an_arm_has_its_own_results(whole):
    summary = summary_of(whole)
    arm = summary["arms"]["no-gaze"]
    assert [row["policy"] for row in arm["evaluation"]] == ["grpo"]
    assert arm["grpo"][-1]["reward_mean"] < summary["grpo"][-1]["reward_mean"]


def test_numbers_that_json_cannot_carry_become_null(tmp_path):
    folder = builders.make_run(tmp_path, stages=("curate", "sft"))
    log = tmp_path / "metrics.jsonl"
    log.write_text('{"step": 61, "loss": NaN}\n{"step": 62, "loss": Infinity}\n')
    store.Store(folder / "store").publish("sft", 62, {"metrics.jsonl": log})
    html, summary = write(folder)
    assert summary["sft"] == [{"step": 61, "loss": None}, {"step": 62, "loss": None}]
    assert "Supervised fine-tuning" in html


def test_the_same_run_gives_the_same_report(whole):
    before = page_of(whole)
    report.write(whole, now=report_objects.NOW)
    assert page_of(whole) == before


def test_a_missing_folder_is_a_user_error(tmp_path):
    with pytest.raises(UserError, match="no such run folder"):
        report.write(tmp_path / "nothing")


# ---- what readers rely on


def test_at_least_fifty_trajectories_are_shown_in_a_small_file(whole):
    assert len(data_of(page_of(whole))["trajectories"]) >= 100
    assert len(page_of(whole)) < 6_000_000


def test_trajectories_come_from_every_stage_and_from_all_of_the_training(whole):
    shown = data_of(page_of(whole))["trajectories"]
    assert {each["key"] for each in shown} >= {"curate", "grpo", "evaluate", "evaluate-no-gaze"}
    assert {each["step"] for each in shown if each["key"] == "grpo"} == {6, 12, 18, 24, 30}


def test_an_evaluated_question_is_shown_under_every_policy(whole):
    shown = [each for each in data_of(page_of(whole))["trajectories"] if each["key"] == "evaluate"]
    questions = {each["questionId"] for each in shown}
    assert len(questions) >= 12
    assert {(each["questionId"], each["policy"]) for each in shown} == {
        (question, policy) for question in questions for policy in builders.POLICIES
    }


def test_the_page_opens_with_a_gaze_that_succeeded_where_sft_failed(whole):
    data = data_of(page_of(whole))
    opening = next(each for each in data["trajectories"] if each["id"] == data["featured"])
    before = next(
        each
        for each in data["trajectories"]
        if each["key"] == "evaluate" and each["policy"] == "sft" and each["questionId"] == opening["questionId"]
    )
    assert (opening["policy"], opening["outcome"], before["outcome"]) == ("grpo", "correct", "wrong")
    assert "gaze" in [turn["action"] for turn in opening["turns"]]


def test_boxes_and_the_marked_region_travel_with_the_size_of_their_image(whole):
    data = data_of(page_of(whole))
    offered = [
        (each, candidate)
        for each in data["trajectories"]
        for turn in each["turns"]
        for candidate in turn.get("seen", {}).get("candidates", ())
    ]
    assert offered
    for each, candidate in offered:
        image = data["images"][each["image"]]
        left, top, right, bottom = candidate["box"]
        assert 0 <= left < right <= image["w"] == 112 and 0 <= top < bottom <= image["h"] == 112
        assert data["images"][candidate["crop"]]["src"].startswith("data:image/png;base64,")
        assert each["region"]


def test_a_trajectory_with_a_tool_failure_is_shown_however_rare(tmp_path):
    folder = builders.make_run(tmp_path, steps=10, questions=6)
    kept = store.Store(folder / "store")
    recorded = [
        item
        for step in kept.steps("grpo")
        for item in gather.trajectory_zip.Archive(
            kept.open(kept.manifest("grpo", step), "trajectories.zip")
        ).trajectories()
    ]
    html, _ = write(folder)
    shown = [each for each in data_of(html)["trajectories"] if each["key"] == "grpo" and each["failures"]]
    spoiled = sum(bool(item.failures) for item in recorded)
    assert 0 < spoiled < len(recorded) / 5 and len(shown) >= min(spoiled, selection.FAILED_FIRST)


def test_links_to_trajectories_are_unique(whole):
    ids = [each["id"] for each in data_of(page_of(whole))["trajectories"]]
    assert len(set(ids)) == len(ids)


def test_tool_failures_are_distinguished_from_wrong_answers(whole):
    data = data_of(page_of(whole))
    spoiled = [each for each in data["trajectories"] if each["failures"]]
    assert spoiled and all(each["outcome"] == "excluded" and "tool failure" in each["excluded"] for each in spoiled)


def test_injected_failures_and_an_imperfect_teacher_are_named(whole):
    html = page_of(whole).replace("\u202f", " ")
    assert "5 % of the requests to image search" in html
    assert "Only 50 % of its demonstrations are free of mistakes" in html


def test_a_run_without_injected_failures_says_so(tmp_path):
    html, _ = write(builders.make_run(tmp_path, stages=("curate",)))
    assert "No failures were injected." in html


def test_a_setting_that_differs_from_the_papers_is_flagged(whole):
    found = {
        f"{each.group}.{each.name}": each for each in provenance.settings(gather.gather(whole, report_objects.NOW))
    }
    assert found["grpo.learningRate"].differs and found["grpo.learningRate"].value == "0.0002"
    assert not found["grpo.klCoef"].known and not found["grpo.klCoef"].differs
    assert found["grpo.keepUnsolved"].source == "ours"


def test_retries_are_shown_with_the_event_messages(whole):
    html = page_of(whole)
    assert "attempt 1 failed: exit 1; tried again in 2 s" in html and "09:31:07" in html
    assert "judge answers at" not in html


def test_the_headline_is_the_paired_difference(whole):
    text = page_of(whole).replace("\u202f", " ")
    pairs = {(each["a"], each["b"]): each for each in summary_of(whole)["comparisons"]}
    comparison = pairs["grpo", "sft"]
    assert f"paired difference {100 * comparison['difference']:+.1f} points" in text


# ---- parts


def test_the_failure_ratio_of_few_attempts_is_left_out_and_means_are_weighted():
    rows = [
        {"step": 1, "attempts": 100, "attempt_failure_ratio": 0.1, "tool_failure_ratio": 0.0},
        {"step": 2, "attempts": 2, "attempt_failure_ratio": 0.5, "tool_failure_ratio": 0.0},
    ]
    drawn = next(chart for chart in training.grpo_charts(rows) if chart.id == "failures")
    assert list(drawn.lines[0].values) == [0.1, None]
    assert overview._mean(rows, "attempt_failure_ratio", weight="attempts") == pytest.approx(11 / 102)


def test_a_policy_that_rarely_answers_is_noted():
    assert "well formed in only" in results._speechless({"policy": "direct", "format_mean": 0.157})
    assert results._speechless({"policy": "sft", "format_mean": 0.99}) == ""


def test_steps_that_learned_nothing_are_noted():
    titles = [
        [title for title, _ in notes._unlearned([{"learned": n} for n in learned])]
        for learned in ((0, 0), (0, 3), (3,), ())
    ]
    assert titles == [["GRPO learned nothing."], ["Some steps learned nothing."], [], []]


def test_embedded_json_round_trips():
    value = {"text": EVIL, "number": 0.5, "none": None}
    assert json.loads(page.embed(value)) == value


def test_a_gap_in_a_metric_is_a_gap_in_its_curve():
    line = charts.Line("x", [0.1, 0.2, None, 0.4, 0.5])
    drawn = charts.draw(charts.Chart("x", "X", [1, 2, 3, 4, 5], [line]))
    assert drawn.count("M") == 2


@pytest.mark.parametrize("values", [[], [None, None], [0.0], [3.0, 3.0], [-2.0, 5e6], [1e-9, 2e-9]])
def test_a_chart_is_drawn_whatever_its_values(values):
    chart = charts.Chart("x", "X", list(range(len(values))), [charts.Line("x", values)], share=False)
    places = re.findall(r"[ML](-?[\d.]+) (-?[\d.]+)", charts.draw(chart))
    assert all(0 <= float(x) <= charts.WIDTH and 0 <= float(y) <= charts.HEIGHT for x, y in places)
    assert "nan" not in charts.draw(chart)


def test_the_selection_keeps_its_limit_and_shows_every_outcome(whole):
    reader = gather._Reader(store.Store(whole / "store"), [])
    samples, _ = reader.samples(reader.stages([]))
    main = [sample for sample in samples if not sample.arm]
    chosen = selection.choose(main, 60)
    assert 50 <= len(chosen) <= 60
    assert {sample.outcome for sample in chosen} == {sample.outcome for sample in main}


def test_docstring_examples_hold():
    for module in pkgutil.iter_modules(report.__path__, "gog_console.report."):
        assert doctest.testmod(importlib.import_module(module.name)).failed == 0


def test_means_over_benchmarks_are_those_of_the_evaluation_s_results():
    shown = str(results._macro([{"policy": "sft", "macro": 0.625, "micro": 0.5}]))
    assert "62.5" in shown and "50.0" in shown


def test_a_judge_that_changed_its_model_is_named_in_the_report():
    (note,) = results._changes({"": Evaluation((), served_by={"judge": {"j-1": 3, "j-2": 1}, "endpoint": {"m": 4}})})
    assert note.startswith("The judge changed its model: j-1 (3 answers), j-2 (1 answer).")

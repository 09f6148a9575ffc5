"""What a person sees: phrases, figures, the live image, the last lines."""

from __future__ import annotations

import io
import json
import math

import pytest
from rich.console import Console
from support.operator_builders import NOW, holding, later, make_run, make_stage, make_tool_server

from gog_console import formatting
from gog_console.status import exit_message, live, phrases, table
from gog_operator.api.meta import Reason
from gog_operator.api.objects import Progress
from gog_operator.cluster.local import LocalCluster
from gog_operator.plan.actions import Event


def phrase_of(kind, **metrics):
    return phrases.summary(make_stage(kind, status={"progress": Progress(step=1, total=2, metrics=metrics)}))


@pytest.mark.parametrize(
    ("kind", "metrics", "phrase"),
    [
        (
            "CurateStage",
            {"trajectories": 1200, "behaviour": {"none": 0.43}},
            "1,200 trajectories · 43 % without search",
        ),
        ("SFTStage", {"loss": 0.42, "losses": [2.31, 1.0, 0.5]}, "loss 2.31 → 0.42"),
        ("SFTStage", {"loss": 0.42}, "loss 0.42"),
        (
            "StratifyStage",
            {"levels": {"easy": 412, "1": 96, "2": 292}, "unsolved": 31},
            "easy 412 · level 1 96 · level 2 292 (31 never solved)",
        ),
        (
            "GRPOStage",
            {"reward": 0.9, "reward_first": 0.33, "rewards": [0.3, 0.4, 0.5], "tool_failure_ratio": 0.031},
            "reward 0.33 → 0.40 ▁▅█ · tool failures 3.1 %",
        ),
        ("GRPOStage", {"rewards": [0, 0], "no_signal_steps": 2}, "reward 0.00 → 0.00 ▁▁ · 2 steps without signal"),
        ("GRPOStage", {"rewards": [0, 1], "no_signal_steps": 1}, "reward 0.00 → 0.50 ▁█ · 1 step without signal"),
        (
            "GRPOStage",
            {"rewards": [0, 0], "no_signal_steps": 5, "no_signal_in_a_row": 3},
            "reward 0.00 → 0.00 ▁▁ · 5 steps without signal, the last 3 in a row",
        ),
        (
            "GRPOStage",
            {"rewards": [0, 1], "step_seconds": 2.1, "step_parts": {"rollout": 0.48, "tools": 0.31, "train": 0.2}},
            "reward 0.00 → 0.50 ▁█ · 2.1 s a step: rollout 48 %, tools 31 %, train 20 %",
        ),
        ("GRPOStage", {"rewards": [0, 1], "step_seconds": 2.1, "step_parts": "damaged"}, "reward 0.00 → 0.50 ▁█"),
        ("EvaluateStage", {"accuracy": {"direct": 0.05, "grpo": 0.81}}, "direct 5.0 % · grpo 81 %"),
        ("SFTStage", {"oddity": 3, "word": "x"}, "oddity 3"),
        ("SFTStage", {}, ""),
    ],
)
def test_results_of_a_stage_are_one_phrase(kind, metrics, phrase):
    assert phrase_of(kind, **metrics) == phrase


def test_a_stage_without_progress_has_an_empty_summary():
    assert phrases.summary(make_stage()) == ""


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0.0 s"), (11.44, "11.4 s"), (112, "1:52"), (3600, "1:00:00"), (7390, "2:03:10")]
)
def test_durations_have_a_short_form(seconds, text):
    assert formatting.clock(seconds) == text


def test_a_sparkline_rises_with_its_values_and_a_flat_one_is_flat():
    assert formatting.sparkline(list(range(80))) == "▁▂▃▄▅▆▇█"
    assert formatting.sparkline([1.0, 1.0, 1.0]) == "▁▁▁"


@pytest.mark.parametrize(
    ("values", "bars"),
    [
        ([], ""),
        ([3.0], "▁"),
        ([1.0, math.nan, 2.0], "▁!█"),
        ([math.inf, 1.0, -math.inf], "!▁!"),
        ([math.nan], "!"),
        ([1e308, -1e308], "▁▁"),
        ([0.0, 5e-324], "▁█"),
        ([0.0] * 8 + [math.nan] + [9.0] * 7, "▁▁▁▁!███"),
    ],
)
def test_a_sparkline_accepts_any_numbers_and_marks_those_not_finite(values, bars):
    assert formatting.sparkline(values) == bars


def test_a_gap_in_a_course_is_a_gap_in_its_bars():
    assert formatting.bars([1.0, None, 2.0]) == "▁ █"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-3, "0s"), (119, "119s"), (120, "2m"), (7199, "119m"), (7200, "2h"), (172_799, "47h"), (172_800, "2d")],
)
def test_ages_have_one_unit(seconds, text):
    assert formatting.age(seconds) == text


@pytest.mark.parametrize(
    ("value", "text"), [(math.nan, "nan"), (-math.inf, "-inf"), (1200.0, "1,200"), (0.0, "0.00"), (2e-6, "2.0e-06")]
)
def test_numbers_that_are_not_finite_are_named(value, text):
    assert formatting.short_number(value) == text


@pytest.fixture
def cluster(tmp_path):
    made = LocalCluster(tmp_path / "runs" / "world")
    made.create(make_run(arms=[{"name": "x", "set": {"seed": 1}}]))
    return made


def image(cluster, now=NOW):
    console = Console(file=io.StringIO(), width=120, force_terminal=False)
    display = live.LiveDisplay(cluster, make_run(), console=console)
    console.print(display.image(now))
    return console.file.getvalue()


def test_the_live_display_shows_servers_and_complete_active_and_planned_stages(cluster):
    done = make_stage("CurateStage", status={"conditions": holding("Complete", Reason.COMPLETE), "start_time": NOW})
    progress = Progress(step=61, total=90, metrics={"rewards": [0.33, 0.47]})
    at_work = make_stage(
        "GRPOStage", status={"attempt": 2, "start_time": NOW, "progress": progress, "checkpoint": "grpo/60"}
    )
    cluster.create(make_tool_server("grounding", status={"conditions": holding("Ready"), "port": 41023}))
    cluster.create(make_tool_server("judge"))
    cluster.create(done)
    cluster.create(at_work)
    lines = image(cluster, later(112)).splitlines()
    assert lines[0].split()[:5] == ["▸", "tools", "grounding", ":41023", "judge"]
    assert lines[1].split()[:2] == ["✓", "curate"]
    assert [line.split() for line in lines[2:4]] == [["sft"], ["stratify"]]
    assert "grpo" in lines[4] and "(attempt 2)" in lines[4] and "61/90" in lines[4] and "1:52" in lines[4]
    hint = " ".join(" ".join(lines[5:]).split())
    assert "Ctrl-C is safe: `gog resume world" in hint and hint.endswith("resumes from step 60.")


def test_a_failed_stage_shows_why_in_its_line(cluster):
    failed = holding("Failed", Reason.BACKOFF_LIMIT, "attempt 4 failed: exit 1: no such column")
    cluster.create(make_stage(status={"attempt": 4, "conditions": failed}))
    assert "✗ sft" in image(cluster) and "attempt 4 failed: exit 1: no such column" in image(cluster)


def test_the_last_lines_are_the_table_the_report_and_useful_commands(cluster):
    report = cluster.folder / "report"
    report.mkdir()
    row = {"policy": "grpo", "benchmark": "test", "n": 600, "accuracy": 0.812, "ci95": [0.78, 0.84]}
    row |= {"tool_calls_mean": 1.5, "latency_p50_s": 0.25}
    (report / "summary.json").write_text(json.dumps({"evaluation": [row]}))
    run = make_run()
    run = run.model_copy(update={"status": run.status.model_copy(update={"conditions": holding("Complete")})})
    lines = exit_message.finished(cluster, run, report / "index.html")
    assert lines[2] == "grpo    test       600    81.2 %  78.0 % – 84.0 %        1.50       0.25 s"
    assert "world is complete." in lines and lines[-2].startswith("next       gog status world")


def test_without_a_summary_there_is_no_table(tmp_path):
    assert table.rows(tmp_path / "summary.json") == []


def test_warnings_remain_above_the_live_display(cluster):
    console = Console(file=io.StringIO(), width=120, force_terminal=False)
    with live.LiveDisplay(cluster, make_run(), console=console) as display:
        display.event(make_stage(), Event("Retrying", "attempt 1 failed: exit 1", warning=True), NOW)
    assert "! attempt 1 failed: exit 1" in console.file.getvalue()

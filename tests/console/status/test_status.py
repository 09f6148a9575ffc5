"""`gog status`: what is read of run folders, what is shown of it at which width, and how it is followed."""

from __future__ import annotations

import fcntl
import json
import os

import pytest
import yaml
from rich.console import Console
from support.operator_builders import NOW, holding, later, make_stage, make_tool_server
from support.status_runs import AT_WORK, all_lines, board_lines, grpo_at_work, keep, report, run_folder, steps, words_of
from support.summary_shape import SHAPE

from gog import store
from gog.errors import UserError
from gog_console import cli, formatting
from gog_console.commands import status
from gog_console.status import document, overview, plain, run_page, run_state
from gog_operator.api.meta import Reason
from gog_operator.api.objects import Progress, Summary
from gog_operator.cluster import files
from gog_operator.cluster.lock import RunLock

# -- all runs


def test_an_active_run_shows_its_stage_metrics_and_remaining_time(runs):
    folder = run_folder(runs, stage="grpo", progress="1/90", reward="0.30", tool_failures="9.9%")
    steps(folder, "grpo", range(1, 62), reward_mean=lambda step: step / 100, tool_failure_ratio=0.031, seconds=2.0)
    (folder / "logs" / "grpo" / "2").mkdir(parents=True)
    with RunLock(folder):
        head, line = all_lines(runs, later(120))
    assert words_of(head) == ["RUN", "STATE", "STAGE", "PROGRESS", "REWARD", "TOOL-FAIL", "ATTEMPT", "AGE", "LEFT"]
    expected = ["world", "Training", "grpo", "61/90", "0.61", "▁▂▃▄▅▆▇█", "3.1%", "2", "2m", "~56", "s"]
    assert words_of(line) == expected, "29 steps of 2 s, and the one at work is all but done"


def test_a_run_without_a_driver_is_interrupted_and_shows_how_to_resume(runs):
    folder = run_folder(runs, stage="sft", progress="3/9")
    assert words_of(all_lines(runs)[1])[:4] == ["world", "Interrupted", "sft", "3/9"]
    assert all_lines(runs)[1].endswith("`gog resume world` resumes it")
    with RunLock(folder):
        assert "Interrupted" not in all_lines(runs)[1] and "resume" not in all_lines(runs)[1]


@pytest.mark.parametrize(
    ("conditions", "shown"),
    [
        (holding("Complete", Reason.COMPLETE), "Complete"),
        (holding("Failed", Reason.STAGE_FAILED, "no such column"), "StageFailed"),
        (holding("Suspended", Reason.SUSPENDED), "Suspended"),
    ],
)
def test_an_ended_or_suspended_run_is_not_interrupted(runs, conditions, shown):
    run_folder(runs, conditions=conditions)
    assert words_of(all_lines(runs)[1])[1] == shown


def test_a_failed_run_shows_its_reason_without_control_characters(runs):
    message = "first\nsecond \x1b[2J\x07 third"
    run_folder(runs, conditions=holding("Failed", Reason.STAGE_FAILED, message))
    assert "first second �[2J� third" in all_lines(runs)[1]


def test_the_newest_run_comes_first(runs):
    for name, born in (("b", NOW), ("a", later(-60)), ("c", later(60))):
        run_folder(runs, name, born=born)
    assert [words_of(line)[0] for line in all_lines(runs, later(90))[1:]] == ["c", "b", "a"]


def test_the_reward_remains_visible_after_the_grpo_stage(runs):
    folder = run_folder(runs, stage="evaluate", progress="1/5", reward="0.81", tool_failures="1.0%")
    report(folder, "grpo", 90, 90, reward=0.81, rewards=[0.1, 0.5, 0.9])
    report(folder, "evaluate", 2, 5, accuracy={"direct": 0.1})
    assert words_of(all_lines(runs)[1])[2:7] == ["evaluate", "2/5", "0.81", "▁▅█", "1.0%"]


def test_a_stage_that_was_started_alone_is_listed_as_a_run(runs):
    stage = make_stage(status={"conditions": holding("Complete", Reason.COMPLETE), "summary": Summary(progress="9/9")})
    keep(runs / "alone", stage)
    assert words_of(all_lines(runs)[1])[:4] == ["alone", "Complete", "sft", "9/9"]


@pytest.mark.parametrize("width", [20, 40, 60, 80, 100, 160])
def test_a_narrow_terminal_drops_the_least_important_columns_and_wraps_nothing(runs, width):
    folder = run_folder(runs, stage="grpo", progress="61/90", reward="0.61", tool_failures="3.1%")
    report(folder, "grpo", 61, 90, reward=0.61, rewards=[0.1, 0.9])
    run_folder(runs, "長い名前の実験" * 3)
    shown = overview.lines(overview.Overview(runs).read(NOW), NOW, width)
    assert all(line.cell_len <= width for line in shown)
    head = words_of(shown[0].plain)
    there = [title for title in ("AGE", "TOOL-FAIL", "REWARD", "STAGE", "PROGRESS", "STATE", "RUN") if title in head]
    assert there == ["AGE", "TOOL-FAIL", "REWARD", "STAGE", "PROGRESS", "STATE", "RUN"][-len(there) :]
    assert {"RUN", "STATE"} <= set(there)


def test_columns_are_aligned_beside_double_width_names(runs):
    run_folder(runs, "実験")
    run_folder(runs, "world")
    shown = overview.lines(overview.Overview(runs).read(NOW), NOW, None)
    places = {Console().render_str(line.plain[: line.plain.index("Interrupted")]).cell_len for line in shown[1:]}
    assert places == {len("world") + 2}


def test_an_unknown_name_is_refused_with_the_known_names(runs, capsys):
    run_folder(runs, "a")
    run_folder(runs, "b")
    assert cli.main(["status", "c"]) == 2
    assert capsys.readouterr().err == "gog: runs: no run 'c' (runs there: a, b)\n"


def test_one_object_per_run_is_parsed_and_none_twice(runs, monkeypatch):
    first = run_folder(runs, "run-0", make_stage(), make_tool_server(), stage="sft")
    for number in range(1, 30):
        (runs / f"run-{number}").symlink_to(first)
    parsed, really = [], yaml.load
    monkeypatch.setattr(files.yaml, "load", lambda *given: parsed.append(1) or really(*given))
    seen = overview.Overview(runs)
    assert len(seen.read(NOW)) == 30 and len(parsed) == 30
    seen.read(NOW)
    assert len(parsed) == 30


# -- one run


def test_a_run_shows_what_its_tools_charged(training, capsys):
    assert not any("spent" in line for line in board_lines(training))
    kept = store.Store(training / "store")
    kept.put_object("spend/grpo/a.json", b'{"tools": {"judge": {"2026-01-05": {"calls": 3, "usd": 1.25}}}}')
    assert "spent $1.25" in board_lines(training)
    assert cli.main(["status", "world", "--json"]) == 0
    spend = json.loads(capsys.readouterr().out)["spend"]
    assert spend == {"calls": 3, "usd": 1.25, "tools": {"judge": {"calls": 3, "usd": 1.25}}}


def event(folder, seconds, message, type_="Normal"):
    with (folder / "events.jsonl").open("a") as stream:
        stream.write(json.dumps({"time": later(seconds).isoformat(), "type": type_, "message": message}) + "\n")


def test_a_run_shows_its_stages_with_attempts_progress_times_and_remaining_time(training):
    with RunLock(training):
        lines = board_lines(training, later(112))
    assert lines[0] == f"world  Training  driven by process {os.getpid()}  112s old"
    table = {words_of(line)[1]: words_of(line) for line in lines[3:8] if len(words_of(line)) > 1}
    assert table["sft"] == ["✓", "sft", "Complete", "1", "180/180", "58.0", "s"]
    grpo = ["▸", "grpo", "Training", "2", "━━━━━━━━━━──────", "60/90", "grpo/60", "1:52", "~1:27"]
    assert table["grpo"] == grpo
    assert [words_of(line) for line in lines[3:8] if len(words_of(line)) == 1] == [
        ["curate"],
        ["stratify"],
        ["evaluate"],
    ]


def test_a_training_stage_shows_each_metric_with_its_course(training):
    lines = [words_of(line) for line in board_lines(training)]
    course = "▁▁▂▂▃▃▄▄▅▅▆▆▇▇██"
    shown = {tuple(line[:-3]): line[-3:] for line in lines if line and line[-1][0] in formatting.BARS}
    assert shown[("grpo", "reward")] == ["0.03", "0.58", course]
    assert shown[("KL",)] == ["3.0e-06", "5.8e-05", course]
    assert ["tool", "failures", "3.1", "%", "3.1", "%", "▁" * 16] in lines
    assert ["zero-variance", "groups", "50", "%", "25", "%", "█" * 8 + "▁" * 8] in lines
    assert ["time", "per", "step", "3.0", "s", "3.0", "s", "▁" * 16] in lines
    assert ["sft", "loss", "0.42"] in lines


def test_the_age_of_samples_is_shown_where_they_have_one_and_the_engine_s_gap_and_memory_always(runs):
    folder = run_folder(runs, "world", grpo_at_work(), stage="grpo")
    figures = {"logp_diff_mean": 2e-6, "host_memory_peak_bytes": 3.5e9, "staleness_mean": 0.0}
    steps(folder, "grpo", [1], **figures)
    lines = [words_of(line)[-4:] for line in board_lines(folder)]
    assert ["engine", "gap", "2.0e-06"] in [line[-3:] for line in lines]
    assert ["host", "memory", "3.50", "GB"] in lines
    assert not any("staleness" in line for line in lines)
    steps(folder, "grpo", [2], staleness_mean=1.2)
    assert any("staleness" in words_of(line) for line in board_lines(folder))


def test_a_series_with_non_finite_values_is_shown(training):
    steps(training, "grpo", range(61, 91), reward_mean=float("nan"), kl=float("inf"))
    with RunLock(training):
        lines = [words_of(line) for line in board_lines(training)]
    (course,) = [line[4] for line in lines if line[:4] == ["grpo", "reward", "0.03", "nan"]]
    assert course.startswith("▁▂") and course.endswith("█!!!!!!") and len(course) == 16
    assert all_lines(training.parent)
    assert json.loads(json.dumps(document.of_run(run_page.read(status.RunFolder(training), NOW), NOW), allow_nan=False))


def test_an_evaluation_shows_every_policy_s_accuracy(runs):
    folder = run_folder(runs, "world", make_stage("EvaluateStage"))
    report(folder, "evaluate", 5, 5, accuracy={"direct": 0.05, "whole-image": 0.56, "grpo": 0.925, "odd": None})
    lines = [words_of(line) for line in board_lines(folder)]
    assert ["evaluate", "direct", "5.0", "%"] in lines and ["grpo", "92", "%"] in lines


def test_the_last_events_are_shown_with_their_age_and_damaged_lines_are_skipped(training):
    for number in range(7):
        event(training, number, f"event {number}")
    event(training, 30, "attempt 1 failed: exit 1; tried again in 2 s", "Warning")
    with (training / "events.jsonl").open("a") as stream:
        stream.write('{"time": "2026-03-')
    lines = [line.strip() for line in board_lines(training, later(90))]
    at = lines.index("EVENT")
    assert lines[at + 1 : at + 6] == [
        "87s  ·  event 3",
        "86s  ·  event 4",
        "85s  ·  event 5",
        "84s  ·  event 6",
        "60s  !  attempt 1 failed: exit 1; tried again in 2 s",
    ]


def test_servers_are_shown_with_address_and_restarts(training):
    shown = ["grounding", "True", "1", "http://127.0.0.1:41023"]
    with RunLock(training):
        assert shown in [words_of(line) for line in board_lines(training)]
    assert shown not in [words_of(line) for line in board_lines(training)], "they ended with their driver"


def test_a_damaged_stage_object_does_not_hide_the_rest(training):
    (training / "objects" / "sftstage.world-stage.yaml").write_text("kind: [")
    lines = board_lines(training)
    assert lines[1].startswith("! sftstage.world-stage.yaml is not an object of gog")
    assert any(words_of(line)[:2] == ["▸", "grpo"] for line in lines)


@pytest.mark.parametrize("width", [30, 60, 80, 120])
def test_no_line_of_a_run_is_wider_than_the_terminal(training, width):
    event(training, 0, "a long story " * 30)
    shown = run_page.lines(run_page.read(status.RunFolder(training), NOW), NOW, width)
    assert max(line.cell_len for line in shown) <= width
    assert all(line.no_wrap for line in shown if line.plain)
    text = "\n".join(line.plain for line in shown)
    assert "grpo" in text and "reward" in text and "0.58" in text


def test_output_to_a_pipe_has_no_bars_escapes_or_trailing_blanks(training, capsys):
    event(training, 0, "a long story " * 30)
    assert cli.main(["status", "world"]) == 0
    output = capsys.readouterr().out
    assert "a long story " * 29 in output and "\x1b" not in output and "━" not in output
    assert all(line == line.rstrip() for line in output.splitlines())


@pytest.mark.parametrize(
    ("conditions", "driven", "first"),
    [
        (AT_WORK, True, "gog logs world/grpo -f"),
        (AT_WORK, False, "gog resume world"),
        (holding("Failed", Reason.STAGE_FAILED, "no"), False, "gog logs world/grpo"),
        (holding("Complete", Reason.COMPLETE), False, "gog view world"),
    ],
)
def test_the_suggested_command_fits_the_state(runs, conditions, driven, first):
    folder = run_folder(runs, "world", grpo_at_work(), conditions=conditions)
    driver = os.getpid() if driven else None
    root, stages = status.RunFolder(folder).root(), status.RunFolder(folder).stages()[0]
    assert run_state.next_step(root, driver, stages, folder)[0][0] == first
    if (conditions, driven) == (AT_WORK, False):
        assert any("gog resume world" in line and "from step 60" in line for line in board_lines(folder))


# -- time left


def left(folder, key="grpo", attempt=1, since=NOW, now=NOW):
    seen = status.RunFolder(folder)
    return run_state.seconds_left(seen.curve(key), seen.current_progress(key), attempt, since, now)


def test_the_remaining_time_follows_the_last_steps_and_ignores_outliers(runs):
    steps(runs / "a", "grpo", range(1, 31), seconds=60.0)
    steps(runs / "a", "grpo", range(31, 60), seconds=2.0)
    steps(runs / "a", "grpo", [60], seconds=500.0)
    assert left(runs / "a") == 60.0
    assert left(runs / "a", now=later(1)) == 59.0, "the step at work is half done"
    assert left(runs / "a", now=later(500)) == 58.0, "a step that takes long does not eat the others' time"


def test_without_a_log_the_remaining_time_is_extrapolated(runs):
    report(runs / "a", "curate", 100, 400)
    assert left(runs / "a", "curate", now=later(10)) == 30.0
    assert left(runs / "a", "curate", attempt=2, now=later(10)) is None, "it may have begun amid its way"


def test_without_data_there_is_no_remaining_time(runs):
    assert left(runs / "a") is None
    report(runs / "a", "curate", 0, 400)
    assert left(runs / "a", "curate", now=later(10)) is None
    steps(runs / "a", "sft", range(1, 91), seconds=1.0)
    assert left(runs / "a", "sft") is None, "done"


# -- following


def test_json_has_the_keys_of_the_report(training, capsys):
    with RunLock(training):
        assert cli.main(["status", "world", "--json"]) == 0
    output = json.loads(capsys.readouterr().out)
    assert (output["run"], output["condition"], output["interrupted"]) == ("world", "Training", False)
    shape = SHAPE["stages"] | {"arm", "message", "step", "total", "metrics", "left_seconds"}
    assert [set(stage) for stage in output["stages"]] == [shape] * 5
    assert output["stages"][0]["condition"] == "Not started"
    grpo = next(stage for stage in output["stages"] if stage["name"] == "grpo")
    assert (grpo["step"], grpo["total"], grpo["attempts"], grpo["checkpoint"]) == (60, 90, 2, "grpo/60")
    assert grpo["metrics"]["reward_mean"] == 0.6
    assert output["endpoints"] == [{"role": "grounding", "url": "http://127.0.0.1:41023", "ready": True, "restarts": 1}]
    assert cli.main(["status", "--json"]) == 0
    (run,) = json.loads(capsys.readouterr().out)["runs"]
    assert (run["run"], run["stage"], run["step"], run["interrupted"]) == ("world", "grpo", None, True)


def test_json_is_not_followed(capsys):
    with pytest.raises(SystemExit) as caught:
        cli.main(["status", "--json", "-f"])
    assert caught.value.code == 2


# -- beside the process that drives


def test_probing_a_lock_does_not_prevent_a_resume(runs):
    (runs / ".gog.lock").touch()
    looking = os.open(runs / ".gog.lock", os.O_RDONLY)
    fcntl.flock(looking, fcntl.LOCK_SH)
    with RunLock(runs, wait=lambda _: os.close(looking)) as held:
        assert held.folder == runs


def test_status_writes_nothing(training):
    before = {path: path.stat().st_mtime_ns for path in training.rglob("*")}
    board_lines(training)
    all_lines(training.parent)
    assert {path: path.stat().st_mtime_ns for path in training.rglob("*")} == before


def test_a_line_that_was_printed_is_not_printed_again():
    changes = plain.Changes()
    assert changes.has_changed("a", "Running", Progress(step=0, total=10))
    assert not changes.has_changed("a", "Running", Progress(step=0, total=10))
    assert changes.has_changed("a", "Running", Progress(step=1, total=10))
    assert changes.has_changed("a", "Complete", Progress(step=1, total=10))


def test_an_unreadable_folder_is_named(runs, monkeypatch):
    folder = run_folder(runs)

    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("gog_console.run_files.root_of", refuse)
    assert "cannot be read: Permission denied" in all_lines(runs)[1]
    with pytest.raises(UserError, match="cannot be read"):
        status.OneRun(folder)

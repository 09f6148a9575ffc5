"""`gog status`: what is read of run folders, what is shown of it at which width, and how it is followed."""

from __future__ import annotations

import contextlib
import fcntl
import io
import json
import os
import signal

import pytest
import yaml
from rich.console import Console
from support.operator_builders import NOW, holding, later, make_endpoint, make_run, make_stage, until
from support.summary_shape import SHAPE

from gog import store
from gog.errors import UserError
from gog_console import cli, formatting
from gog_console.commands import status
from gog_console.status import document, overview, plain, run_page, run_state
from gog_operator.api.meta import Reason
from gog_operator.api.objects import Progress, Summary
from gog_operator.cluster import files
from gog_operator.cluster.files import ObjectFiles
from gog_operator.cluster.lock import RunLock

AT_WORK = holding("Ready", Reason.TRAINING, "attempt 1")


@pytest.fixture
def runs(tmp_path, monkeypatch):
    """The folder of runs, as seen from where `gog` is called."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    return tmp_path / "runs"


def run_folder(runs, name="world", *things, born=NOW, conditions=AT_WORK, **summary):
    """A folder with a run that says what is given, and with other objects."""
    run = make_run()
    status = run.status.model_copy(update={"conditions": conditions, "summary": Summary(**summary), "start_time": NOW})
    keep(runs / name, run.model_copy(update={"status": status}), *things, born=born)
    return runs / name


def keep(folder, *things, born=NOW):
    for thing in things:
        ObjectFiles(folder / "objects").create(thing, now=born)


def steps(folder, key, numbers, total=90, changed=NOW, **figures):
    """A stage's log of steps."""
    log = folder / "work" / key / "metrics.jsonl"
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a") as stream:
        for step in numbers:
            made = {name: value(step) if callable(value) else value for name, value in figures.items()}
            stream.write(json.dumps({"step": step, "total": total, **made}) + "\n")
    os.utime(log, (changed.timestamp(),) * 2)


def report(folder, key, step, total, **metrics):
    path = folder / "work" / key / "progress.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"step": step, "total": total, "metrics": metrics, "checkpoint": None}))


def all_lines(runs, now=NOW, width=160):
    return [line.plain for line in overview.lines(overview.Overview(runs).read(now), now, width)]


def board_lines(folder, now=NOW, width=100):
    return [line.plain for line in run_page.lines(run_page.read(status.RunFolder(folder), now), now, width)]


def words_of(line):
    return line.split()


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


def torn(folder):
    (folder / "objects" / "gogrun.world.yaml").write_text("{kind: GoGRun, metadata: [")


def of_another_version(folder):
    path = folder / "objects" / "gogrun.world.yaml"
    path.write_text(path.read_text().replace("v1alpha1", "v9"))


def with_nothing_in_it(folder):
    (folder / "objects" / "gogrun.world.yaml").write_text("")


def without_objects(folder):
    for path in (folder / "objects").iterdir():
        path.unlink()


def without_their_folder(folder):
    without_objects(folder)
    (folder / "objects").rmdir()
    (folder / ".gog.lock").touch()


def empty(folder):
    without_objects(folder)
    (folder / "objects").rmdir()


DAMAGES = [torn, of_another_version, with_nothing_in_it, without_objects, without_their_folder, empty]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_folder_is_listed_as_damaged_beside_the_others(runs, damage):
    run_folder(runs, "good")
    damage(run_folder(runs, "bad"))
    lines = {words_of(line)[0]: line for line in all_lines(runs)[1:]}
    assert set(lines) == {"good", "bad"}
    assert words_of(lines["bad"])[1] == "Damaged"
    assert "is not an object of gog" in lines["bad"] or "no objects" in lines["bad"]
    assert cli.main(["status"]) == 0 and cli.main(["status", "--json"]) == 0


def by_a_newer_gog(folder):
    """Adds to each object and to the progress reports what a newer gog may write."""
    for path in (folder / "objects").glob("*.yaml"):
        body = yaml.safe_load(path.read_text())
        body["metadata"]["shard"] = 3
        body["spec"]["nextFeature"] = {"mode": "fast"}
        newer = {
            "type": "Degraded",
            "status": "True",
            "reason": "SlowTool",
            "lastTransitionTime": "2026-01-01T00:00:00Z",
        }
        conditions = [newer, *body.get("status", {}).get("conditions", [])]
        for each in conditions[1:]:
            each |= {"reason": "Distilling", "severity": "Info"}
        body["status"] = {**body.get("status", {}), "conditions": conditions, "phaseOfMoon": "full"}
        path.write_text(yaml.safe_dump(body))
    for path in (folder / "work").rglob("progress.json"):
        path.write_text(
            json.dumps({**json.loads(path.read_text()), "worldSize": 8, "checkpoint": {"ref": "sft/1", "x": 1}})
        )


def test_a_run_of_a_newer_gog_is_shown_with_its_own_states(training, capsys):
    report(training, "grpo", 7, 90)
    by_a_newer_gog(training)
    with RunLock(training):
        (line,) = [words_of(each) for each in all_lines(training.parent)[1:]]
        page = board_lines(training)
    assert line[1] == "Distilling"
    assert any("Distilling" in each for each in page[1:])
    assert not any(each.startswith("!") for each in page)
    for command in (["status"], ["status", "--json"], ["status", training.name], ["status", training.name, "--json"]):
        assert cli.main(command) == 0
    assert "Degraded" not in capsys.readouterr().err


def test_progress_of_a_newer_gog_is_read_without_its_unknown_fields(runs):
    folder = run_folder(runs)
    report(folder, "sft", 7, 90, loss=0.5)
    by_a_newer_gog(folder)
    found = status.RunFolder(folder).progress("sft")
    assert (found.step, found.total, found.metrics, found.checkpoint.ref) == (7, 90, {"loss": 0.5}, "sft/1")


def test_a_value_that_this_version_cannot_read_is_named_and_hides_nothing_else(training):
    path = training / "objects" / "sftstage.world-stage.yaml"
    body = yaml.safe_load(path.read_text())
    body["spec"]["epochs"] = "as many as it takes"
    path.write_text(yaml.safe_dump(body))
    lines = board_lines(training)
    assert lines[1].startswith("! SFTStage world-stage spec.epochs: is 'as many as it takes'")
    assert any(words_of(line)[1:2] == ["sft"] for line in lines)


@pytest.mark.parametrize("damage", [torn, empty])
def test_the_status_of_a_damaged_run_is_refused_in_one_sentence(runs, damage, capsys):
    damage(run_folder(runs))
    assert cli.main(["status", "world"]) == 2
    assert capsys.readouterr().err.startswith("gog: runs")


def test_times_without_a_zone_are_taken_as_utc(runs):
    folder = run_folder(runs, "world", grpo_at_work())
    for path in (folder / "objects").iterdir():
        path.write_text(path.read_text().replace("+00:00", "").replace("Z'", "'"))
    (folder / "events.jsonl").write_text('{"time": "2026-03-14T09:26:00", "type": "Normal", "message": "by hand"}\n')
    assert "53s  ·  by hand" in "\n".join(board_lines(folder))
    assert words_of(all_lines(runs)[1])[0] == "world"


def test_a_server_that_was_started_alone_is_listed_as_a_run(runs):
    keep(runs / "judge", make_endpoint("judge", status={"conditions": holding("Ready", Reason.READY)}))
    assert words_of(all_lines(runs)[1])[:2] == ["judge", "Interrupted"]
    with RunLock(runs / "judge"):
        assert words_of(all_lines(runs)[1])[:2] == ["judge", "Ready"]
        assert words_of(board_lines(runs / "judge")[-1]) == ["judge", "True", "0"]


def test_a_folder_of_other_files_is_not_a_run(runs):
    (runs / "notes").mkdir()
    (runs / "notes" / "todo.txt").touch()
    (runs / ".cache").mkdir()
    assert overview.Overview(runs).read(NOW) == []


def test_an_unknown_name_is_refused_with_the_known_names(runs, capsys):
    run_folder(runs, "a")
    run_folder(runs, "b")
    assert cli.main(["status", "c"]) == 2
    assert capsys.readouterr().err == "gog: runs: no run 'c' (runs there: a, b)\n"


def test_one_object_per_run_is_parsed_and_none_twice(runs, monkeypatch):
    first = run_folder(runs, "run-0", make_stage(), make_endpoint(), stage="sft")
    for number in range(1, 30):
        (runs / f"run-{number}").symlink_to(first)
    parsed, really = [], yaml.load
    monkeypatch.setattr(files.yaml, "load", lambda *given: parsed.append(1) or really(*given))
    seen = overview.Overview(runs)
    assert len(seen.read(NOW)) == 30 and len(parsed) == 30
    seen.read(NOW)
    assert len(parsed) == 30


# -- one run


def grpo_at_work(**status_of):
    output = {"attempt": 2, "attempt_time": NOW, "start_time": NOW, "checkpoint": "grpo/60", "conditions": AT_WORK}
    return make_stage("GRPOStage", status=output | status_of)


@pytest.fixture
def training(runs):
    """A run amid its GRPO."""
    done = {
        "attempt": 1,
        "start_time": NOW,
        "completion_time": later(58),
        "conditions": holding("Complete", Reason.COMPLETE),
    }
    sft = make_stage("SFTStage", status=done | {"progress": Progress(step=180, total=180, metrics={"loss": 0.42})})
    endpoint = make_endpoint(
        status={"url": "http://127.0.0.1:41023", "restarts": 1, "conditions": holding("Ready", Reason.READY)}
    )
    folder = run_folder(runs, "world", sft, grpo_at_work(), endpoint, stage="grpo")
    steps(
        folder, "grpo", range(1, 61), reward_mean=lambda step: step / 100, kl=lambda step: step * 1e-6,
        tool_failure_ratio=0.031, frac_reward_zero_std=lambda step: 0.25 if step > 30 else 0.5, seconds=3.0,
    )  # fmt: skip
    return folder


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


def following(view, *happenings):
    """Lines printed while one thing happens after another, and the exit code."""
    todo = iter(happenings)

    def wait(seconds):
        next(todo)()

    output = io.StringIO()
    with contextlib.redirect_stdout(output):
        code = status.follow_plain(view, wait=wait, clock=lambda: NOW)
    return code, output.getvalue().splitlines()


def now_holds(folder, conditions):
    kept = ObjectFiles(folder / "objects")
    run = kept.list(type(make_run()))[0]
    kept.patch_status(run, run.status.model_copy(update={"conditions": conditions}))


def test_a_pipe_gets_a_line_per_tenth_and_per_change_until_the_run_ends(training):
    with RunLock(training):
        code, output = following(
            status.OneRun(training),
            lambda: steps(training, "grpo", [61], reward_mean=0.6),
            lambda: steps(training, "grpo", range(62, 65), reward_mean=0.6),
            lambda: now_holds(training, holding("Complete", Reason.COMPLETE)),
        )
    assert code == 0
    assert [line.split("  ")[:3] for line in output] == [
        ["world", "Training"],
        ["✓ sft", "Complete", "180/180"],
        ["▸ grpo", "Training", "60/90"],
        ["▸ grpo", "Training", "64/90"],
        ["world", "Complete"],
    ]


@pytest.mark.parametrize(
    ("conditions", "code"),
    [(holding("Failed", Reason.STAGE_FAILED, "x"), 1), (holding("Suspended", Reason.SUSPENDED), 0), (AT_WORK, 130)],
)
def test_following_ends_as_the_run_did(runs, conditions, code):
    assert following(status.OneRun(run_folder(runs, conditions=conditions)))[0] == code


def test_all_runs_are_followed_until_ctrl_c(runs):
    folder = run_folder(runs, "a", stage="grpo")

    def ctrl_c():
        raise KeyboardInterrupt

    view, output = status.AllRuns(runs), io.StringIO()
    todo = iter([lambda: run_folder(runs, "b"), lambda: report(folder, "grpo", 30, 90), ctrl_c])
    with contextlib.redirect_stdout(output), pytest.raises(KeyboardInterrupt):
        status.follow_plain(view, wait=lambda _: next(todo)(), clock=lambda: NOW)
    lines = [line.split("  ")[:4] for line in output.getvalue().splitlines()]
    assert [line[:2] for line in lines] == [["a", "Interrupted"], ["b", "Interrupted"], ["a", "Interrupted"]]
    assert lines[2][2:] == ["grpo", "30/90"]


def test_a_terminal_is_redrawn_and_restored(training):
    file = io.StringIO()
    console = Console(file=file, force_terminal=True, width=60, height=40, _environ={"TERM": "xterm"})

    def ended(seconds):
        now_holds(training, holding("Failed", Reason.STAGE_FAILED, "no such column"))

    with RunLock(training):
        assert status.follow_drawn(status.OneRun(training), console, wait=ended, clock=lambda: NOW) == 1
    drawn = file.getvalue()
    assert "Training" in drawn and "no such column" in drawn
    assert drawn.index("\x1b[?25l") < drawn.index("\x1b[?25h"), "the cursor is hidden, then shown again"


def test_no_color_is_respected(training, monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    file = io.StringIO()
    console = Console(file=file, force_terminal=True, width=100)
    with RunLock(training):
        status.show(run_page.lines(run_page.read(status.RunFolder(training), NOW), NOW, 100), console)
    assert "\x1b[3" not in file.getvalue()


def test_following_ends_with_the_run_and_its_exit_code(harness):
    harness.stage = {"sft": {"steps": 10_000, "seconds": 0.01, "save_every": 10_000}}
    manifest = str(harness.write("SFTStage", store={"uri": f"file://{harness.run}/store"}))
    process = harness.start("run", manifest)
    until(lambda: harness.starts("sft"))
    follower = harness.start("status", "world", "-f")
    everything = harness.start("status", "-f")
    for each in (follower, everything):
        assert each.stdout is not None and "world" in each.stdout.readline() + each.stdout.readline()
    process.kill()
    output, _ = follower.communicate(timeout=60)
    assert follower.returncode == 130 and "world  Interrupted" in output.splitlines()
    everything.send_signal(signal.SIGINT)
    assert everything.wait(60) == 130


# -- for scripts


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

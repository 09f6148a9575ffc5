"""How `gog status` follows a run, in a pipe and in a terminal."""

from __future__ import annotations

import contextlib
import io
import signal

import pytest
from rich.console import Console
from support.operator_builders import NOW, holding, make_run, until
from support.status_runs import AT_WORK, report, run_folder, steps

from gog_console.commands import status
from gog_console.status import run_page
from gog_operator.api.meta import Reason
from gog_operator.cluster.files import ObjectFiles
from gog_operator.cluster.lock import RunLock


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

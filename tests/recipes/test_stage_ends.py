"""How a stage ends: its exit code, its one line, its termination message."""

from __future__ import annotations

import pytest

from gog import store
from gog.errors import ServiceDown, UserError
from gog_recipes.runtime import config, termination


@pytest.mark.parametrize(
    "error", [OSError(28, "No space left on device"), RuntimeError("I/O error: No space left on device (os error 28)")]
)
def test_a_full_disk_is_reported_in_one_line_whichever_library_raised_it(error, capsys):
    def write():
        raise error

    with pytest.raises(SystemExit) as caught:
        config.exit_with(write)
    assert caught.value.code == 1
    assert capsys.readouterr().err == (
        "failed: the stage's files: the disk is full (free space, then `gog resume`; nothing committed is lost)\n"
    )


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (UserError("is unknown", where="loss", remedy="use grpo"), 2, "error: loss: is unknown (use grpo)"),
        (ServiceDown("judge", "down for 600 s"), 1, "failed: judge: down for 600 s (the stage's next attempt"),
        (store.Unavailable("s3://b: not served within 120 s"), 1, "failed: s3://b: not served within 120 s"),
        (KeyboardInterrupt(), 130, "interrupted: the next attempt resumes from the last checkpoint"),
    ],
)
def test_a_stage_that_does_not_complete_ends_in_one_line_and_the_code_of_its_kind(capsys, error, code, line):
    def play():
        raise error

    with pytest.raises(SystemExit) as caught:
        config.exit_with(play)
    assert caught.value.code == code
    assert capsys.readouterr().err.startswith(line)


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (UserError("is unknown", where="loss"), "error: loss: is unknown"),
        (ServiceDown("judge", "503: try\nlater"), "failed: judge: 503: try later (the stage's next attempt resumes"),
        (ZeroDivisionError("division by zero"), "ZeroDivisionError: division by zero"),
        (RuntimeError("x" * 5000), "RuntimeError: xxx"),
    ],
)
def test_the_reason_of_a_failure_is_its_pod_s_termination_message(tmp_path, monkeypatch, error, message):
    def play():
        raise error

    monkeypatch.setenv(termination.FILE, str(tmp_path / "termination-log"))
    with pytest.raises((SystemExit, type(error))):
        config.exit_with(play)
    left = (tmp_path / "termination-log").read_text()
    assert left.startswith(message) and len(left) <= 1000 and "\n" not in left


def test_the_first_rank_s_reason_is_kept_when_others_fail_because_of_it(tmp_path):
    environment = {termination.FILE: str(tmp_path / "termination-log")}
    (tmp_path / "termination-log").touch()  # as a kubelet makes it
    termination.leave_reason("failed: judge: down for 600 s", environment)
    termination.leave_reason("RuntimeError: connection closed by peer", environment)
    assert (tmp_path / "termination-log").read_text() == "failed: judge: down for 600 s"


def test_outside_of_a_pod_no_reason_is_left(tmp_path):
    termination.leave_reason("failed", {})
    assert list(tmp_path.iterdir()) == []


def test_a_stage_that_completes_exits_with_0():
    with pytest.raises(SystemExit) as caught:
        config.exit_with(lambda: None)
    assert caught.value.code == 0


def test_a_bug_keeps_its_traceback():
    with pytest.raises(ZeroDivisionError):
        config.exit_with(lambda: print(1 // 0))

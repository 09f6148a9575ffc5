"""`gog run` from end to end on one machine, through TorchX and real processes, with toys for stages and servers."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import sys

import pytest
import yaml
from support.operator_builders import until
from support.operator_harness import TOYS, Harness

STAGES = ("curate", "sft", "stratify", "grpo", "evaluate")


def sft(harness, **spec):
    """One stage alone: the smallest thing that runs."""
    return str(harness.write("SFTStage", store={"uri": f"file://{harness.run}/store"}, **spec))


def test_a_run_goes_through_every_stage_and_leaves_nothing_running(harness):
    path = str(harness.write())
    code, output = harness.gog("run", path)
    assert code == 0, output
    assert harness.conditions("gogrun.world") == {"Complete": "Complete"}
    assert {stage: harness.committed(stage)[-1] for stage in STAGES} == dict.fromkeys(STAGES, 4)
    assert [len(harness.starts(stage)) for stage in STAGES] == [1] * 5
    assert harness.starts("grpo")[0]["inputs"] == {"sft": "sft/4", "stratify": "stratify/4"}
    assert harness.living() == set() and not list((harness.run / "processes").iterdir())
    assert [line for line in output.splitlines() if line.startswith("✓ evaluate")]
    assert "world is complete." in output

    final = yaml.safe_load((harness.run / "work" / "grpo" / "final.yaml").read_text())
    assert final["learning_rate"] == 1e-3, "what the user left out comes from the family's preset"
    assert final["data"] == {"path": str(harness.folder / "pool")} and final["endpoints"]["judge"].startswith(
        "http://127.0.0.1:"
    )
    assert (harness.run / "logs" / "sft" / "1" / "trainer" / "0" / "combined.log").exists()

    code, output = harness.gog("run", path)
    assert code == 0 and [len(harness.starts(stage)) for stage in STAGES] == [1] * 5
    code, output = harness.gog("run", path, "--set", "stages.sft.epochs=2")
    assert code == 2
    assert output == (
        "gog: runs/world: holds a run with another manifest (different: spec.stages.sft.epochs) (`gog resume world` resumes"
        " that one; for a new run change metadata.name or --dir)\n"
    )
    assert "world" in harness.gog("status")[1] and "evaluate/4" in harness.gog("status", "world")[1]
    assert "world is complete" in harness.gog("logs", "world")[1]


@pytest.mark.parametrize("name", ["${app_id}", "$$x $HOME", "${", "{{run}} 100%d", r"\${img_root}", "$(pwd) `x`"])
def test_a_folder_s_name_is_not_read_as_a_template(tmp_path, name):
    (tmp_path / name).mkdir()
    with contextlib.closing(Harness(tmp_path / name)) as harness:
        code, output = harness.gog("run", sft(harness))
        assert code == 0, output
        assert harness.committed("sft")[-1] == 4


def test_modules_beside_the_manifest_are_not_imported_in_place_of_the_standard_library_s(harness):
    for name in ("random", "json", "yaml"):
        (harness.folder / f"{name}.py").write_text("raise RuntimeError('imported from the working directory')\n")
    harness.more = {"GOG_STAGE_PROGRAM": f"{sys.executable} -m toy_stage", "PYTHONPATH": str(TOYS)}
    code, output = harness.gog("run", sft(harness))
    assert code == 0, output


def test_programs_in_the_working_directory_do_not_come_before_those_on_the_path(harness):
    fake = harness.folder / "env"
    fake.write_text("#!/bin/sh\nexit 1\n")
    fake.chmod(0o755)
    harness.more = {"GOG_STAGE_PROGRAM": f"env {sys.executable} {TOYS / 'toy_stage.py'}"}
    code, output = harness.gog("run", sft(harness))
    assert code == 0, output


@pytest.mark.parametrize(
    ("end", "failures", "event"),
    [
        ({"exit": 130}, 0, "attempt 1 was interrupted: it received SIGINT or SIGTERM"),
        ({"signal": signal.SIGINT}, 0, "attempt 1 was interrupted: it received SIGINT or SIGTERM"),
        ({"exit": 137}, 1, "attempt 1 failed: killed by SIGKILL"),
        ({"signal": signal.SIGKILL}, 1, "attempt 1 failed: killed by SIGKILL"),
        ({"signal": signal.SIGTERM}, 1, "attempt 1 failed: killed by SIGTERM"),
    ],
)
def test_a_signal_that_ended_an_attempt_is_reported_alike_by_itself_and_by_a_launcher(harness, end, failures, event):
    harness.stage = {"sft": {"fail_until_attempt": 2, **end}}
    code, output = harness.gog("run", sft(harness))
    assert code == 0, output
    status = harness.object("sftstage.world")["status"]
    assert status["attempt"] == 2 and status.get("failures", 0) == failures
    assert any(event in message for message in harness.events())


def test_an_attempt_s_log_folder_names_how_it_ended(harness):
    harness.stage = {"sft": {"fail_until_attempt": 2}}
    assert harness.gog("run", sft(harness))[0] == 0
    logs = harness.run / "logs" / "sft"
    files = {number: {each.name for each in (logs / number).iterdir() if each.is_file()} for number in ("1", "2")}
    assert files == {"1": {"FAILED"}, "2": {"SUCCESS"}}


def test_the_judge_s_model_reaches_the_stages_that_ask_it(harness):
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        path = harness.write(endpoints={"judge": {"url": url, "model": "qwen3-32b"}})
        code, output = harness.gog("run", str(path))
    assert code == 0, output
    final = {stage: yaml.safe_load((harness.run / "work" / stage / "final.yaml").read_text()) for stage in STAGES}
    asked = {stage: each.get("judge_model") for stage, each in final.items()}
    assert asked == {**dict.fromkeys(STAGES, "qwen3-32b"), "sft": None}
    assert final["grpo"]["endpoints"]["judge"] == url


def test_a_failing_attempt_is_retried_from_its_last_checkpoint(harness):
    harness.stage = {"sft": {"fail_until_attempt": 2}}
    code, output = harness.gog("run", sft(harness))
    assert code == 0, output
    assert len(harness.starts("sft")) == 2 and harness.object("sftstage.world")["status"]["failures"] == 1
    assert "! world: attempt 1 failed: exit 1: toy: sft fails on purpose; retry 1 of 3 in 2 s" in output


def test_a_stage_that_fails_for_good_reports_cause_and_remedy_and_can_be_resumed(harness):
    harness.stage = {"sft": {"exit": 2}}
    path = sft(harness)
    code, output = harness.gog("run", path)
    assert code == 1
    assert "world failed: invalid input, not retried: toy: sft fails on purpose" in output
    assert "`gog logs world/sft` shows the log; `gog resume world` tries again" in output
    assert "toy: sft fails on purpose" in harness.gog("logs", "world/sft")[1]
    assert harness.gog("run", path)[0] == 1, "a finished run stays finished"
    assert len(harness.starts("sft")) == 1
    harness.stage = {}
    code, output = harness.gog("resume", "world")
    assert code == 0 and harness.object("sftstage.world")["status"]["attempt"] == 2
    assert (
        "world: attempt 1 ended: invalid input: toy: sft fails on purpose; attempt 2 starts from the beginning"
        in output
    )


def test_a_checkpoint_that_was_deleted_from_the_store_is_made_again(harness):
    harness.stage = {"evaluate": {"exit": 2}}
    short = {"skip": ["curate", "stratify", "grpo"]}
    path = str(harness.write(stages=short, store={"uri": f"file://{harness.run}/store"}))
    assert harness.gog("run", path)[0] == 1
    (harness.run / "store" / "manifests" / "sft" / "000000004.json").unlink()
    harness.stage = {}
    code, output = harness.gog("resume", "world")
    assert code == 0, output
    assert "the last checkpoint of sft is no longer in the store; the stage runs again" in output
    assert [each["from"] for each in harness.starts("sft")] == [0, 2], "it resumes from the one before"
    assert harness.starts("evaluate")[1]["inputs"] == {"sft": "sft/4"}


def test_ctrl_c_ends_the_stage_and_prints_how_to_resume(harness):
    harness.stage = {"sft": {"steps": 400, "seconds": 0.02, "save_every": 2}}
    process = harness.start("run", sft(harness))
    harness.until_committed("sft", 2)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=120)
    step = harness.committed("sft")[-1]
    assert process.returncode == 130 and f"`gog resume world` resumes the run: sft resumes from sft/{step}." in output
    assert harness.living() == set()

    harness.stage = {"sft": {"steps": step + 1}}
    code, output = harness.gog("resume", "world")
    assert code == 0 and f"world: attempt 1 was interrupted; attempt 2 resumes from sft/{step}" in output
    assert [each["from"] for each in harness.starts("sft")] == [0, step]


def test_a_second_ctrl_c_does_not_wait_for_a_stage_that_ignores_the_first(harness):
    harness.stage = {"sft": {"hang": True}}
    process = harness.start("run", sft(harness))
    until(lambda: harness.starts("sft"))
    process.send_signal(signal.SIGINT)
    assert process.stdout is not None
    for line in process.stdout:
        if "interrupted" in line:
            break
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 130 and harness.living() == set()


def test_a_run_in_use_is_refused_and_its_holder_is_named(harness):
    harness.stage = {"sft": {"hang": True}}
    path = sft(harness)
    process = harness.start("run", path)
    until(lambda: harness.starts("sft"))
    for line in (("run", path), ("resume", "world")):
        code, output = harness.gog(*line)
        assert code == 2 and f"is in use by process {process.pid}" in output


def test_a_run_is_cancelled_from_another_terminal(harness):
    harness.stage = {"sft": {"steps": 1000, "seconds": 0.02}}
    process = harness.start("run", sft(harness))
    harness.until_committed("sft", 2)
    code, output = harness.gog("cancel", "world")
    assert (code, output) == (0, f"world is being cancelled by process {process.pid}, which drives it\n")
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 1 and "world is cancelled." in output
    assert harness.conditions("sftstage.world") == {"Failed": "Cancelled"} and harness.living() == set()


def test_a_run_without_a_control_loop_is_cancelled_too(harness):
    harness.stage = {"curate": {"hang": True}}
    process = harness.start("run", str(harness.write()))
    until(lambda: harness.starts("curate"))
    process.kill()
    process.wait()
    code, output = harness.gog("cancel", "world")
    assert code == 0, output
    assert harness.conditions("gogrun.world") == {"Failed": "Cancelled"} and harness.living() == set()
    assert len(harness.starts("curate")) == 1


def test_logs_are_followed_until_the_control_loop_ends(harness):
    harness.stage = {"sft": {"hang": True}}
    process = harness.start("run", sft(harness))
    until(lambda: harness.starts("sft"))
    follower = harness.start("logs", "world/sft", "-f")
    log = harness.run / "logs" / "sft" / "1" / "trainer" / "0" / "combined.log"
    with log.open("a") as stream:
        stream.write("a line that came later\n")
    assert follower.stdout is not None
    assert follower.stdout.readline() == "==> sft, attempt 1 <==\n"
    assert follower.stdout.readline() == "a line that came later\n"
    process.kill()
    assert follower.wait(60) == 0


def test_one_tool_server_alone_is_served_until_interrupted(harness):
    (harness.folder / "server.yaml").write_text(
        "{apiVersion: gog.dev/v1alpha1, kind: ToolServer, metadata: {name: world}, spec: {role: judge}}"
    )
    process = harness.start("run", "server.yaml")
    until(lambda: any("judge server is ready at http://127.0.0.1:" in message for message in harness.events()))
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 130 and harness.living() == set()


def test_a_server_that_dies_is_restarted_on_its_port(harness):
    harness.stage = {"curate": {"steps": 10_000, "seconds": 0.02}}
    harness.start("run", str(harness.write()))
    harness.until_committed("curate", 2)
    logs = harness.run / "logs" / "grounding"
    first = json.loads((logs / "1" / "ready.json").read_text())

    os.kill(first["pid"], signal.SIGKILL)
    second = json.loads(until(lambda: (logs / "2" / "ready.json").exists() and (logs / "2" / "ready.json").read_text()))
    assert second["url"] == first["url"] and second["pid"] != first["pid"]
    until(lambda: any("grounding server exited (killed by SIGKILL" in message for message in harness.events()))
    assert len(harness.starts("curate")) == 1, "the stage is not affected"


def test_a_server_that_never_answers_fails_the_run_with_the_last_line_of_its_log(harness):
    harness.server = {"judge": {"exit": 2}}
    code, output = harness.gog("run", str(harness.write()))
    assert code == 1 and harness.living() == set()
    assert "world failed: judge server exited before it was ready: exit 2: toy: judge ends on purpose" in output


def test_a_suspended_run_starts_nothing_until_it_is_resumed(harness):
    path = sft(harness, suspend=True)
    code, output = harness.gog("run", path)
    assert code == 0 and harness.starts("sft") == []
    assert "`gog resume world` resumes the run: sft starts from the beginning." in output
    assert harness.gog("resume", "world")[0] == 0
    assert harness.conditions("sftstage.world") == {"Complete": "Complete"}


def test_an_unknown_run_is_reported(harness):
    for command in ("resume", "status", "logs", "cancel", "report"):
        assert harness.gog(command, "nothing") == (2, "gog: runs: no run 'nothing' (runs there: none)\n")

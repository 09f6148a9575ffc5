"""The command line's surface: cheap help, exit codes, what it refuses before anything starts."""

from __future__ import annotations

import shutil
import subprocess
import sys

import pytest

from gog_console import cli

HEAVY = ("torch", "transformers", "kserve", "torchx", "pydantic", "rich", "yaml", "numpy", "aiohttp")


def loaded_after(line: str) -> set[str]:
    """Which heavy packages a command has imported when it ends."""
    code = (
        "import sys\nfrom gog_console import cli\n"
        f"try:\n    cli.main({line.split()!r})\nexcept SystemExit:\n    pass\n"
        f"print('loaded:', *sorted(set({HEAVY!r}) & {{name.partition('.')[0] for name in sys.modules}}))"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    return set(told.splitlines()[-1].split()[1:])


def test_help_imports_nothing_heavy():
    assert loaded_after("--help") == set()


def test_reading_a_manifest_needs_no_trainer_no_server_and_no_scheduler():
    assert loaded_after("validate examples/world.yaml") <= {"pydantic", "yaml"}


def test_looking_at_runs_needs_no_scheduler_and_no_arithmetic():
    assert not loaded_after("status") & {"torch", "transformers", "kserve", "torchx", "numpy"}


@pytest.mark.parametrize(
    "line", [[], ["fly"], ["run"], ["run", "a.yaml", "--fast"], ["serve", "coffee"], ["stage", "sft"], ["stage", "nap"]]
)
def test_a_wrong_call_exits_with_2(line, capsys):
    with pytest.raises(SystemExit) as caught:
        cli.main(line)
    assert caught.value.code == 2
    assert "usage: gog" in capsys.readouterr().err


def test_validate_says_what_a_run_would_do(harness):
    arms = [{"name": "no-gaze", "set": {"stages.grpo.gaze": "off"}}]
    code, told = harness.gog("validate", str(harness.write(arms=arms)))
    assert code == 0
    assert told.endswith(
        "manifest.yaml: GoGRun world is valid\n"
        "stages: curate → sft → stratify → grpo → evaluate → grpo-no-gaze → evaluate-no-gaze\n"
    )


def test_an_invalid_manifest_exits_with_2_and_a_sentence(harness):
    path = harness.write(stages={"sft": {"epoch": 1}})
    code, told = harness.gog("validate", str(path))
    assert (code, told) == (2, f"gog: {path}: spec.stages.sft.epoch: unknown field (did you mean epochs?)\n")


def test_a_dataset_that_is_not_there_is_told_before_anything_starts(harness):
    path = harness.write()
    shutil.rmtree(harness.folder / "pool")
    code, told = harness.gog("run", str(path))
    assert code == 2 and f"{path}: spec.data.path: no file or folder {harness.folder / 'pool'}" in told
    assert not harness.run.exists()


def test_a_folder_that_cannot_be_written_is_told_in_a_sentence(harness):
    (harness.folder / "runs").write_text("a file where the folder should be")
    code, told = harness.gog("run", str(harness.write()))
    assert (code, told) == (2, "gog: runs/world: cannot write: Not a directory (choose another folder with --dir)\n")


def test_status_without_runs_says_so(harness):
    assert harness.gog("status") == (0, "no runs in runs\n")


def test_data_makes_a_world_that_gog_data_will_not_make_again(harness):
    line = ("data", "--world", '{"train": 2, "test": 1}', "--out", "world")
    assert harness.gog(*line)[0] == 0
    made = (harness.folder / "world" / "train.jsonl").stat().st_mtime_ns
    assert harness.gog(*line)[0] == 0
    assert (harness.folder / "world" / "train.jsonl").stat().st_mtime_ns == made
    code, told = harness.gog("data", "--world", '{"trian": 2}', "--out", "world")
    assert (code, told) == (2, "gog: --world: trian: unknown field (did you mean train?)\n")

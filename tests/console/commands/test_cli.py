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
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    return set(output.splitlines()[-1].split()[1:])


def test_help_imports_nothing_heavy():
    assert loaded_after("--help") == set()


def test_validate_imports_neither_trainer_server_nor_scheduler():
    assert loaded_after("validate examples/world.yaml") <= {"pydantic", "yaml"}


def test_status_imports_neither_a_scheduler_nor_numpy():
    assert not loaded_after("status") & {"torch", "transformers", "kserve", "torchx", "numpy"}


@pytest.mark.parametrize(
    "line", [[], ["fly"], ["run"], ["run", "a.yaml", "--fast"], ["serve", "coffee"], ["stage", "sft"], ["stage", "nap"]]
)
def test_a_wrong_call_exits_with_2(line, capsys):
    with pytest.raises(SystemExit) as caught:
        cli.main(line)
    assert caught.value.code == 2
    assert "usage: gog" in capsys.readouterr().err


def test_validate_lists_the_stages(harness):
    arms = [{"name": "no-gaze", "set": {"stages.grpo.gaze": "off"}}]
    code, output = harness.gog("validate", str(harness.write(arms=arms)))
    assert code == 0
    assert output.splitlines()[:2] == [
        f"{harness.folder / 'manifest.yaml'}: GoGRun world is valid",
        "stages: curate → sft → stratify → grpo → evaluate → grpo-no-gaze → evaluate-no-gaze",
    ]


def test_an_invalid_manifest_exits_with_2_and_a_sentence(harness):
    path = harness.write(stages={"sft": {"epoch": 1}})
    code, output = harness.gog("validate", str(path))
    assert (code, output) == (2, f"gog: {path}: spec.stages.sft.epoch: unknown field (did you mean epochs?)\n")


def test_a_missing_dataset_is_refused_before_anything_starts(harness):
    path = harness.write()
    shutil.rmtree(harness.folder / "pool")
    code, output = harness.gog("run", str(path))
    assert code == 2 and f"{path}: spec.data.path: no file or folder {harness.folder / 'pool'}" in output
    assert not harness.run.exists()


def test_a_folder_that_cannot_be_written_is_refused_in_one_sentence(harness):
    (harness.folder / "runs").write_text("a file where the folder should be")
    code, output = harness.gog("run", str(harness.write()))
    assert (code, output) == (2, "gog: runs/world: cannot write: Not a directory (choose another folder with --dir)\n")


def test_status_without_runs_says_so(harness):
    assert harness.gog("status") == (0, "no runs in runs\n")


def test_data_generates_a_world_once(harness):
    line = ("data", "--world", '{"train": 2, "test": 1}', "--out", "world")
    assert harness.gog(*line)[0] == 0
    made = (harness.folder / "world" / "train.jsonl").stat().st_mtime_ns
    assert harness.gog(*line)[0] == 0
    assert (harness.folder / "world" / "train.jsonl").stat().st_mtime_ns == made
    code, output = harness.gog("data", "--world", '{"trian": 2}', "--out", "world")
    assert (code, output) == (2, "gog: --world: trian: unknown field (did you mean train?)\n")


@pytest.mark.parametrize(("arguments", "expected"), [(["-h"], "{grounding,"), (["judge", "--help"], "--ready-file")])
def test_serve_explains_itself_and_each_of_its_servers(arguments, expected):
    shown = subprocess.run([sys.executable, "-m", "gog_console", "serve", *arguments], capture_output=True, text=True)
    assert shown.returncode == 0, shown.stderr
    assert expected in shown.stdout

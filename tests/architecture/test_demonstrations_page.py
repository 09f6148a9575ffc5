"""The script and the line that docs/dataset.md shows for demonstrations are right: `gog validate` and SFT take them."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from gog import images, trajectory_zip
from gog.trajectory import Trajectory
from gog_console import cli
from gog_recipes.data import demonstrations

PAGE = (Path(__file__).parents[2] / "docs" / "dataset.md").read_text()
SECTION = PAGE[PAGE.index("## Demonstrations") :]
MANIFEST = """
apiVersion: gog.dev/v1alpha1
kind: GoGRun
metadata: {name: mine}
spec: {model: {base: tiny}, data: {world: {}}, stages: {sft: {demonstrations: demonstrations.zip}}}
"""


def block(language: str) -> str:
    found = re.search(rf"```{language}\n(.*?)```", SECTION, re.DOTALL)
    assert found is not None
    return found[1]


@pytest.fixture
def written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder in which the page's script ran."""
    (tmp_path / "images").mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)
    PIL.Image.fromarray(pixels).save(tmp_path / "images" / "q1.png")
    (tmp_path / "run.yaml").write_text(MANIFEST)
    subprocess.run([sys.executable, "-c", block("python")], cwd=tmp_path, check=True, timeout=60)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_gog_validate_accepts_what_the_script_writes(written: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["validate", "run.yaml"]) == 0
    output = "".join(capsys.readouterr())
    assert "GoGRun mine is valid" in output and "not checked" not in output
    (written / "demonstrations.zip").write_bytes(b"no archive")
    assert cli.main(["validate", "run.yaml"]) == 2
    assert "demonstrations.zip: not a trajectory archive" in "".join(capsys.readouterr())


def test_sft_learns_from_it_and_finds_its_image(written: Path) -> None:
    archive = trajectory_zip.Archive(written / "demonstrations.zip")
    [episode] = archive.trajectories()
    assert demonstrations.unverified(episode) == ""
    assert archive.image(episode.image).hash == images.read(written / "images" / "q1.png").hash == episode.image


def test_the_line_is_the_one_that_the_script_writes(written: Path) -> None:
    [episode] = trajectory_zip.Archive(written / "demonstrations.zip").trajectories()
    assert Trajectory.model_validate_json(block("json")).model_copy(update={"image": episode.image}) == episode

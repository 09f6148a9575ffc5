"""`make photos` from its packages to tools that answer, with a few steps of training."""

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
pytestmark = [
    pytest.mark.exhaustive,
    pytest.mark.skipif(shutil.which("apt-get") is None, reason="needs apt-get, which fetches the photographs"),
]


def run(*command):
    done = subprocess.run([str(each) for each in command], cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_photo_world_is_made_and_its_tools_answer(tmp_path):
    printed = run("examples/photos", tmp_path / "made", "--train", 12, "--test", 12, "--steps", 0.005)
    assert "held-out questions about a thing" in printed and "171 images, 0 skipped" in printed
    assert {each.name for each in (tmp_path / "made" / "licences").iterdir()} == {
        "mate-backgrounds",
        "tuxpaint-stamps-default",
    }
    text = (ROOT / "examples" / "photos.yaml").read_text().replace("runs/photo-world", str(tmp_path / "made"))
    (tmp_path / "photos.yaml").write_text(text.replace("trajectories: 300", "trajectories: 8"))
    assert "4 servers answer" in run(".venv/bin/gog", "tools", "check", tmp_path / "photos.yaml")
    assert "photos is complete" in run(".venv/bin/gog", "run", tmp_path / "photos.yaml", "--dir", tmp_path / "runs")

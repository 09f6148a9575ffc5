"""A stage of the world that is recorded, handed on as one file, and repeated with no tool server."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from gog import store, trajectory_zip

pytestmark = pytest.mark.slow

GOG = [sys.executable, "-m", "gog_console"]
SERVERS = {"grounding": "grounding", "imageSearch": "image-search", "textSearch": "text-search", "judge": "judge"}
CALLS = {"seconds", "attempts", "cached", "decisions", "waited", "judge_decisions"}
"""How calls were made, not what they returned."""


def gog(*line: str | Path) -> str:
    done = subprocess.run([*GOG, *map(str, line)], capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout


def results(value: Any) -> Any:
    """A record without how its calls were made."""
    if isinstance(value, dict):
        return {name: results(each) for name, each in value.items() if name not in CALLS}
    return [results(each) for each in value] if isinstance(value, list) else value


def test_a_recorded_stage_is_repeated_elsewhere_without_a_tool_server(tmp_path: Path) -> None:
    def run(name: str, cache: dict[str, str]) -> list[Any]:
        spec = {
            "model": {"base": "tiny"},
            "data": {"path": str(tmp_path / "data")},
            "endpoints": {"judge": {"model": "world"}},
            "tools": {"cache": cache},
            "stages": {"curate": {"trajectories": 60}, "skip": ["sft", "stratify", "grpo", "evaluate"]},
        }
        manifest = {"apiVersion": "gog.dev/v1alpha1", "kind": "GoGRun", "metadata": {"name": "world"}, "spec": spec}
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(manifest))
        gog("run", tmp_path / f"{name}.yaml", "--dir", tmp_path / name)
        kept = store.Store(tmp_path / name / "world" / "store")
        path = kept.open(kept.resolve("curate"), "trajectories.zip")
        return [item.model_dump(mode="json") for item in trajectory_zip.Archive(path).trajectories()]

    def logged(name: str) -> set[str]:
        return {path.name for path in (tmp_path / name / "world" / "logs").iterdir()}

    gog("data", "--world", '{"train": 60, "test": 1}', "--out", tmp_path / "data")
    there, here = tmp_path / "there.sqlite", tmp_path / "here.sqlite"
    first = run("first", {"mode": "record", "path": str(there)})
    exported = gog("recording", "export", there, tmp_path / "run.gogrec")
    imported = gog("recording", "import", tmp_path / "run.gogrec", here)
    assert exported.splitlines()[0] == imported.splitlines()[0]
    second = run("second", {"mode": "replay-strict", "path": str(here)})
    assert results(second) == results(first)
    assert all(f"{tool} " in exported for tool in SERVERS), "every tool was called"
    assert (logged("first"), logged("second")) == ({"curate", *SERVERS.values()}, {"curate"})

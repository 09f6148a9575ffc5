"""A stage of the world that is recorded, handed on as one file, and repeated with no tool server."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from support import kube
from support.operator_builders import until

from gog import store, trajectory_zip

pytestmark = pytest.mark.slow

GOG = [sys.executable, "-m", "gog_console"]
ROLES = {"grounding": "grounding", "imageSearch": "image-search", "textSearch": "text-search", "judge": "judge"}
CALLS = {"seconds", "attempts", "cached", "decisions", "waited", "judge_decisions"}
"""How calls were made, not what they returned."""


def gog(*line: str | Path) -> str:
    done = subprocess.run([*GOG, *map(str, line)], capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout


@contextmanager
def tool_servers(data: Path) -> Iterator[dict[str, Any]]:
    """Endpoints of the world's tools, which end with the block."""
    ports = dict(zip(ROLES, kube.free_ports(len(ROLES))))
    processes = []
    try:
        for role, command in ROLES.items():
            line = [*GOG, "serve", command, "--port", str(ports[role])]
            line += ["--data", str(data)] if "search" in command else []
            processes.append(subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
        until(lambda: all(map(answers, ports.values())))
        yield {role: {"url": f"http://127.0.0.1:{port}"} for role, port in ports.items()}
    finally:
        for process in processes:
            process.kill()
            process.wait()


def answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def results(value: Any) -> Any:
    """A record without how its calls were made."""
    if isinstance(value, dict):
        return {name: results(each) for name, each in value.items() if name not in CALLS}
    return [results(each) for each in value] if isinstance(value, list) else value


def test_a_recorded_stage_is_repeated_elsewhere_with_every_tool_server_down(tmp_path: Path) -> None:
    def run(name: str, endpoints: dict[str, Any], cache: dict[str, str]) -> list[Any]:
        spec = {
            "model": {"base": "tiny"},
            "data": {"path": str(tmp_path / "data")},
            "endpoints": endpoints,
            "tools": {"cache": cache},
            "stages": {"curate": {"trajectories": 60}, "skip": ["sft", "stratify", "grpo", "evaluate"]},
        }
        manifest = {"apiVersion": "gog.dev/v1alpha1", "kind": "GoGRun", "metadata": {"name": "world"}, "spec": spec}
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(manifest))
        gog("run", tmp_path / f"{name}.yaml", "--dir", tmp_path / name)
        kept = store.Store(tmp_path / name / "world" / "store")
        path = kept.open(kept.resolve("curate"), "trajectories.zip")
        return [item.model_dump(mode="json") for item in trajectory_zip.Archive(path).trajectories()]

    gog("data", "--world", '{"train": 60, "test": 1}', "--out", tmp_path / "data")
    there, here = tmp_path / "there.sqlite", tmp_path / "here.sqlite"
    with tool_servers(tmp_path / "data") as endpoints:
        first = run("first", endpoints, {"mode": "record", "path": str(there)})
    exported = gog("recording", "export", there, tmp_path / "run.gogrec")
    imported = gog("recording", "import", tmp_path / "run.gogrec", here)
    assert exported.splitlines()[0] == imported.splitlines()[0]
    second = run("second", endpoints, {"mode": "replay-strict", "path": str(here)})
    assert results(second) == results(first)
    assert {tool for tool in ROLES if f"{tool} " in exported} == set(ROLES), "every tool was called"

"""Real tool servers for recipes: one set per test session, processes on loopback."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from gog.spec import WorldSpec
from gog_recipes.world import generate

SERVERS = {
    "grounding": ("grounding", []),
    "imageSearch": ("search", ["image", "--data"]),
    "textSearch": ("search", ["text", "--data"]),
    "judge": ("judge", []),
}


def start(folder: Path, tool: str, data: Path, failures: dict | None = None) -> tuple[subprocess.Popen, Path]:
    module, arguments = SERVERS[tool]
    ready = folder / f"{tool}.json"
    where = [str(data)] if "--data" in arguments else []
    program = f"import sys; from gog_tools import {module}; sys.exit({module}.main(sys.argv[1:]))"
    command = [sys.executable, "-W", "ignore", "-c", program, *arguments, *where, "--ready-file", str(ready)]
    if failures:
        command += ["--failures", json.dumps(failures), "--timeout-seconds", "5"]
    log = (folder / f"{tool}.log").open("w")
    return subprocess.Popen(command, stdout=log, stderr=log, env=os.environ | {"OMP_NUM_THREADS": "1"}), ready


def await_file(path: Path, process: subprocess.Popen, seconds: float = 60) -> dict:
    deadline = time.monotonic() + seconds
    while not path.exists():
        assert process.poll() is None, f"{path.stem} ended with {process.returncode}"
        assert time.monotonic() < deadline, f"{path.stem} was not ready within {seconds} s"
        time.sleep(0.05)
    return json.loads(path.read_text())


@pytest.fixture(scope="session")
def world(tmp_path_factory):
    """A small dataset folder of the embedded world."""
    folder = tmp_path_factory.mktemp("world") / "data"
    generate.write(folder, WorldSpec(seed=7, train=80, test=24))
    return folder


@pytest.fixture(scope="session")
def endpoints(world, tmp_path_factory):
    """URLs of the four tools."""
    folder = tmp_path_factory.mktemp("servers")
    processes = {tool: start(folder, tool, world) for tool in SERVERS}
    try:
        yield {tool: await_file(ready, process)["url"] for tool, (process, ready) in processes.items()}
    finally:
        for process, _ in processes.values():
            process.terminate()
        for process, _ in processes.values():
            process.wait(20)

"""Real tool servers for recipes and a chain of finished stages: one set per test session, processes on loopback.

A conftest imports the fixtures that its tests use.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from importlib import resources
from pathlib import Path

import pytest
import torch
import yaml

from gog.spec import CurateConfig, SFTConfig, StratifyConfig, WorldSpec
from gog_recipes.curate import CurateRecipe
from gog_recipes.runtime import config
from gog_recipes.sft import SFTRecipe
from gog_recipes.stratify import StratifyRecipe
from gog_recipes.world import generate
from support.ready_files import await_file

SERVERS = {
    "grounding": ("grounding.server", []),
    "imageSearch": ("search.server", ["image", "--data"]),
    "textSearch": ("search.server", ["text", "--data"]),
    "judge": ("judge.server", []),
}


def start(folder: Path, tool: str, data: Path, failures: dict | None = None) -> tuple[subprocess.Popen, Path]:
    module, arguments = SERVERS[tool]
    ready = folder / f"{tool}.json"
    where = [str(data)] if "--data" in arguments else []
    program = ["-W", "ignore", "-m", f"gog_tools.{module}"]
    command = [sys.executable, *program, *arguments, *where, "--ready-file", str(ready)]
    if failures:
        command += ["--failures", json.dumps(failures), "--timeout-seconds", "5"]
    log = (folder / f"{tool}.log").open("w")
    return subprocess.Popen(command, stdout=log, stderr=log, env=os.environ | {"OMP_NUM_THREADS": "1"}), ready


@pytest.fixture(scope="session")
def world(tmp_path_factory):
    """A small dataset folder of the embedded world."""
    folder = tmp_path_factory.mktemp("world") / "data"
    generate.write(folder, WorldSpec(seed=7, train=80, test=24))
    return folder


@pytest.fixture(scope="session")
def tools_over(tmp_path_factory):
    """tools_over(data): URLs of the four tools over a dataset folder."""
    processes = []

    def begin(data):
        folder = tmp_path_factory.mktemp("servers")
        started = {tool: start(folder, tool, data) for tool in SERVERS}
        processes.extend(process for process, _ in started.values())
        return {tool: await_file(ready, process)["url"] for tool, (process, ready) in started.items()}

    try:
        yield begin
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.wait(20)


@pytest.fixture(scope="session")
def endpoints(world, tools_over):
    """URLs of the four tools."""
    return tools_over(world)


@pytest.fixture(scope="session")
def make(world, endpoints, tmp_path_factory):
    """make(kind, root, **settings): a stage's configuration from the tiny preset."""
    presets = resources.files("gog_recipes") / "configs" / "tiny"

    def configuration(kind, root, **settings):
        values = yaml.safe_load((presets / f"{kind.kind}.yaml").read_text()) | {
            "data": {"path": str(world)},
            "store": {"uri": f"file://{root}/store"},
            "workdir": str(root / "work" / kind.kind),
            "endpoints": endpoints,
        }
        return config.typed(kind, values | settings)

    return configuration


def play_chain(make, root, **settings):
    """Plays curate, sft and stratify into a folder. settings: of every stage, besides those of the preset."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    curate = CurateRecipe(make(CurateConfig, root, trajectories=64, teacher_accuracy=1.0, **settings))
    curate.setup()
    curate.save_checkpoint(asyncio.run(curate.curate()), 1.0)
    sft = SFTRecipe(make(SFTConfig, root, epochs=15, **settings))
    sft.setup()
    sft.train()
    stratify = StratifyRecipe(make(StratifyConfig, root, questions=24, rollouts=3, **settings))
    stratify.setup()
    stratify.save_checkpoint(asyncio.run(stratify.train()), 1.0)
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def chain(make, tmp_path_factory):
    """A folder in which curate, sft and stratify are done."""
    root = tmp_path_factory.mktemp("chain")
    play_chain(make, root)
    return root

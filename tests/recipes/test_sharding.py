"""A policy sharded over two ranks: everything but the vision tower is divided, losses and gradients are the same."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from support import learning, sharding_program

from gog_recipes.runtime.ranks import SINGLE


@pytest.fixture(
    scope="module",
    params=[
        ("float32", "none", "none"),
        ("bfloat16", "none", "none"),
        pytest.param(("float32", "nf4", "none"), marks=pytest.mark.slow),
        pytest.param(("float32", "none", "cpu"), marks=pytest.mark.slow),
    ],
)
def updates(request, tmp_path_factory):
    """The same update by two ranks, of which one has four trajectories and the other one, and by a single process."""
    folder = tmp_path_factory.mktemp("sharding")
    dtype, quantization, offload = request.param
    program = Path(sharding_program.__file__)
    line = [sys.executable, "-W", "ignore", "-m", "gog_recipes.runtime.launch", "--standalone", "--nproc_per_node=2"]
    with (folder / "log").open("w") as log:
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        command = [*line, str(program), dtype, "70", "on", quantization, offload, str(folder / "found")]
        code = subprocess.run(command, stdout=log, stderr=log, env=environment, check=False).returncode
    assert code == 0, (folder / "log").read_text()[-3000:]
    alone = sharding_program.update(SINGLE, dtype, 10**6, "off", quantization, "none")
    return dtype, torch.load(folder / "found"), alone


def test_losses_and_gradients_equal_those_of_a_single_process(updates):
    dtype, two, alone = updates
    tolerance = 1e-6 if dtype == "float32" else 2e-2
    assert learning.difference(two["gradients"], alone["gradients"]) < tolerance
    for name in ("loss", "kl", "grad_norm"):
        assert two[name] == pytest.approx(alone[name], rel=max(tolerance, 1e-5)), name


def test_a_whole_weight_is_divided_again_as_its_parameter_is(updates):
    _, two, _ = updates
    assert two["restored"]


def test_only_the_vision_tower_stays_whole(updates):
    _, two, _ = updates
    assert two["whole"] and all(".visual." in name for name in two["whole"])

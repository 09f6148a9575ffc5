"""A policy sharded over two ranks: all of it is divided; losses, gradients and features of images are the same."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from support import learning, sharding_program

from gog.engine import Limits
from gog.spec import EngineSettings, ModelSpec
from gog_recipes.models import policy_model
from gog_recipes.models.vision import Vision
from gog_recipes.rollout.engine import Parts
from gog_recipes.rollout.transformers import TransformersEngine
from gog_recipes.runtime.ranks import SINGLE


@pytest.fixture(
    scope="module",
    params=[
        ("tiny", "float32", "none", "none"),
        ("tiny", "bfloat16", "none", "none"),
        pytest.param(("tiny", "float32", "nf4", "none"), marks=pytest.mark.slow),
        pytest.param(("tiny", "float32", "none", "cpu"), marks=pytest.mark.slow),
        pytest.param(("qwen3_vl", "float32", "none", "none"), marks=pytest.mark.slow),
    ],
)
def updates(request, tmp_path_factory, real_base):
    """The same update by two ranks, of which one has four trajectories and the other one, and by a single process."""
    folder = tmp_path_factory.mktemp("sharding")
    base, dtype, quantization, offload = request.param
    if base != "tiny":
        base = str(real_base(base))
    program = Path(sharding_program.__file__)
    line = [sys.executable, "-W", "ignore", "-m", "gog_recipes.runtime.launch", "--standalone", "--nproc_per_node=2"]
    with (folder / "log").open("w") as log:
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        command = [*line, str(program), base, dtype, "70", "on", quantization, offload, str(folder / "found")]
        ended = subprocess.run(command, stdout=log, stderr=log, env=environment, check=False, timeout=900)
    assert ended.returncode == 0, (folder / "log").read_text()[-3000:]
    alone = sharding_program.update(SINGLE, base, dtype, 10**6, "off", quantization, "none")
    rounding = 2e-2 if dtype == "bfloat16" else 1e-6 if base == "tiny" else 1e-5  # wider sums round more
    return rounding, torch.load(folder / "found"), alone


def test_losses_and_gradients_equal_those_of_a_single_process(updates):
    tolerance, two, alone = updates
    assert learning.difference(two["gradients"], alone["gradients"]) < tolerance
    for name in ("loss", "kl", "grad_norm"):
        assert two[name] == pytest.approx(alone[name], rel=max(tolerance, 1e-5)), name


def test_several_optimizer_steps_equal_those_of_a_single_process(updates):
    tolerance, two, alone = updates
    if tolerance > 1e-4:
        pytest.skip("a ratio is clipped or not by less than the rounding of bfloat16")
    two, alone = two["several"], alone["several"]
    assert two["updates"] == alone["updates"] == 2 and 0 < alone["figures"]["clip_frac"] < 0.5
    tolerance = max(tolerance, 1e-5)  # the second step starts from the rounding of the first
    assert learning.difference(two["gradients"], alone["gradients"]) < tolerance
    assert two["figures"] == pytest.approx(alone["figures"], rel=tolerance)


def test_a_whole_weight_is_divided_again_as_its_parameter_is(updates):
    _, two, _ = updates
    assert two["restored"]


def test_no_weight_stays_whole(updates):
    _, two, _ = updates
    assert two["whole"] == []


def test_ranks_with_different_numbers_of_images_get_the_features_of_a_single_process(updates):
    for found in updates[1]["tower"]:
        assert found["batch"] and found["rollout"] and found["whole"] == []
    assert [found["passes"] for found in updates[1]["tower"]] == [3, 1]


def test_an_image_that_fails_on_one_rank_stops_all_of_them_and_leaves_none_waiting(updates):
    first, second = updates[1]["tower"]
    assert second["error"] == "OSError: torn"
    assert first["error"] == "RuntimeError: rank 1 could not encode its images: torn"
    assert second["user error"] == "UserError: a.png: cut off"
    assert first["user error"] == "UserError: rank 1 could not encode its images: a.png: cut off"
    assert first["after"] and second["after"]


def test_the_vision_tower_is_gathered_for_a_rollout_and_divided_while_the_engine_rests(monkeypatch):
    calls = []
    monkeypatch.setattr(Vision, "gather", lambda _: calls.append("gather"))
    monkeypatch.setattr(Vision, "release", lambda _: calls.append("release"))
    spec = ModelSpec(base="tiny")
    policy, processor = learning.adapted(spec), policy_model.load_processor(spec)
    vision = policy_model.vision_of(policy, processor)
    engine = TransformersEngine(Parts(policy, processor, vision, Limits(64, 8, 1.0), 2, settings=EngineSettings()))
    asyncio.run(engine.rest())
    asyncio.run(engine.switch(policy, 1))
    assert calls == ["gather", "release", "gather"]

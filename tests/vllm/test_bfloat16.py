"""A bfloat16 vLLM with a published structure: what rounding changes, and what it must not hide."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from support.photo_chain import CAPS, GRPO, IMAGE_SIZES, PATIENT, photo_configs, play_photo_chain, run
from support.real_structures import vllm
from support.vllm_servers import Policy, Server, play, sampled

from gog import adapters, store
from gog.engine import Limits
from gog.errors import UserError
from gog.spec import GRPOConfig, ModelSpec
from gog_recipes.grpo import GRPORecipe

pytestmark = pytest.mark.vllm
GAP = 0.05
"""Mean difference of a token's log-prob in nats; the stage stops at 0.1. Measured: 0.003 to 0.02."""
PIXELS = 200_000
"""Most pixels of an image that the server takes; those of the chain are smaller."""
LIMITS = Limits(2048, 40, 1.0)


@pytest.fixture(scope="module")
def base(real_base: Callable[..., Path]) -> Path:
    return real_base("qwen3_vl", **vllm("qwen3_vl"))


@pytest.fixture(scope="module")
def server(base: Path, serve: Callable[..., list[Server]]) -> Any:
    """A server of the base in bfloat16, which ends with the module."""
    kwargs = json.dumps({"min_pixels": IMAGE_SIZES["min_pixels"], "max_pixels": PIXELS})
    [made] = serve(base, 1, "--dtype", "bfloat16", "--max-model-len", "2048", "--mm-processor-kwargs", kwargs)
    yield made
    made.kill()


@pytest.fixture
def policy(base: Path, policy_of: Callable[[ModelSpec], Policy]) -> Policy:
    made = policy_of(ModelSpec(base=str(base), max_pixels=PIXELS, dtype="bfloat16"))
    made.train(2)
    return made


def test_log_probs_are_the_trainer_s_up_to_rounding_and_adapters_are_proved(server, policy) -> None:
    async def run():
        engine = policy.engine([server], LIMITS)
        played = await play(engine)
        [replica] = engine._fleet.replicas
        kinds = [proof.kind for proof in replica.proofs]
        await engine.close()
        return played, replica.proved, kinds

    played, proved, kinds = asyncio.run(run())
    assert proved and kinds == ["attention", "MLPs or experts"]
    gaps = np.concatenate([sampled(segments) - policy.logprobs(segments) for segments in played])
    assert np.abs(gaps).mean() < GAP


def test_a_server_that_ignores_adapters_of_mlps_is_noticed_although_rounding_is_coarse(server, policy) -> None:
    async def run():
        engine = policy.engine([server], LIMITS)
        folder = Path(engine._proofs[1].served.folder)
        ignored = {name: torch.zeros_like(value) for name, value in load_file(folder / adapters.WEIGHTS).items()}
        save_file(ignored, folder / adapters.WEIGHTS)
        await play(engine)

    with pytest.raises(UserError, match="does not apply adapters of MLPs or experts"):
        asyncio.run(run())


def test_grpo_in_bfloat16_samples_from_vllm_and_weighs_the_gap(server, base, photo_pool, tools_over, tmp_path) -> None:
    tools = tools_over(photo_pool) | {"policy": server.url}
    made = photo_configs(base, photo_pool, tools, tmp_path)
    play_photo_chain(made, rank=8)
    run(GRPORecipe(made(GRPOConfig, **GRPO, **CAPS, **PATIENT, engine="vllm", lora={"rank": 8, "alpha": 16})))
    opened = store.Store(tmp_path / "store")
    manifest = opened.latest("grpo")
    assert manifest is not None
    series = [json.loads(line) for line in opened.open(manifest, "metrics.jsonl").read_text().splitlines()]
    learned = [line for line in series if line["learned"]]
    assert len(series) == GRPO["steps"] and learned
    for line in learned:
        assert 0 < line["logp_diff_mean"] < GAP and 0.9 < line["tis_weight_mean"] < 1.1
    assert max(line["canary_engine"] for line in series) < GAP
    assert all(line["canary_adapter"] > 0.1 and line["canary_images"] > 1e-3 for line in series)

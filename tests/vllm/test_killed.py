"""GRPO that samples from vLLM, killed by SIGKILL in mid-episode: no finished turn is sampled again, and the rest equals
the uninterrupted run as far as vLLM's arithmetic repeats."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.killed_stage import Judge, Run
from support.stage_chain import play_chain
from support.vllm_servers import Server

from gog import tensors

pytestmark = pytest.mark.vllm
SETTINGS = {
    "levels": ["easy", "1", "2"],
    "questions_per_step": 5,
    "group_size": 3,
    "concurrent_episodes": 6,
    "steps": 2,
    "save_every": 2,
    "engine": "vllm",
    "tools": {"crop_side": 28, "outage": {"patience_seconds": 1800}},
}
TRAJECTORIES = 15
"""Of a step."""
CLOSE = 1e-2
"""Difference of two updates as a share of the update, in float32, where both learned from the same tokens."""


@pytest.fixture(scope="session")
def wide_chain(make: Any, wide: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which curate, sft and stratify are done with the wide tiny model."""
    root = tmp_path_factory.mktemp("wide-chain")
    play_chain(make, root, model=model(wide))
    return root


def model(wide: Path) -> dict[str, str]:
    return {"base": str(wide), "family": "tiny"}


def update(run: Run) -> np.ndarray:
    """What training changed: the Bs of the adapter, which begin with zeros, in a row."""
    manifest = run.store.latest("grpo")
    assert manifest is not None
    weights = tensors.read(run.store.open(manifest, "adapter_model.safetensors"))
    return np.concatenate([values.ravel() for name, (_, values) in sorted(weights.items()) if "lora_B" in name])


@pytest.mark.parametrize("ranks", [1, 2])
def test_grpo_killed_in_mid_episode_samples_only_what_its_journal_lacks(
    ranks: int,
    wide: Path,
    wide_chain: Path,
    make: Any,
    endpoints: dict[str, str],
    judge: Judge,
    replicas: list[Server],
    tmp_path: Path,
) -> None:
    servers = {"judge": judge.url, "policy": ",".join(server.url for server in replicas)}
    settings = SETTINGS | {"model": model(wide), "endpoints": endpoints | servers}
    runs = {}
    for name in ("straight", "killed"):
        (tmp_path / name).mkdir()
        runs[name] = Run("grpo", wide_chain, tmp_path / name, make, settings)
    straight, killed = runs["straight"], runs["killed"]
    straight.finish(ranks)
    killed.kill_at(ranks, 3, 2)
    judged, tokens = killed.journal(2)
    found = killed.found(2)
    assert len(judged) < TRAJECTORIES and any(each.turns and each.stop is None for each in found.values())
    killed.finish(ranks)
    played = {(each.question_id, each.sample): each for each in killed.trajectories()}
    assert len(played) == TRAJECTORIES
    for key, each in found.items():
        assert played[key].segments[: len(each.segments)] == each.segments, "a finished turn keeps tokens and log-probs"
    first, second = killed.lines()
    assert first["generated_tokens"] == 0, "a step whose play had finished is not sampled again"
    assert second["generated_tokens"] == straight.lines()[1]["generated_tokens"] - tokens
    assert killed.result() == straight.result()
    assert max(line["canary_engine"] for line in killed.lines()) < 1e-4 and any(
        line["learned"] for line in killed.lines()
    )
    ours, theirs = update(killed), update(straight)
    assert np.linalg.norm(ours - theirs) <= CLOSE * np.linalg.norm(theirs)

"""Versions of a policy that a real vLLM of this machine serves: what `gog serve agent` and `gog chat` load there."""

from __future__ import annotations

import json
import urllib.request
from pathlib import Path

import pytest
from support.vllm_servers import Policy, Server

from gog import adapters, store
from gog.spec import StoreSpec
from gog_operator.cluster.local_agents import LocalAgents
from gog_operator.plan.actions import ServerView

pytestmark = pytest.mark.vllm


def test_a_local_agent_loads_checkpoints_into_a_vllm_that_then_answers_for_them(
    policy: Policy, replicas: list[Server], tmp_path: Path
) -> None:
    kept, url = StoreSpec(uri=(tmp_path / "kept").as_uri()), replicas[0].url
    files = {name: policy.saved[0] / name for name in (adapters.CONFIG, adapters.WEIGHTS)}
    for step in (7, 9):
        store.open_store(kept).publish("sft", step, files, meta={"complete": True})
    agents, view = LocalAgents(), ServerView("ready", url=url)
    assert agents.version(view, "sft/9 sft/7") == ""
    agents.load(url, "sft/9 sft/7", kept, tmp_path / "adapters")
    assert agents.version(view, "sft/9 sft/7") == "sft/9 sft/7"
    assert {"sft-9", "sft-7"} <= {card["id"] for card in _call(f"{url}/v1/models")["data"]}
    agents.load(url, "sft/7", kept, tmp_path / "adapters")  # a folder that is there already is not fetched again
    assert agents.version(view, "sft/7") == "sft/7"


def _call(url: str) -> dict:
    with urllib.request.urlopen(url, timeout=60) as answer:
        return json.loads(answer.read())

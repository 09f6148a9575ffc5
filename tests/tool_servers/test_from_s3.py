"""Servers whose base model, versions and dataset come from a bucket."""

from __future__ import annotations

import json
import shutil

import pytest
from support import s3

from gog import dataset_zip, tool_api
from gog import store as stores
from gog_operator.cluster import adapters as client
from gog_recipes.world import TINY

MARKED = ("gog_tools.policy.server", "--backend", "marked_policy:MarkedModel")


@pytest.fixture
def bucket(gateway, tmp_path, trained):
    """(spec of a store that holds `trained`, the folder of its prefix)."""
    prefix = f"{tmp_path.parent.name}/{tmp_path.name}"
    spec = gateway.spec(prefix)
    for ref in ("grpo/120", "grpo/240"):
        stores.copy(stores.open_store(json.loads(trained)["uri"]), ref, stores.open_store(spec), parents=True)
    return spec, gateway.folder / s3.BUCKET / prefix


def test_a_policy_starts_from_a_bucket_and_loads_further_versions_from_it(start, bucket, gate):
    spec, folder = bucket
    shutil.copytree(TINY, folder / "base")
    line = ("--base", f"{spec.uri}/base", "--store", spec.model_dump_json(by_alias=True, exclude_unset=True))
    server = start(*MARKED, *line, "--version", "grpo/120", GATE=str(gate))
    cards = server.get("/v1/models").json()["data"]
    assert [(card["id"], card["default"]) for card in cards] == [("base", False), ("grpo-120", True)]
    outcome = client.ensure_version([server.url], "grpo/240", client.requester())
    assert outcome.state == "done", outcome
    missing = client.ensure_version([server.url], "grpo/999", client.requester())
    assert missing.state == "failed" and "grpo/999" in missing.message


def test_a_policy_keeps_serving_while_its_store_is_down(start, bucket, gate, tmp_path):
    _, folder = bucket
    own = s3.Gateway(tmp_path / "buckets").start()
    try:
        shutil.copytree(folder, own.folder / s3.BUCKET / "run")
        line = ("--base", "tiny", "--store", own.spec("run").model_dump_json(by_alias=True, exclude_unset=True))
        server = start(*MARKED, *line, "--version", "sft/180", GATE=str(gate))
        assert server.url
    finally:
        own.stop()
    assert client.ensure_version([server.url], "grpo/120", client.requester(seconds=1)).state == "waiting"
    assert server.post("/v1/completions", {"model": "policy", "prompt": "x"}).json()["model"] == "sft-180"


def test_a_search_answers_from_a_dataset_in_a_bucket(start, bucket, world, tmp_path):
    spec, _ = bucket
    dataset_zip.pack(world, tmp_path / dataset_zip.FILE)
    stores.open_store(spec).publish(dataset_zip.KEY, 1, {dataset_zip.FILE: tmp_path / dataset_zip.FILE})
    store = spec.model_dump_json(by_alias=True, exclude_unset=True)
    server = start("gog_tools.search.server", "text", "--data", spec.uri, "--store", store)
    hits = server.post(tool_api.TEXT_SEARCH_PATH, {"query": "t042"}).json()["hits"]
    assert hits[0]["title"] == "t042"


def test_a_bucket_without_the_dataset_is_reported_in_a_sentence(start, bucket):
    spec, _ = bucket
    store = spec.model_dump_json(by_alias=True, exclude_unset=True)
    server = start("gog_tools.search.server", "image", "--data", spec.uri, "--store", store)
    assert server.process.wait(60) == 2
    error = server.process.stderr.read()
    assert error.startswith("gog serve image-search: ") and error.count("\n") == 1 and "dataset" in error

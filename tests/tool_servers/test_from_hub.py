"""A server whose dataset is one of the Hugging Face Hub."""

from __future__ import annotations

import shutil

import pytest
from support import hub_server

from gog import tool_api

ADDRESS = "hf://datasets/org/pool"


@pytest.fixture
def served(world, tmp_path):
    """A hub with the pages of the world, whose images text search does not read."""
    (tmp_path / "source").mkdir()
    shutil.copy(world / "corpus.jsonl", tmp_path / "source")
    with hub_server.serving(tmp_path / "source", "org/pool", "datasets") as made:
        yield made


def test_a_search_answers_from_a_dataset_of_the_hub_without_a_store(start, served, tmp_path):
    server = start("gog_tools.search.server", "text", "--data", ADDRESS, **served.environment(tmp_path / "home"))
    hits = server.post(tool_api.TEXT_SEARCH_PATH, {"query": "t042"}).json()["hits"]
    assert hits[0]["title"] == "t042"


@pytest.mark.parametrize(
    ("status", "code", "sentence"),
    [
        (403, 2, f"{ADDRESS}: the Hub refuses the token (403)"),
        (503, 1, f"Hugging Face Hub: {ADDRESS}"),
    ],
)
def test_a_refusal_ends_the_server_otherwise_than_an_outage(start, served, tmp_path, status, code, sentence):
    served.status = status
    server = start("gog_tools.search.server", "text", "--data", ADDRESS, **served.environment(tmp_path / "home"))
    assert server.process.wait(60) == code
    error = server.process.stderr.read()
    assert error.startswith("gog serve text-search: ") and sentence in error

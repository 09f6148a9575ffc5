"""Results of store jobs from a tenant's own image: whatever it writes is a failure with a message, never an error of ours."""

from __future__ import annotations

import json
from typing import Any

import pytest
import support.operator_golden as golden
from support.memory_api import MemoryApi

from gog_operator.build import meta
from gog_operator.cluster import fetches, paths, store_checks, store_jobs, tool_checks
from gog_operator.cluster.api_errors import TranslatedApi
from gog_operator.plan.actions import Checkpoint

CACHED = {"base": "hf://org/model"}
NO_OBJECTS = ["[1]", "7", "null", '"text"', "{", '{"a": NaN}', "[" * 2000]
BASE = {"folder": "model-1", "resolved": "hf://org/model@abc", "bytes": 1e9}


def run() -> Any:
    made = golden.run()
    spec = {**made.spec.as_given(), "model": CACHED, "modelCache": {"claimName": "models"}}
    return golden.thing("GoGRun", "world", spec)


def jobs(name: str, message: str, **annotations: str) -> store_jobs.StoreJobs:
    """A namespace with one store job of the run, which is complete, and its pod, which left a message."""
    api = MemoryApi()
    owned = meta.head(name, golden.run(), "store-job", **annotations)
    ended = {"conditions": [{"type": "Complete", "status": "True"}]}
    api.put(paths.JOBS, {"kind": "Job", "metadata": owned, "status": ended})
    state = {"terminated": {"exitCode": 0, "message": message}}
    head = {"name": f"{name}-x", "namespace": "research", "labels": {"batch.kubernetes.io/job-name": name}}
    api.put(paths.PODS, {"kind": "Pod", "metadata": head, "status": {"containerStatuses": [{"state": state}]}})
    return store_jobs.StoreJobs(TranslatedApi(api), "research", golden.PLATFORM)


@pytest.mark.parametrize("text", NO_OBJECTS, ids=range(len(NO_OBJECTS)))
@pytest.mark.parametrize("place", ["message", "annotation"])
def test_a_result_that_is_no_json_object_is_a_failure_that_quotes_it(place, text):
    kept = {store_jobs.RESULT: text} if place == "annotation" else {}
    found = jobs("world-check", "" if kept else text, **kept).view("world-check")
    assert found.state == "failed" and text[:100] in found.message


@pytest.mark.parametrize(
    "checkpoints",
    [
        [1],
        "sft",
        {"sft": 7},
        {"sft": {"step": None}},
        {"sft": {"step": "7"}},
        {"sft": {"step": -1}},
        {"sft": {"step": 10**400}},
    ]
    + [{"sft": {"step": 7, "complete": "yes"}}],
)
def test_a_check_of_the_store_that_names_no_checkpoints_has_failed(checkpoints):
    view = store_checks.found({"checkpoints": checkpoints})
    assert view.state == "failed" and "names no checkpoints" in view.message


def test_a_check_of_the_store_names_its_checkpoints():
    result = {"checkpoints": {"sft": {"step": 7, "complete": True}, "grpo": {}}}
    assert store_checks.found(result).checkpoints == {"sft": Checkpoint("sft", 7, True)}
    assert store_checks.found({"checkpoints": None}).state == "known"


@pytest.mark.parametrize(
    "base",
    [
        *(7, {}, {**BASE, "folder": "../other"}, {**BASE, "folder": "data-0/../other"}, {**BASE, "folder": "data-0/"}),
        *({**BASE, "folder": 7}, {**BASE, "bytes": "many"}),
    ],
    ids=range(7),
)
def test_a_fetch_that_names_no_folder_of_the_claim_has_failed(base):
    made = jobs("world-fetch", json.dumps({"base": base}))
    view = fetches.view(run(), made, golden.PLATFORM, lambda url: None)
    assert view.state == "failed" and "names no folders" in view.message


def test_a_check_of_tools_with_another_outcome_counts_as_none():
    made = jobs("world-tools-0", json.dumps({"outcome": ["passed"], "seconds": "many"}))
    assert tool_checks.view(golden.run(), made).state == "unavailable"

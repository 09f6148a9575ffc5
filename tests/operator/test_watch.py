"""Which objects an event puts on the queue."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from gog_operator import watch
from gog_operator.cluster.object_cache import ObjectCache
from gog_operator.watch import Watcher, configure
from gog_operator.workqueue import Key, WorkQueue

RUN, STAGE = Key("GoGRun", "ns", "world"), Key("SFTStage", "ns", "world-sft")
SERVER = Key("ToolServer", "ns", "world-judge")


@pytest.fixture
def watcher():
    return Watcher(WorkQueue(lambda: 0.0), {}, ObjectCache())


def body(kind: str, name: str, *owner: str, version: str = "1", **more: Any) -> dict[str, Any]:
    owners = [{"apiVersion": "gog.dev/v1alpha1", "kind": owner[0], "name": owner[1], "uid": "u"}] if owner else []
    metadata = {"name": name, "namespace": "ns", "resourceVersion": version, "ownerReferences": owners, "labels": {}}
    return {"kind": kind, "metadata": metadata, **more}


def asked(watcher: Watcher) -> set[Key]:
    found = set()
    while (key := watcher.queue.take()[0]) is not None:
        found.add(key)
        watcher.queue.done(key)
    return found


def test_an_object_s_event_queues_it_and_its_owner(watcher):
    watcher.event("sftstages.gog.dev", "MODIFIED", body("SFTStage", "world-sft", "GoGRun", "world"))
    assert asked(watcher) == {STAGE, RUN}


def test_a_job_s_event_queues_its_stage_and_the_run_above(watcher):
    job = body("Job", "world-sft-a1", "SFTStage", "world-sft")
    job["metadata"]["labels"] = {"gog.dev/run": "world"}
    watcher.event("jobs.batch.volcano.sh", "MODIFIED", job)
    assert asked(watcher) == {STAGE, RUN}


def test_a_deployment_s_event_queues_the_tool_server_whose_service_owns_it(watcher):
    deployment = body("Deployment", "short-predictor", "InferenceService", "short")
    deployment["metadata"]["labels"] = {"gog.dev/owner": "world-judge"}
    watcher.event("deployments.apps", "MODIFIED", deployment)
    assert asked(watcher) == {SERVER}


def test_a_tool_server_s_event_queues_the_stages_that_wait_for_it(watcher):
    stage = body("SFTStage", "world-sft", spec={"endpoints": {"judge": "world-judge"}})
    watcher.event("sftstages.gog.dev", "ADDED", stage)
    asked(watcher)
    watcher.event("toolservers.gog.dev", "MODIFIED", body("ToolServer", "world-judge"))
    assert asked(watcher) == {SERVER, STAGE}


@pytest.mark.parametrize("how", ["MODIFIED", "DELETED"])
def test_a_finished_stage_is_not_queued_any_more(watcher, how):
    stage = body("SFTStage", "world-sft", spec={"endpoints": {"judge": "world-judge"}})
    watcher.event("sftstages.gog.dev", "ADDED", stage)
    watcher.event(
        "sftstages.gog.dev", how, {**stage, "status": {"conditions": [{"type": "Complete", "status": "True"}]}}
    )
    asked(watcher)
    watcher.event("toolservers.gog.dev", "MODIFIED", body("ToolServer", "world-judge"))
    assert asked(watcher) == {SERVER}


def test_a_listing_of_what_the_resync_has_seen_queues_nothing(watcher):
    watcher.seen[STAGE._replace(kind="sftstages.gog.dev")] = "7"
    watcher.event("sftstages.gog.dev", None, body("SFTStage", "world-sft", version="7"))
    assert asked(watcher) == set()


def test_a_listing_queues_what_a_dead_stream_has_missed(watcher):
    watcher.seen[STAGE._replace(kind="sftstages.gog.dev")] = "7"
    watcher.event("sftstages.gog.dev", None, body("SFTStage", "world-sft", version="8"))
    assert asked(watcher) == {STAGE}


def test_a_child_s_change_that_a_dead_stream_has_missed_queues_its_owner(watcher):
    job = body("Job", "world-sft-a1", "SFTStage", "world-sft")
    watcher.seen[Key("jobs.batch.volcano.sh", "ns", "world-sft-a1")] = "1"
    watcher.event("jobs.batch.volcano.sh", None, job)
    assert asked(watcher) == set()
    watcher.event("jobs.batch.volcano.sh", None, body("Job", "world-sft-a1", "SFTStage", "world-sft", version="2"))
    assert asked(watcher) == {STAGE}


def test_another_owner_s_object_queues_nothing(watcher):
    watcher.event("jobs.batch.volcano.sh", "ADDED", body("Job", "backup", "CronJob", "backup"))
    assert asked(watcher) == set()


def test_an_owner_of_another_group_queues_nothing(watcher):
    job = body("Job", "backup", "GoGRun", "world")
    job["metadata"]["ownerReferences"][0]["apiVersion"] = "gog.example.org/v1"
    watcher.event("jobs.batch.volcano.sh", "ADDED", job)
    assert asked(watcher) == set()


@pytest.mark.parametrize(
    "name", ["../../victim/gogruns/secret", "World", "", "a" * 64, "a/b", "a\n", "%2e%2e", None, 7]
)
def test_a_name_that_no_object_can_have_queues_nothing(watcher, name):
    job = body("Job", "backup", "GoGRun", name)
    job["metadata"]["labels"] = {"gog.dev/run": name, "gog.dev/owner": name}
    watcher.event("jobs.batch.volcano.sh", "ADDED", job)
    watcher.event("deployments.apps", "ADDED", job)
    assert asked(watcher) == set()


def test_tool_servers_that_no_stage_waits_for_are_forgotten(watcher):
    stage = body("SFTStage", "world-sft", spec={"endpoints": {"judge": "world-judge"}})
    watcher.event("sftstages.gog.dev", "ADDED", stage)
    watcher.event("toolservers.gog.dev", "MODIFIED", body("ToolServer", "world-judge"))
    watcher.event("sftstages.gog.dev", "DELETED", stage)
    assert not watcher.waiting


def test_kopf_keeps_nothing_in_our_objects_and_needs_no_cluster_wide_permission():
    import kopf

    settings = kopf.OperatorSettings()
    configure(settings)
    assert settings.scanning.disabled and settings.peering.standalone and not settings.posting.enabled


def watched(
    watcher: Watcher, monkeypatch: pytest.MonkeyPatch, namespaces: Callable[[], tuple[Any, ...]], ends: Sequence[Any]
) -> list[Any]:
    """The namespaces of each start of the watches. ends: how each ends: by an exception, a `signal`, or a `change`."""
    monkeypatch.setattr(watch, "AGAIN", 0.0)
    monkeypatch.setattr(watch, "FOLLOW_SECONDS", 0.0)
    starts: list[Any] = []

    async def run(*, namespaces: list[str], clusterwide: bool, stop_flag: asyncio.Event, **_: Any) -> None:
        starts.append("all" if clusterwide else namespaces)
        end = ends[len(starts) - 1]
        if isinstance(end, Exception):
            raise end
        if end == "change":
            await stop_flag.wait()

    watch.watch(watcher, namespaces, threading.Event(), run=run)
    return starts


def test_a_signal_ends_watching(watcher, monkeypatch):
    assert watched(watcher, monkeypatch, lambda: (None,), ["signal"]) == ["all"]


def test_watches_that_failed_start_again(watcher, monkeypatch):
    forbidden = PermissionError("gogruns is forbidden in b")
    assert watched(watcher, monkeypatch, lambda: ("a", "b"), [forbidden, forbidden, "signal"]) == [["a", "b"]] * 3


def test_watches_start_again_where_another_set_of_namespaces_may_be_listed(watcher, monkeypatch):
    looks = iter([("a", "b"), ("a", "b"), ("a",), ("a",), ("a", "b")])
    found = watched(watcher, monkeypatch, lambda: next(looks, ("a", "b")), ["change", "change", "signal"])
    assert found == [["a", "b"], ["a"], ["a", "b"]]

"""The cache keeps the newest document of every watched object, whatever order events, lists and answers arrive in."""

from __future__ import annotations

import pytest
from support.memory_api import MemoryApi

from gog_operator.cluster import paths
from gog_operator.cluster.kube import ApiError
from gog_operator.cluster.object_cache import CachedApi, ObjectCache
from gog_operator.cluster.snapshot import Snapshot

STAGES = paths.OURS["SFTStage"]
PATH = STAGES.path("ns", "tune")


def body(version=1, name="tune", namespace="ns", **more):
    metadata = {"name": name, "namespace": namespace, "resourceVersion": str(version), "managedFields": ["long"]}
    return {"kind": "SFTStage", "metadata": metadata, **more}


def job(*, version=1, labels=None):
    return {
        "kind": "Job",
        "metadata": {"name": "j", "namespace": "ns", "resourceVersion": str(version), "labels": labels},
    }


def listed(*bodies):
    snapshot = Snapshot()
    for each in bodies:
        snapshot.put(STAGES, each)
    return snapshot


def version(cache, path=PATH):
    found = cache.find(path)
    return found and int(found["metadata"]["resourceVersion"])


@pytest.fixture
def cache():
    made = ObjectCache()
    made.begin()
    made.replace(Snapshot(), ["ns"])
    return made


def test_an_event_that_is_older_than_what_the_operator_wrote_itself_changes_nothing(cache):
    cache.put(PATH, body(7))
    cache.observe(STAGES.name, "MODIFIED", body(6))
    assert version(cache) == 7
    cache.observe(STAGES.name, "MODIFIED", body(10))
    assert version(cache) == 10, "versions are numbers, not words"


def test_a_deletion_removes_what_is_older_and_not_a_successor(cache):
    cache.put(PATH, body(7))
    cache.observe(STAGES.name, "DELETED", body(8))
    assert cache.find(PATH) is None and cache.covers(PATH)
    cache.put(PATH, body(20))
    cache.observe(STAGES.name, "DELETED", body(8))
    assert version(cache) == 20


def test_managed_fields_are_not_kept(cache):
    cache.put(PATH, body())
    assert "managedFields" not in cache.find(PATH)["metadata"]


def test_a_list_that_began_before_a_change_does_not_undo_it(cache):
    cache.put(STAGES.path("ns", "deleted"), body(1, "deleted"))
    cache.begin()
    cache.observe(STAGES.name, "ADDED", body(9, "created"))
    cache.observe(STAGES.name, "DELETED", body(8, "deleted"))
    cache.observe(STAGES.name, "MODIFIED", body(7))
    cache.replace(listed(body(5), body(1, "deleted")), ["ns"])
    assert version(cache) == 7
    assert cache.find(STAGES.path("ns", "deleted")) is None and cache.find(STAGES.path("ns", "created"))


def test_a_list_repairs_what_lost_events_have_left_behind(cache):
    cache.put(PATH, body(1))
    cache.put(STAGES.path("ns", "gone"), body(2, "gone"))
    cache.begin()
    cache.replace(listed(body(5)), ["ns"])
    assert version(cache) == 5 and cache.find(STAGES.path("ns", "gone")) is None


def test_only_namespaces_that_were_listed_are_covered(cache):
    assert cache.covers(PATH) and not cache.covers(STAGES.path("other", "tune"))
    cache.begin()
    cache.replace(Snapshot(), ["other"])
    assert not cache.covers(PATH)
    cache.begin()
    cache.replace(Snapshot(), [None])
    assert cache.covers(PATH)


def test_what_no_watch_reports_is_not_kept(cache):
    pod, other = paths.PODS.path("ns", "p"), paths.JOBS.path("ns", "j")
    cache.put(pod, {"kind": "Pod", "metadata": {"name": "p", "namespace": "ns", "resourceVersion": "1"}})
    cache.put(other, job())
    assert cache.find(pod) is None and not cache.covers(pod) and cache.find(other) is None
    cache.put(other, job(labels={"app.kubernetes.io/name": "gog"}))
    assert cache.find(other)


def test_lists_and_subresources_are_not_covered(cache):
    assert not cache.covers(STAGES.path("ns")) and not cache.covers(f"{PATH}/status")


def test_reads_are_answered_from_the_cache_and_writes_are_kept_in_it(cache):
    server = MemoryApi()
    api = CachedApi(server, cache, fresh=False)
    api.call("POST", STAGES.path("ns"), body={"kind": "SFTStage", "metadata": {"name": "tune"}})
    api.call("PATCH", f"{PATH}/status", body={"status": {"attempt": 1}})
    assert api.call("GET", PATH)["status"] == {"attempt": 1}
    with pytest.raises(ApiError, match="404"):
        api.call("GET", STAGES.path("ns", "other"))
    assert server.requests == {"POST": 1, "PATCH": 1}


def test_a_fresh_read_asks_the_server_and_corrects_the_cache(cache):
    server = MemoryApi()
    api = CachedApi(server, cache, fresh=True)
    server.put(STAGES, body())
    cache.put(PATH, body(0, status={"attempt": 1}))
    assert "status" not in api.call("GET", PATH) and "status" not in cache.find(PATH)
    server.remove(PATH)
    with pytest.raises(ApiError, match="404"):
        api.call("GET", PATH)
    assert cache.find(PATH) is None

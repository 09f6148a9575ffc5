"""The API server of the kit is real, serves the CRDs of Volcano and KServe, enforces permissions, and is not shared."""

from __future__ import annotations

import fcntl
import json
import os

import pytest
from support import kube

pytestmark = pytest.mark.apiserver


def test_kinds_of_volcano_and_kserve_are_known_without_their_controllers(api_server):
    kinds = api_server.kubectl("api-resources", "-o", "name")
    for name in ("jobs.batch.volcano.sh", "commands.bus.volcano.sh", "inferenceservices.serving.kserve.io"):
        assert name in kinds


def test_a_namespace_refuses_a_pod_that_is_not_restricted(api_server):
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "root", "namespace": api_server.namespace()},
        "spec": {"containers": [{"name": "a", "image": "a", "securityContext": {"privileged": True}}]},
    }
    with pytest.raises(AssertionError, match='violates PodSecurity "restricted'):
        api_server.apply(pod)


def test_the_audit_log_names_each_request(api_server):
    namespace = api_server.namespace()
    rows = [json.loads(line) for line in api_server.audit_log.read_text().splitlines()]
    written = [row["objectRef"]["name"] for row in rows if row["verb"] == "patch" and "objectRef" in row]
    assert namespace in written


def test_what_a_killed_session_left_is_stopped_by_the_next(tmp_path, monkeypatch):
    monkeypatch.setattr(kube, "CLUSTER", tmp_path)
    stopped = []
    monkeypatch.setattr(kube, "stop", stopped.append)
    sessions = tmp_path / "sessions"
    sessions.mkdir()
    (sessions / "dead.lock").touch()
    with (sessions / "alive.lock").open("w") as alive:
        fcntl.flock(alive, fcntl.LOCK_EX)
        folder, lock = kube.claim_folder()
        lock.close()
    assert stopped == [sessions / "dead"]
    assert folder == sessions / str(os.getpid())

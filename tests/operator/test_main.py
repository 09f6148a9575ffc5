"""`gog operator` as a process, on a real API server, with the permissions of the shipped manifest in one namespace."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

import pytest
import yaml
from support import cluster_actors, ports
from support.job_names import plain
from support.operator_builders import until
from support.remote_harness import Workplace

pytestmark = pytest.mark.apiserver
INSTALL = Path(__file__).parents[2] / "manifests/install.yaml"


class Process:
    """An operator whose service account has the manifest's permissions in one namespace."""

    def __init__(self, place: Workplace, folder: Path, *more: str) -> None:
        self.place, self.port, self.log, self.more = place, ports.free(1)[0], folder / "log", more
        self.kubeconfig = folder / "kubeconfig"
        self.kubeconfig.write_text(yaml.safe_dump(self._kubeconfig()))
        self.process = self.start()

    def start(self) -> subprocess.Popen[bytes]:
        words = ["--namespace", self.place.namespace, "--lease-namespace", self.place.namespace]
        return subprocess.Popen(
            [sys.executable, "-m", "gog_console", "operator", *words, "--port", str(self.port), *self.more],
            env=os.environ | {"KUBECONFIG": str(self.kubeconfig)},
            stderr=self.log.open("ab"),
        )

    def _kubeconfig(self) -> dict[str, Any]:
        server, namespace = self.place.server, self.place.namespace
        head = {"name": "operator", "namespace": namespace}
        server.apply({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": head})
        self.permit(namespace)
        token = server.kubectl("create", "token", "operator", "-n", namespace).strip()
        config = yaml.safe_load(server.kubeconfig.read_text())
        config["users"] = [{"name": each["name"], "user": {"token": token}} for each in config["users"]]
        return config

    def permit(self, namespace: str) -> None:
        """Gives the service account the manifest's permissions in a namespace."""
        rules = [rule for each in manifests() if each["metadata"]["name"] in ROLES for rule in each["rules"]]
        head = {"name": "operator", "namespace": namespace}
        subject = {"kind": "ServiceAccount", "name": "operator", "namespace": self.place.namespace}
        rbac = "rbac.authorization.k8s.io"
        self.place.server.apply(
            {"apiVersion": f"{rbac}/v1", "kind": "Role", "metadata": head, "rules": rules},
            {
                "apiVersion": f"{rbac}/v1",
                "kind": "RoleBinding",
                "metadata": head,
                "subjects": [subject],
                "roleRef": {"apiGroup": rbac, "kind": "Role", "name": "operator"},
            },
        )

    def healthy(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/healthz", timeout=5) as answer:
                return answer.read() == b"ok"
        except OSError:
            return False

    def metric(self, name: str) -> float:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=5) as answer:
            lines = answer.read().decode().splitlines()
        return sum(float(each.split()[-1]) for each in lines if each.startswith(name))

    def end(self, how: signal.Signals = signal.SIGTERM) -> int:
        self.process.send_signal(how)
        return self.process.wait(30)


ROLES = ("gog-system-gog-operator", "gog-operator-lease")


def manifests() -> list[dict[str, Any]]:
    documents = yaml.load_all(INSTALL.read_text(), getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    return [each for each in documents if each and each["kind"] in ("Role", "ClusterRole")]


@pytest.fixture
def place(api_server):
    return Workplace(api_server)


@pytest.fixture
def operator(place, tmp_path):
    started = Process(place, tmp_path)
    yield started
    if started.process.poll() is None:
        started.end(signal.SIGKILL)


def drive(place: Workplace, happens: Any) -> Any:
    """Advances the actors until it happens."""

    def turn() -> Any:
        cluster_actors.advance(place.api, place.namespace, place.scenario)
        return happens()

    return until(turn)


def test_a_run_completes_by_events_with_the_manifests_permissions_in_one_namespace(place, operator):
    until(operator.healthy)
    until(lambda: operator.metric("gog_operator_last_resync_timestamp_seconds") > 0)
    place.apply()
    drive(place, lambda: place.condition("GoGRun", "world", "Complete"))
    assert operator.metric('gog_operator_api_requests_total{code="403"') == 0
    assert operator.metric("gog_operator_objects") == 0, "the one resync so far was before the run: events did it all"
    assert operator.end() == 0
    lease = place.api.call("GET", f"/apis/coordination.k8s.io/v1/namespaces/{place.namespace}/leases/gog-operator")
    assert lease["spec"].get("holderIdentity", "") == "", "released for the next operator"
    assert "Traceback" not in operator.log.read_text()
    assert not any("finalizers" in each["metadata"] for each in place.stages())
    assert not any("kopf" in str(each["metadata"].get("annotations")) for each in place.stages())


@pytest.mark.slow
def test_the_successor_of_a_killed_operator_continues_its_work(place, operator):
    place.scenario.outcome = lambda name: "" if plain(name) == "world-sft-a1" else "Completed"
    place.apply()
    drive(place, lambda: place.phase("world-sft-a1") == "Running")
    operator.end(signal.SIGKILL)
    place.scenario.outcome = lambda name: "Completed"
    for _ in range(5):
        cluster_actors.advance(place.api, place.namespace, place.scenario)
    operator.process = operator.start()
    drive(place, lambda: place.condition("GoGRun", "world", "Complete"))
    assert [each["status"]["attempt"] for each in place.stages()] == [1] * 5


@pytest.mark.slow
def test_a_namespace_without_the_operator_s_role_does_not_affect_the_others(api_server, tmp_path):
    kept, lost = Workplace(api_server), Workplace(api_server)
    operator = Process(kept, tmp_path, "--namespace", lost.namespace, "--resync", "2")
    try:
        readable = f'gog_operator_namespace_readable{{watched_namespace="{lost.namespace}"}}'
        until(operator.healthy)
        until(lambda: operator.metric("gog_operator_last_resync_timestamp_seconds") > 0)
        assert operator.metric(readable) == 0, "it never had the role there"
        kept.apply()
        drive(kept, lambda: kept.condition("GoGRun", "world", "Complete"))
        operator.permit(lost.namespace)
        until(lambda: operator.metric(readable) == 1)
        lost.apply()
        drive(lost, lambda: lost.condition("GoGRun", "world", "Complete"))
        api_server.kubectl("delete", "rolebinding", "operator", "-n", lost.namespace)
        until(lambda: operator.metric(readable) == 0)
        kept.create("GoGRun", "second", store={"uri": "s3://bucket/second", "secretName": "s3"})
        drive(kept, lambda: kept.condition("GoGRun", "second", "Complete"))
        assert operator.healthy() and operator.end() == 0
    finally:
        if operator.process.poll() is None:
            operator.end(signal.SIGKILL)
